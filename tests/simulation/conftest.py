"""What several tests look at: the demo of one seed, told once."""

from __future__ import annotations

import pytest
from tests.simulation.story import demo


@pytest.fixture(scope="session")
def seventh(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The event log of seed 7, told once on a machine left alone."""
    return demo(tmp_path_factory.mktemp("seventh") / "events.jsonl", 7, {"PYTHONHASHSEED": "1"})
