"""Which seeds the suite runs, and in which file: xdist gives a file to a worker, so four files fill two cores."""

from __future__ import annotations

import pytest
from tests.simulation.scenario import Report, simulate

COUNT = 200
PARTS = 4
EVENT_LOG = "events.jsonl"


def part(number: int) -> pytest.MarkDecorator:
    """Returns the parametrisation with the seeds of one file."""
    size = COUNT // PARTS
    return pytest.mark.parametrize("seed", range(number * size, (number + 1) * size))


def command(seed: int) -> str:
    """Returns the one command that repeats a seed, to the byte, and keeps its events."""
    return f"python -m tests.simulation {seed} --event-log {EVENT_LOG}"


def check(seed: int) -> Report:
    """Runs a seed; an invariant that does not hold fails with the one command that repeats it."""
    try:
        return simulate(seed)
    except Exception as error:
        error.add_note(f"seed {seed} does not hold; this repeats it: {command(seed)}")
        raise
