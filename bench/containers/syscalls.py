"""System calls, page faults, forks and starts of containers: in Lamina and natively, interleaved in one run.

    python bench/containers/syscalls.py [--rounds 5]

The same static program runs on this machine's kernel and in a container of the modelled stack. The ratio says what one
system call through the modelled core, the container kernel and back costs beside a real one; start is create, start and
exit of a program that does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from _containers import Containers, compiled  # type: ignore[import-not-found]  # it lies beside this script

from lamina_cli.stack.embedded import private_stack

WORK = {"system calls": ("s", 20_000), "page faults": ("f", 4_000), "fork + wait": ("p", 100), "start + exit": ("n", 1)}


def native(program: Path, words: list[str]) -> float:
    """Returns the seconds that a process takes from start to exit."""
    start = time.perf_counter()
    subprocess.run([program, *words], check=True)
    return time.perf_counter() - start


async def main(rounds: int) -> None:
    """Measures and prints one line for each kind of work."""
    with tempfile.TemporaryDirectory() as folder:
        elf = compiled(Path(folder))
        program = Path(folder) / "program"
        program.write_bytes(elf)
        program.chmod(0o755)
        async with private_stack() as stack:
            containers = Containers(stack.channels["container-runtime"])
            await containers.begin(elf)
            await measure(containers, program, rounds)


async def measure(containers: Containers, program: Path, rounds: int) -> None:
    """Runs each kind of work `rounds` times in both worlds, in turn, and prints medians."""
    for what, (kind, count) in WORK.items():
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(await containers.run(kind, count))
            theirs.append(native(program, [kind, str(count)]))
        own, real = statistics.median(ours), statistics.median(theirs)
        print(f"{what:13} {count:6}  {own / count * 1e6:9.1f} µs each  {count / own:9.0f}/s  {own / real:7.1f}× native")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args().rounds))
