"""One mutant against the tests that can notice it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina_tools import warm
from lamina_tools.mutation import chosen, hook, machine_code, process
from lamina_tools.mutation.mutants import Mutant
from lamina_tools.mutation.recording import IMPORTED, Recording
from lamina_tools.mutation.selection import Selection, executed, select
from lamina_tools.tree import ROOT, module_name

KILLED, SURVIVED = "killed", "SURVIVED"

COMPILING_S = 300
"""Time that a run may take longer when functions are compiled in it."""

SLOWER = 5
"""So many times as long as it took when it was recorded a test may take before it counts as one that hangs; and as many
seconds more, for what it shares with others, and for a machine that does something else:"""
MORE_S = 30

NO_TESTS = 5
"""pytest's exit status when it found no test to run."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    result: str
    """`KILLED` or `SURVIVED`."""
    by: str
    """The test that noticed, or how; of a survivor, what was run against it."""
    tests: int
    """How many tests were chosen."""
    seconds: float = 0.0


class Trials:
    """Tries mutants of one room against what is recorded of its tests."""

    def __init__(self, recording: Recording, most_s: float) -> None:
        self._recording = recording
        self._most_s = most_s
        self._sources = warm.own_sources()
        self._compiled = warm.compiled_modules(self._sources)
        self._closure = set(warm.closure(self._compiled, self._sources))
        self._found: dict[Path, dict[int, set[str]]] = {}
        self._unsound: set[str] = set()

    def distrust(self, tests: Sequence[str]) -> None:
        """Takes tests out of all later choices: they fail without a mutation too."""
        self._unsound.update(tests)

    def _lines(self, path: Path) -> dict[int, set[str]]:
        if path not in self._found:
            self._found[path] = self._recording.lines(path)
        return {line: tests - self._unsound for line, tests in self._found[path].items()}

    def select(self, mutant: Mutant) -> Selection:
        """Returns the tests for a mutant."""
        module = module_name(mutant.path) or ""
        compiled = module in self._compiled
        using = machine_code.importers(module, self._sources)
        if compiled:
            using = [name for name in self._sources if module in warm.closure([name], self._sources)]
        importers = [self._sources[name].relative_to(ROOT) for name in using]
        seconds = self._recording.seconds
        return select(mutant.place, mutant.path, self._lines, importers, compiled, seconds, self._most_s)

    def stale(self, mutant: Mutant) -> list[str]:
        """Returns the modules whose machine code a mutant may change."""
        module = module_name(mutant.path) or ""
        imported = IMPORTED in executed(mutant.place, self._lines(mutant.path))
        if module not in self._closure or not machine_code.concerns(mutant.place, module, self._compiled, imported):
            return []
        return machine_code.dependents(module, self._sources, self._compiled)

    def try_one(self, mutant: Mutant) -> Verdict:
        """Runs the tests for a mutant until one fails."""
        selection = self.select(mutant)
        if not selection.tests:
            return Verdict(mutant, SURVIVED, "no test executes this line", 0)
        stale = self.stale(mutant)
        with process.Scratch() as scratch:
            text = scratch / "mutant.py"
            text.write_bytes(mutant.text)
            environment = {hook.MODULE: str(ROOT / mutant.path), hook.TEXT: str(text)}
            cache = os.environ.get("NUMBA_CACHE_DIR")
            if stale and cache:
                machine_code.copy_without(Path(cache), stale, self._sources, scratch / "numba")
                environment["NUMBA_CACHE_DIR"] = str(scratch / "numba")
            status, failed = self._run(selection.tests, environment, scratch, COMPILING_S if stale else 0, ["-x"])
            result, by = judge(status, failed, selection, (scratch / hook.SEEN).exists())
            return Verdict(mutant, result, by, len(selection.tests))

    def confirm(self, verdicts: Sequence[Verdict]) -> list[str]:
        """Returns those of the tests that noticed mutants that fail without any mutation, too."""
        tests = tuple(dict.fromkeys(v.by for v in verdicts if v.by in self._recording.seconds))
        if not tests:
            return []
        with process.Scratch() as scratch:
            return [test for test in self._run(tests, {}, scratch, 0, [])[1] if test in tests]

    def _run(
        self, tests: Sequence[str], environment: dict[str, str], scratch: Path, compiling_s: float, more: Sequence[str]
    ) -> tuple[int | None, list[str]]:
        """Runs tests, each and all within their time."""
        took = [self._recording.seconds[test] for test in tests]
        each_s, all_s = (SLOWER * seconds + MORE_S + compiling_s for seconds in (max(took), sum(took)))
        return run(tests, environment, scratch, (each_s, all_s + MORE_S), more)


def run(
    tests: Sequence[str], environment: dict[str, str], scratch: Path, most_s: tuple[float, float], more: Sequence[str]
) -> tuple[int | None, list[str]]:
    """Runs tests; returns pytest's status, None when it had to be stopped, and the tests that failed.

    A test that takes longer than the first of `most_s` fails; all that take longer than the second are stopped.
    """
    each_s, all_s = most_s
    wanted = scratch / "wanted.json"
    wanted.write_text(json.dumps(tests))
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    arguments = ["-p", "lamina_tools.mutation.chosen", "--chosen", str(wanted), "-n", "0", *more, *files]
    with (scratch / "told").open("w") as told:
        running = process.pytest([f"--timeout={each_s:.0f}", *arguments], environment, scratch, told)
        try:
            status: int | None = running.wait(all_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.stop(running)
    failed = scratch / chosen.FAILED
    return status, failed.read_text().splitlines() if failed.exists() else []


def judge(status: int | None, failed: Sequence[str], selection: Selection, seen: bool) -> tuple[str, str]:
    """Returns what became of a mutant, and by what."""
    if failed:
        return KILLED, failed[0]
    if status is None:
        return KILLED, "it had to be stopped: it hung"
    if status not in (0, NO_TESTS):
        return KILLED, f"pytest ended with status {status}"
    left_out = f"; {selection.left_out} more were left out for their time" if selection.left_out else ""
    if not seen:
        return SURVIVED, "no test imports this module"
    return SURVIVED, f"{len(selection.tests)} tests passed{left_out}"
