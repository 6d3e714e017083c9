"""A seed is a history: what the simulation reports can be repeated, and its faults do strike."""

from __future__ import annotations

import pytest
from tests.simulation.scenario import Report, simulate

SEED = 3


def history(seed: int) -> tuple[str, Report]:
    """Returns the event log of a seed and its report."""
    lines: list[str] = []
    report = simulate(seed, lambda entry: lines.append(entry.json_line()))
    return "".join(lines), report


@pytest.mark.slow
def test_a_seed_repeats_its_history() -> None:
    """Two runs of one seed under faults write the same events, byte for byte; another seed writes others."""
    first, report = history(SEED)
    again, _ = history(SEED)
    assert first == again
    assert history(SEED + 1)[0] != first
    assert '"event":"rpc.' in first and '"event":"fault.injected"' in first
    assert report.rpc_faults > 0 and len(report.physical) > 5
