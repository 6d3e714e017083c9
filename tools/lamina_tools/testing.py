"""`./run test`: runs the kinds of tests in order and says at the end what was skipped and why.

Without `--all` it runs what needs no privileges. With `--all`, or with CI=true, a skipped test whose reason is not in
`tests/allowed_skips.toml` is a failure: a test that quietly stopped running is worth as much as none. Such a run tries
the tests of `tests/second_trials.toml` again when they failed, and names those that then pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from lamina_tools import outcomes, skips, trials
from lamina_tools.outcomes import EXPECTED, FAILED, PASSED, SKIPPED, Outcome
from lamina_tools.tree import ROOT

KINDS = ("unit", "property", "contract", "golden", "integration", "style")
"""Kinds that need no privileges, in the order in which they run."""

MORE_KINDS = ("simulation", "linux", "e2e")
"""Kinds that only `--all` runs: many seeds, root, Docker."""

IN_PARALLEL = frozenset({"unit", "property", "contract", "integration", "simulation"})
"""Kinds for which two processes are worth their start."""

BESIDE = "e2e"
"""A kind that one process runs, and that waits for Docker more than it computes: on more than one core it runs beside
the other kinds of one process, which come last then, and its output is told when it has ended."""

LONG_S = 10.0
"""Files that took longer are told, the longest first, and at most so many:"""
MOST_LONG = 20

NO_TESTS = 5
"""pytest's exit status when it found no test to run."""


@dataclass(frozen=True)
class Options:
    """What the caller asked for."""

    everything: bool
    """Run all kinds, and accept no unknown skip."""
    strict: bool
    """Accept no unknown skip."""
    paths: tuple[str, ...]
    """Tests that were named; none means all."""
    extra: tuple[str, ...]
    """Other arguments for pytest."""


@dataclass(frozen=True)
class Run:
    """What one kind came to."""

    kind: str
    status: int
    """pytest's exit status."""
    seconds: float
    results: tuple[Outcome, ...]
    unstable: tuple[str, ...] = field(default=())
    """Tests that failed, and passed when they were tried again, alone."""

    @property
    def broken(self) -> bool:
        """Says whether pytest itself could not finish, which no test's result shows."""
        return self.status not in (0, 1, NO_TESTS) and not any(o.result == FAILED for o in self.results)

    @property
    def failed(self) -> bool:
        """Says whether anything went wrong."""
        return self.status not in (0, NO_TESTS)


def parse(arguments: Sequence[str], environment: dict[str, str]) -> Options:
    """Tells our own option and named tests from arguments that are pytest's."""
    rest = [argument for argument in arguments if argument != "--all"]
    everything = len(rest) < len(arguments)
    named = [a for a in rest if not a.startswith("-") and Path(a.partition("::")[0]).exists()]
    extra = tuple(a for a in rest if a not in named)
    paths = tuple(str(Path.cwd() / a) for a in named)
    return Options(everything, everything or environment.get("CI") == "true", paths, extra)


def command(kind: str, paths: Sequence[str], options: Options, report: Path, cores: int) -> list[str]:
    """Returns how to run one kind."""
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "lamina_tools.outcomes",
        "--outcomes",
        str(report),
        "-q",
        "--no-header",
        "--continue-on-collection-errors",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    if kind in IN_PARALLEL and cores > 1 and not any(a in ("-n", "--pdb", "-s") for a in options.extra):
        arguments += ["-n", "2", "--dist", "loadfile"]
    if not options.everything and not options.paths and "-m" not in options.extra:
        arguments += ["-m", "not slow"]
    return [*arguments, *options.extra, *paths]


