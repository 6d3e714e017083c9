"""Leaves out what cannot be tested from outside, when the services run there (`outside.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract import outside


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests of this folder that only a service in the test's own process can pass."""
    if not outside.targets():
        return
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    left_out = [item for item in here if not outside.is_reachable(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
