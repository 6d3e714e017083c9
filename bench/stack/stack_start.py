"""Start of the embedded stack: time until it answers, memory it holds, and how long the whole demo takes.

    python bench/stack/stack_start.py [--runs 5]

The peer in the same run is what every Python gRPC program pays before its first line: an interpreter that imports gRPC
and protobuf. Aims: ready in under 2 s, under 250 MB, the demo in under 20 s, all after the first run: bytecode is kept,
in a folder of the run's own, even where the environment says PYTHONDONTWRITEBYTECODE (without it each start compiles a
thousand modules, 0.8 s).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

AIM_READY_S = 2.0
AIM_MEMORY_MB = 250.0
AIM_DEMO_S = 20.0

BARE = "import grpc.aio, google.protobuf.message"

STACK = """
import asyncio, resource
from lamina_cli.stack.embedded import private_stack

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

async def main():
    async with private_stack():
        print(resident_mb(), flush=True)

asyncio.run(main())
"""


def timed(code: str) -> tuple[float, str]:
    """Returns the seconds from the start of an interpreter to its first line of output, or to its end, and the line."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.communicate()
    if process.returncode:
        raise SystemExit(f"the measured program ended with status {process.returncode}")
    return seconds, line


def demo() -> float:
    """Returns the seconds that the whole demo takes."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lamina_cli.main", "demo"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def main() -> None:
    """Reads the options and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        measure(runs)


def measure(runs: int) -> None:
    """Measures, interleaved, and prints medians and ratios."""
    timed(BARE)
    timed(STACK)
    demo()
    bare, ready, memory, demos = [], [], [], []
    for _ in range(runs):
        bare.append(timed(BARE)[0])
        seconds, line = timed(STACK)
        ready.append(seconds)
        memory.append(float(line))
        demos.append(demo())
    rows = (
        ("interpreter with gRPC", statistics.median(bare), "s", None),
        ("embedded stack ready", statistics.median(ready), "s", AIM_READY_S),
        ("resident memory", statistics.median(memory), "MB", AIM_MEMORY_MB),
        ("whole demo", statistics.median(demos), "s", AIM_DEMO_S),
    )
    for name, value, unit, aim in rows:
        verdict = "" if aim is None else f"   aim < {aim:g} {unit}: {'met' if value < aim else 'missed'}"
        print(f"{name:24} {value:8.2f} {unit}{verdict}")
    print(f"ready against the bare interpreter: {statistics.median(ready) / statistics.median(bare):.1f}×")


if __name__ == "__main__":
    main()
