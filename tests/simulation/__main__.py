"""Repeats seeds of the simulation: `python -m tests.simulation SEED [SEED …] [--event-log FILE]`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from tests.simulation.scenario import Report, simulate
from tests.simulation.seeds import command

from lamina_cli.stack import virtual_run


def main() -> int:
    """Runs the seeds that are named, one after the other; returns 1 if any fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="+", help="a seed, or a range such as 0-199")
    parser.add_argument("--event-log", type=Path, help="write the events of all layers of the last seed here")
    args = parser.parse_args()
    virtual_run.with_fixed_hashes()
    failed = [seed for text in args.seeds for seed in seeds_of(text) if not passes(seed, args.event_log)]
    print(f"failed: {failed}" if failed else "all hold")
    return 1 if failed else 0


def seeds_of(text: str) -> range:
    """Returns the seeds of `7` or `0-199`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def passes(seed: int, path: Path | None) -> bool:
    """Runs one seed and prints what it did, or how it failed."""
    began = time.monotonic()
    try:
        with virtual_run.event_log(path) as sink:
            report: Report = simulate(seed, sink)
    except Exception:
        print(f"seed {seed} fails after {time.monotonic() - began:.1f} s; {command(seed)} repeats it:", file=sys.stderr)
        traceback.print_exc()
        return False
    print(
        f"seed {seed}: {report.rpc_faults} RPC faults, {len(report.physical)} physical, {report.seconds:.0f} s of "
        f"virtual time, {report.callbacks} callbacks, {time.monotonic() - began:.1f} s",
        flush=True,
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
