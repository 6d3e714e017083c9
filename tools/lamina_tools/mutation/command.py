"""`./run mutate ROOM [--count N] [--seed S]`: changes a room's code in one place at a time; do its tests notice?

Each change is tried alone, against the unit, property and contract tests of the room that execute the changed line. The
checkout is not touched: the tests' processes are handed the changed text. The first run for a state of the tree records
which test executes which line. Exits with 0 when enough mutants were killed, 1 when not, 2 when it cannot try.

It is our own because mutmut changes functions alone, in a copy of one source root, and puts a trampoline around each,
which numba would compile; and cosmic-ray writes every mutant into the checkout and runs all tests against it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from lamina_tools.mutation import process, report
from lamina_tools.mutation.mutants import Mutant
from lamina_tools.mutation.recording import NotRecorded, recorded
from lamina_tools.mutation.rooms import ROOMS
from lamina_tools.mutation.sample import sample
from lamina_tools.mutation.trial import Trials, Verdict

ENOUGH = 85
"""Percentage of mutants that a room's tests kill."""


def main(arguments: Sequence[str]) -> int:
    """Runs `./run mutate`."""
    options = _options(arguments)
    before = signal.signal(signal.SIGTERM, _interrupted)
    try:
        return _mutate(options)
    finally:
        process.stop_all()
        signal.signal(signal.SIGTERM, before)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _mutate(options: argparse.Namespace) -> int:
    room = ROOMS[options.room]
    start = time.monotonic()
    mutants = sample(room, options.count, options.seed, options.numbers)
    tell(start, f"{len(mutants)} mutants of {room.name}; first its tests are recorded, unless this state's were before")
    try:
        recording = recorded(room, options.processes)
    except NotRecorded as failure:
        print(f"run: {failure}", file=sys.stderr)
        return 2
    for test in recording.failed:
        tell(start, f"left out, because it failed without a mutation: {test}")
    tell(start, f"{len(recording.seconds)} tests are recorded")
    verdicts = try_all(Trials(recording, options.seconds), mutants, options.processes, start)
    print(report.as_json(room.name, options.seed, verdicts) if options.output == "json" else report.table(verdicts))
    return int(report.percentage(verdicts) < ENOUGH)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run mutate", description="Do a room's tests notice changes of its code?")
    parser.add_argument("room", choices=sorted(ROOMS), help="whose code is changed, and whose tests are run")
    parser.add_argument("--count", type=int, default=20, help="how many changes, each alone; 20")
    parser.add_argument("--seed", type=int, default=1, help="which changes; 1")
    parser.add_argument("--numbers", action="store_true", help="change whole numbers by one, too")
    parser.add_argument("--seconds", type=float, default=120, help="of tests against one change, at most; 120")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="at once; one a core")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return parser.parse_args(list(arguments))


def tell(start: float, text: str) -> None:
    """Tells how far it is, apart from the results."""
    print(f"[{time.monotonic() - start:5.0f} s] {text}", file=sys.stderr, flush=True)


def try_all(trials: Trials, mutants: Sequence[Mutant], processes: int, start: float) -> list[Verdict]:
    """Returns what became of the mutants, in their order.

    Tests that killed some are run once more without a mutation. Those that then fail are distrusted, and their mutants
    tried again.
    """
    found: dict[int, Verdict] = {}
    waiting = list(range(len(mutants)))
    while waiting:
        found |= _in_parallel(trials, {number: mutants[number] for number in waiting}, processes, start)
        unsound = trials.confirm([found[number] for number in waiting])
        trials.distrust(unsound)
        for test in unsound:
            tell(start, f"distrusted, because it fails without a mutation: {test}")
        waiting = [number for number in waiting if found[number].by in unsound]
    return [found[number] for number in range(len(mutants))]


def _in_parallel(trials: Trials, mutants: dict[int, Mutant], processes: int, start: float) -> dict[int, Verdict]:
    began = time.monotonic()

    def timed(mutant: Mutant) -> Verdict:
        before = time.monotonic()
        return replace(trials.try_one(mutant), seconds=time.monotonic() - before)

    found: dict[int, Verdict] = {}
    with ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(timed, mutant): number for number, mutant in mutants.items()}
        try:
            for done in as_completed(running):
                verdict = found[running[done]] = done.result()
                left = (time.monotonic() - began) / len(found) * (len(mutants) - len(found))
                said = f"{verdict.mutant.where} {report.told(verdict)}"
                tell(start, f"{len(found)} of {len(mutants)}, about {left:.0f} s left: {said}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            process.stop_all()
            raise
    return found
