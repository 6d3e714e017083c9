"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undoes what a command sets up: its log goes to the standard error of its test, which ends with that."""
    yield
    structlog.reset_defaults()
