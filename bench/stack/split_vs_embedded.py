"""The demo on six processes against the demo in one: seconds a step, the ratio, and what each service holds in memory.

    python bench/stack/split_vs_embedded.py [--runs 3]

Both are the same program, `lamina demo --target …`; a step is a chapter, from its title to the next one's, and *start*
is from the command to the first title. Runs are interleaved after one of each that is not counted; medians are printed,
and only the ratios mean much on a shared machine. Memory is that of the last chapter, when everything has been used:
RSS counts a shared page in each process, PSS divides it among those who share it. *bus* is the part of PSS that is
shared memory: the host's RAM and the run pages. There is no aim for the steps: split is chosen for isolation, and the
ratio says what that costs. The aim for memory is a stack of six processes in under 600 MB of PSS.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TARGETS = ("embedded", "split")
AIM_PSS_MB = 600.0
KIB = 1024
_TITLE = re.compile(r"^[0-9]+\. .+$")
_TRACE = re.compile(r"Trace [0-9a-f]{32}")
"""In the title of the last chapter."""
_VERDICT = re.compile(r"^[0-9]+ of [0-9]+ checks hold")


@dataclass
class Run:
    """One demo: seconds and title of each step, and (RSS, PSS, shared memory) in bytes of each process."""

    seconds: list[float] = field(default_factory=list)
    titles: list[str] = field(default_factory=lambda: ["start"])
    memory: dict[str, tuple[int, int, int]] = field(default_factory=dict)


def demo(target: str) -> Run:
    """Runs the demo on a target. Ends the program when a check does not hold."""
    run = Run()
    began = time.perf_counter()
    command = [sys.executable, "-u", "-m", "lamina_cli.main", "demo", "--target", target, "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now = time.perf_counter()
            title = "end" if _VERDICT.match(line) else line.strip() if _TITLE.match(line) else ""
            if title:
                run.seconds.append(now - began)
                run.titles.append(_TRACE.sub("Trace", title))
                began = now
            if _TRACE.search(title):
                run.memory = memory(process.pid)
    run.seconds.append(time.perf_counter() - began)
    if process.returncode or not run.memory:
        raise SystemExit(f"the demo on {target} ended with status {process.returncode}")
    return run


def memory(pid: int) -> dict[str, tuple[int, int, int]]:
    """Returns (RSS, PSS, shared memory in PSS) of the demo's own process and of those it started, by layer."""
    found = {"demo itself": usage(pid)}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"-m" in words:
            package = words[words.index(b"-m") + 1].decode()
            found[package.removeprefix("lamina_").replace("_", "-")] = usage(int(child))
    return found


def usage(pid: int) -> tuple[int, int, int]:
    """Returns (RSS, PSS, shared memory in PSS) of a process. Source: proc(5), smaps_rollup."""
    rows = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        rows[name.rstrip(":")] = int(value) * KIB
    return rows["Rss"], rows["Pss"], rows["Pss_Shmem"]


def show_steps(runs: dict[str, list[Run]]) -> None:
    """Prints the median seconds of each step on both targets, and split divided by embedded."""
    print(f"{'step':72} {'embedded':>9} {'split':>9} {'ratio':>6}")
    rows: list[tuple[str, float, float]] = []
    for number, title in enumerate(runs["embedded"][0].titles):
        embedded, split = (statistics.median(run.seconds[number] for run in runs[target]) for target in TARGETS)
        rows.append((title, embedded, split))
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for title, embedded, split in rows:
        print(f"{title[:72]:72} {embedded:7.2f} s {split:7.2f} s {split / embedded:5.1f}×")


def show_memory(runs: dict[str, list[Run]]) -> None:
    """Prints the median memory of each process."""
    print(f"\n{'process':72} {'RSS':>9} {'PSS':>9} {'bus':>9}")
    for target in TARGETS:
        total = 0.0
        for name in runs[target][0].memory:
            medians = [statistics.median(run.memory[name][column] for run in runs[target]) / 1e6 for column in range(3)]
            total += medians[1]
            print(f"{target + ': ' + name:72} " + " ".join(f"{value:6.1f} MB" for value in medians))
        verdict = (
            "" if target == "embedded" else f"   aim < {AIM_PSS_MB:g}: {'met' if total < AIM_PSS_MB else 'missed'}"
        )
        print(f"{target + ': all':72} {'':9} {total:6.1f} MB{verdict}")


def main() -> None:
    """Measures, interleaved, and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    count = parser.parse_args().runs
    runs: dict[str, list[Run]] = {target: [] for target in TARGETS}
    for number in range(count + 1):
        for target in TARGETS:
            run = demo(target)
            if number:
                runs[target].append(run)
    show_steps(runs)
    show_memory(runs)


if __name__ == "__main__":
    main()
