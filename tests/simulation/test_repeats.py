"""A seed is a history: what the simulation reports can be repeated, and its faults do strike."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation import seeds
from tests.simulation.scenario import Report, simulate

from lamina_tools.tree import ROOT

SEED = 3
LIMIT_S = 110


def history(seed: int) -> tuple[bytes, Report]:
    """Returns the event log of a seed and its report."""
    lines: list[str] = []
    report = simulate(seed, lambda entry: lines.append(entry.json_line()))
    return "".join(lines).encode("ascii"), report


@pytest.mark.slow
def test_the_command_repeats_a_history_to_the_byte(tmp_path: Path) -> None:
    """The command that a failure names writes, in a process of its own, the events of the run in this one."""
    other, _ = history(SEED + 1)
    here, report = history(SEED)
    words = shlex.split(seeds.command(SEED))
    assert words[0] == "python"
    subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4242"},
        check=True,
        timeout=LIMIT_S,
    )
    assert (tmp_path / seeds.EVENT_LOG).read_bytes() == here
    assert other != here
    assert b'"event":"rpc.' in here and b'"event":"fault.injected"' in here
    assert report.rpc_faults > 0 and len(report.physical) > 5


def test_a_failure_names_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a seed fails with carries its one command as a note, which pytest prints."""

    def fails(seed: int) -> Report:
        raise AssertionError(f"seed {seed} lost a page")

    monkeypatch.setattr(seeds, "simulate", fails)
    with pytest.raises(AssertionError) as caught:
        seeds.check(17)
    assert "python -m tests.simulation 17 --event-log events.jsonl" in caught.value.__notes__[0]