def run_kind(kind: str, paths: Sequence[str], options: Options, told: IO[str] | None = None) -> Run:
    """Runs one kind, with pytest's output passed through, or into a file."""
    print(f"── {kind} ──", file=told, flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "outcomes.jsonl"
        cores = len(os.sched_getaffinity(0))
        # Tests start programs while gRPC's threads run: its fork handlers then abort the child now and then.
        environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        words = command(kind, paths, options, report, cores)
        done = subprocess.run(words, cwd=ROOT, env=environment, stdout=told, stderr=told)
        return Run(kind, done.returncode, time.monotonic() - start, tuple(outcomes.read(report)))


def run_all(options: Options) -> list[Run]:
    """Runs what was asked for: the named tests at once, or each kind that has a folder."""
    if options.paths:
        return [run_kind("named tests", options.paths, options)]
    kinds = [kind for kind in (KINDS + MORE_KINDS if options.everything else KINDS) if has_tests(kind)]
    first, last = in_turns(kinds, options, len(os.sched_getaffinity(0)))
    runs = {kind: run_kind(kind, [str(ROOT / "tests" / kind)], options) for kind in first}
    runs |= run_beside(last, options) if last else {}
    return [runs[kind] for kind in kinds]


def in_turns(kinds: Sequence[str], options: Options, cores: int) -> tuple[list[str], list[str]]:
    """Returns the kinds that have the machine to themselves, and those that then run while `BESIDE` does."""
    if BESIDE not in kinds or cores < 2 or any(a in ("-n", "--pdb", "-s") for a in options.extra):
        return list(kinds), []
    return [kind for kind in kinds if kind in IN_PARALLEL], [kind for kind in kinds if kind not in IN_PARALLEL]


def run_beside(kinds: Sequence[str], options: Options) -> dict[str, Run]:
    """Runs `BESIDE` in the background and the other kinds one after the other meanwhile; returns what each came to."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told, ThreadPoolExecutor(1) as pool:
        beside = pool.submit(run_kind, BESIDE, [str(ROOT / "tests" / BESIDE)], options, told)
        others = [kind for kind in kinds if kind != BESIDE]
        runs = {kind: run_kind(kind, [str(ROOT / "tests" / kind)], options) for kind in others}
        runs[BESIDE] = beside.result()
        told.seek(0)
        print(told.read(), end="", flush=True)
    return runs


def try_again(runs: Sequence[Run], listed: Sequence[trials.Trial], options: Options) -> list[Run]:
    """Returns the runs with the word of a second trial for the tests that get one."""
    chosen = trials.to_try_again([outcome for run in runs for outcome in run.results], listed)
    if not chosen or any(run.broken for run in runs):
        return list(runs)
    alone = replace(options, extra=(*options.extra, "-n", "0"))
    second = run_kind("second trial", [str(ROOT / test) for test in chosen], alone)
    passed = {outcome.test for outcome in second.results if outcome.result == PASSED}
    return [after_trial(run, passed) for run in runs]


def after_trial(run: Run, passed: Collection[str]) -> Run:
    """Returns a run in which the failed tests that passed a second trial are unstable."""
    unstable = tuple(o.test for o in run.results if o.result == FAILED and o.test in passed)
    results = tuple(replace(o, result=PASSED) if o.test in unstable else o for o in run.results)
    left = any(o.result == FAILED for o in results)
    return replace(run, status=run.status if left or not unstable else 0, results=results, unstable=unstable)


def has_tests(kind: str) -> bool:
    """Says whether a kind has a folder with tests in it."""
    return any((ROOT / "tests" / kind).rglob("test_*.py"))


def summary(runs: Sequence[Run], refused: Sequence[Outcome]) -> str:
    """Returns the closing lines: each kind, each skipped test with its reason, and the sum."""
    lines = ["", "── summary ──"]
    for run in runs:
        counts = Counter(outcome.result for outcome in run.results)
        told = ", ".join(f"{counts[r]} {r}" for r in (PASSED, FAILED, SKIPPED, EXPECTED) if counts[r]) or "no tests"
        broken = f", and pytest stopped with status {run.status}" if run.broken else ""
        lines.append(f"{run.kind:<12} {told}{broken} ({run.seconds:.1f} s)")
    results = [outcome for run in runs for outcome in run.results]
    for title, kind in (("skipped", SKIPPED), ("expected to fail", EXPECTED)):
        found = sorted((o for o in results if o.result == kind), key=lambda o: o.test)
        lines += ["", f"{title}:", *(f"  {o.test}: {o.reason}" for o in found)] if found else []
    took = [item for item in outcomes.seconds_by_file(results).items() if item[1] > LONG_S][:MOST_LONG]
    lines += ["", "longest files:", *(f"  {file}: {seconds:.0f} s" for file, seconds in took)] if took else []
    unstable = sorted(test for run in runs for test in run.unstable)
    if unstable:
        lines += ["", "unstable, failed and then passed alone; mend them:", *(f"  {test}" for test in unstable)]
    if refused:
        lines += ["", f"skipped for a reason that {skips.ALLOWED} does not list:", *(f"  {o.test}" for o in refused)]
    counts = Counter(outcome.result for outcome in results)
    failed = counts[FAILED] + sum(run.broken for run in runs)
    lines += ["", f"{counts[PASSED]} passed, {failed} failed, {counts[SKIPPED] + counts[EXPECTED]} skipped"]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Runs `./run test`; returns 0 when tests ran, all passed, and no skip was refused."""
    options = parse(arguments, dict(os.environ))
    try:
        allowed = skips.load(ROOT / skips.ALLOWED)
        listed = trials.load(ROOT / trials.TRIALS)
    except (skips.AllowedSkipsMalformed, trials.TrialsMalformed) as failure:
        print(failure, file=sys.stderr)
        return 2
    runs = run_all(options)
    if options.strict:
        runs = try_again(runs, listed, options)
    results = [outcome for run in runs for outcome in run.results]
    refused = skips.unexpected(results, allowed) if options.strict else []
    print(summary(runs, refused))
    if not results:
        print("run: no test ran", file=sys.stderr)
    return int(not results or bool(refused) or any(run.failed for run in runs))
