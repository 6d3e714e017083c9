"""What the tests of the rules share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collector_at_rest() -> Iterator[None]:
    """Stops the cyclic collector: all rules keep the syntax trees of all code, which it would walk again and again."""
    gc.disable()
    yield
    gc.enable()
