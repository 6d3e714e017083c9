"""A seed repeats its history to the byte, whatever the machine and the process do otherwise.

The whole demo runs in a process of its own each time; what is compared is its event log: every event of all six layers
with its time and cause. `tests/style/test_determinism_rules.py` forbids what would break this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.story import demo


@contextmanager
def load(processes: int = 2) -> Iterator[None]:
    """Keeps the machine's cores busy beside what runs inside."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def first_difference(one: bytes, other: bytes) -> str:
    """Returns the first lines that differ, for the message of a failed comparison; nothing when all are the same."""
    for number, (mine, theirs) in enumerate(zip(one.splitlines(), other.splitlines(), strict=False), 1):
        if mine != theirs:
            return f"line {number}:\n{mine.decode()}\n{theirs.decode()}"
    return "" if one == other else f"{len(one)} and {len(other)} bytes, one the beginning of the other"


def test_the_same_seed_gives_the_same_bytes_on_a_loaded_machine(seventh: bytes, tmp_path: Path) -> None:
    """With other work on the cores and another hash seed in the environment the log is the same."""
    with load():
        again = demo(tmp_path / "again.jsonl", 7, {"PYTHONHASHSEED": "4242"})
    assert first_difference(seventh, again) == ""


@pytest.mark.slow  # the compiled functions are compiled anew
def test_a_cold_cache_gives_the_bytes_of_a_warm_one(seventh: bytes, tmp_path: Path) -> None:
    """When numba has nothing compiled yet, the log is the same."""
    cache = tmp_path / "numba"
    cache.mkdir()
    assert first_difference(seventh, demo(tmp_path / "cold.jsonl", 7, {"NUMBA_CACHE_DIR": str(cache)})) == ""
    assert list(cache.rglob("*.nbc")), "nothing was compiled: the run was not a cold one"


def test_another_seed_gives_another_history(seventh: bytes, tmp_path: Path) -> None:
    """Another seed gives other ids, latencies and interleavings, and every check of the story still holds."""
    other = demo(tmp_path / "other.jsonl", 8)
    assert shape(other) != shape(seventh)


def shape(log: bytes) -> list[tuple[Any, ...]]:
    """Returns the order and times of the events without the ids that a seed draws."""
    return [(e["time_ns"], e["layer"], e["event"]) for e in map(json.loads, log.splitlines())]


def test_several_hosts_repeat_their_history_too(tmp_path: Path) -> None:
    """Three hosts under one orchestrator: the same seed gives the same bytes, and the story holds."""
    first = demo(tmp_path / "first.jsonl", 11, None, "--hosts", "3")
    again = demo(tmp_path / "again.jsonl", 11, {"PYTHONHASHSEED": "77"}, "--hosts", "3")
    assert first_difference(first, again) == ""
    assert {json.loads(line)["host"] for line in first.splitlines()} == {"", "h1", "h2", "h3"}
