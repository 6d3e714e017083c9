"""Which tests of a room execute which line, and how long each takes: recorded once for a state of the tree."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from coverage import CoverageData

from lamina_tools import outcomes
from lamina_tools.mutation import hook, process
from lamina_tools.mutation.rooms import Room
from lamina_tools.tree import ROOT

KEPT = 3
"""Recordings of a room that are kept."""

LONGEST_S = 600
"""A test may take so long while its lines are recorded."""

IMPORTED = ""
"""Stands for the import of a module, among the tests that executed a line."""


class NotRecorded(Exception):
    """The room's tests could not be run."""


@dataclass
class Recording:
    """What the tests of a room did without any mutation."""

    folder: Path
    seconds: dict[str, float]
    """How long each test that passed took, by its node id."""
    failed: list[str]
    """Tests that failed; they say nothing about a mutant."""
    users: dict[str, list[str]] = field(default_factory=dict)
    """Tests that use a shared fixture, by its context."""
    _lines: dict[Path, dict[int, list[str]]] = field(default_factory=dict)

    def lines(self, path: Path) -> dict[int, set[str]]:
        """Returns who executed each line of a file: tests, and `IMPORTED` for its import."""
        found: dict[int, set[str]] = {}
        for file in sorted(self.folder.glob("lines.*")):
            data = CoverageData(str(file))
            data.read()
            for line, contexts in data.contexts_by_lineno(str(ROOT / path)).items():
                found.setdefault(line, set()).update(*(self._tests(context) for context in contexts))
        return found

    def _tests(self, context: str) -> Iterable[str]:
        """Returns the tests behind a context that passed."""
        tests = [context]
        if context.startswith("@"):
            file = context.partition(" ")[2]
            tests = self.users.get(context) or [test for test in self.seconds if test.startswith(f"{file}::")]
        return [test for test in tests if test in self.seconds or test == IMPORTED]


def load(folder: Path) -> Recording:
    """Reads a recording."""
    results = outcomes.read(folder / "outcomes.jsonl")
    users: dict[str, list[str]] = {}
    for file in sorted(folder.glob("users.*.json")):
        users |= json.loads(file.read_text())
    return Recording(
        folder,
        {o.test: o.seconds for o in results if o.result in (outcomes.PASSED, outcomes.EXPECTED) and "::" in o.test},
        sorted(o.test for o in results if o.result == outcomes.FAILED),
        users,
    )


def recorded(room: Room, processes: int) -> Recording:
    """Returns the recording for the present state of a room; makes it when there is none."""
    kept = Path(sys.prefix) / "mutation"
    folder = kept / f"{room.name}-{room.digest()}"
    if not folder.exists():
        scratch = kept / f".{room.name}.{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        record(room, scratch, processes)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    os.utime(folder)
    found = sorted(kept.glob(f"{room.name}-????????????????"), key=lambda path: -path.stat().st_mtime_ns)
    for stale in found[KEPT:]:
        shutil.rmtree(stale, ignore_errors=True)
    return load(folder)


def record(room: Room, folder: Path, processes: int) -> None:
    """Runs a room's tests with their lines recorded into a folder; raises NotRecorded when none could be run."""
    report = folder / "outcomes.jsonl"
    environment = {hook.LINES: str(folder), hook.SOURCE: str(ROOT / room.package)}
    arguments = ["-p", "lamina_tools.mutation.recorder", "-p", "lamina_tools.outcomes", "--outcomes", str(report)]
    arguments += [f"--timeout={LONGEST_S}", "-n", str(processes if processes > 1 else 0), "--dist", "loadfile"]
    with process.Scratch() as scratch, (folder / "told").open("w") as told:
        running = process.pytest([*arguments, *map(str, room.tests)], environment, scratch, told)
        running.wait()
        process.stop(running)
    if not outcomes.read(report):
        raise NotRecorded(f"no test of {room.name} ran: {(folder / 'told').read_text()[-2000:]}")
