"""A TLB of two levels in front of a replayed page table, compiled.

Each level is sets of ways, least recently used within a set, found by the low bits of the page number. A walk fills
both. A page that is evicted leaves both, and a sample of accessed bits empties them: every translation in them stands
for a bit that is cleared then. So what happens depends on the policy, and is taken from its log.
Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, Skylake server (64 of 4 ways, 1536 of 12).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.native import I32, I64, ROWS, U32, U64, Word, compiled, i64, void
from lamina_mmu.replay.passes import FLUSH
from lamina_mmu.replay.plan import TlbPlan

HITS, SECOND_HITS, MISSES_OF = range(3)


@compiled(i64(i64, i64))
def _set(page: Word, sets: Word) -> Word:
    """Returns the set of a page."""
    if sets & (sets - 1) == 0:
        return page & (sets - 1)
    return np.int64(np.uint64(page) % np.uint64(sets))


@compiled(i64(I32, i64, i64, i64))
def _touch(tags: Any, base: Word, ways: Word, node: Word) -> Word:
    """Puts a node at the front of its set; returns whether it was in it."""
    last = base
    end = base + ways - 1
    while last < end and tags[last] != node:
        last += 1
    found = tags[last] == node
    while last > base:
        tags[last] = tags[last - 1]
        last -= 1
    tags[base] = node
    return found


@compiled(void(I32, i64, i64, i64))
def _drop(tags: Any, base: Word, ways: Word, node: Word) -> None:
    """Takes a node out of its set; those behind it move up."""
    for at in range(base, base + ways):
        if tags[at] == node:
            for behind in range(at, base + ways - 1):
                tags[behind] = tags[behind + 1]
            tags[base + ways - 1] = 0
            return


@compiled(void(U32, U64, U64, i64, ROWS, i64, I32, i64, i64, I32, i64, i64, I64))
def run(
    accesses: Any,
    pages: Any,
    page_of: Any,
    position: Word,
    log: Any,
    rows: Word,
    first: Any,
    sets: Word,
    ways: Word,
    second: Any,
    second_sets: Word,
    second_ways: Word,
    counts: Any,
) -> None:
    """Runs accesses (and their pages) through both levels, with what the policy's log says in between."""
    row = 0
    hits = second_hits = misses = 0
    for at in range(accesses.size):
        while row < rows and log[row, 0] == position + at:
            gone = log[row, 1]
            row += 1
            if gone == FLUSH:
                first[:] = 0
                second[:] = 0
                continue
            page = np.int64(page_of[gone])
            _drop(first, _set(page, sets) * ways, ways, gone)
            if second_sets:
                _drop(second, _set(page, second_sets) * second_ways, second_ways, gone)
        node = np.int64(accesses[at] >> 1)
        page = np.int64(pages[at])
        if _touch(first, _set(page, sets) * ways, ways, node):
            hits += 1
        elif second_sets and _touch(second, _set(page, second_sets) * second_ways, second_ways, node):
            second_hits += 1
        else:
            misses += 1
    counts[HITS] += hits
    counts[SECOND_HITS] += second_hits
    counts[MISSES_OF] += misses


class Tlb:
    """The two levels of one policy with one number of frames."""

    def __init__(self, plan: TlbPlan) -> None:
        self._plan = plan
        self._first = np.zeros(plan.entries, np.int32)
        self._second = np.zeros(plan.second_entries or 1, np.int32)
        self.counts = np.zeros(3, np.int64)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        return int(self._first.nbytes + self._second.nbytes)

    def run(self, accesses: Any, pages: Any, page_of: Any, position: int, log: Any, rows: int) -> None:
        """Runs accesses, the first of which is number `position`; `log` has `rows` rows about them."""
        plan = self._plan
        run(
            accesses, pages, page_of, position, log, rows,
            self._first, plan.entries // plan.ways, plan.ways,
            self._second, plan.second_entries // plan.second_ways, plan.second_ways,
            self.counts,
        )  # fmt: skip
