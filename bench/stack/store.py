"""Writes to the orchestrator's store against bare SQLite with the same pragmas, interleaved in one run.

Both write the same rows, one transaction each, into a table of the same shape. What the store adds is the check of the
expected revision, the map of what is live, and its errors. Aim: at least 0.7 of bare SQLite.

    python bench/stack/store.py [--puts 20000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from lamina_orchestrator.engines.interface import Write
from lamina_orchestrator.io.store.sqlite import INSERT, PRAGMAS, SCHEMA, SqliteStore

KEYS = 1000
VALUE = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"hello"},"spec":' + '{"x":"y"}' * 90 + "}"


def bare(path: Path, puts: int) -> float:
    """Puts a second of SQLite alone."""
    base = sqlite3.connect(path, isolation_level=None)
    for statement in (*PRAGMAS, *SCHEMA):
        base.execute(statement)
    start = time.perf_counter()
    for number in range(1, puts + 1):
        base.execute(INSERT, (number, f"pods/default/p{number % KEYS}", max(0, number - KEYS), 1, 0, VALUE))
    taken = time.perf_counter() - start
    base.close()
    return puts / taken


def ours(path: Path, puts: int) -> float:
    """Puts a second of the store."""
    store = SqliteStore(path)
    start = time.perf_counter()
    for number in range(1, puts + 1):
        store.commit([Write(f"pods/default/p{number % KEYS}", VALUE, max(0, number - KEYS))])
    taken = time.perf_counter() - start
    store.close()
    return puts / taken


def batched(path: Path, puts: int, size: int = 100) -> float:
    """Puts a second of the store in transactions of `size` writes."""
    store = SqliteStore(path)
    start = time.perf_counter()
    for first in range(1, puts + 1, size):
        numbers = range(first, first + size)
        store.commit([Write(f"pods/default/p{number % KEYS}", VALUE, max(0, number - KEYS)) for number in numbers])
    taken = time.perf_counter() - start
    store.close()
    return puts / taken


def main() -> None:
    """Runs the rounds and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {"bare": [], "ours": [], "batched": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, run in (("bare", bare), ("ours", ours), ("batched", batched)):
                results[name].append(run(Path(folder) / f"{name}{number}", arguments.puts))
    ratios = [mine / alone for mine, alone in zip(results["ours"], results["bare"], strict=True)]
    for name, speeds in results.items():
        print(f"{name:8} {statistics.median(speeds):10,.0f} puts/s")
    print(f"ratio    {statistics.median(ratios):10.2f}  (aim ≥ 0.70)")


if __name__ == "__main__":
    main()
