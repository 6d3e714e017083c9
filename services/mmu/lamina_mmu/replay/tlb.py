"""A TLB of two levels in front of a replayed page table, compiled.

Each level is sets of ways, least recently used within a set, found by the low bits of the page number. A walk fills
both. A page that is evicted leaves both, and a sample of accessed bits empties them: every translation in them stands
for a bit that is cleared then. So what happens depends on the policy, and is taken from its log.
Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, Skylake server (64 of 4 ways, 1536 of 12).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import AHEAD, I32, I64, ROWS, U32, U64, Word, compiled, i64, prefetch, void
from lamina_mmu.replay.plan import TlbPlan
from lamina_mmu.replay.policies.passes import FLUSH
from lamina_mmu.replay.ways import drop, stride, touch

HITS, SECOND_HITS, MISSES_OF, FILLED = range(4)
NOTED = 1024
"""Most pages that are remembered since the levels were emptied: with so few, no large level is emptied as a whole."""


@compiled(i64(i64, i64))
def _set(page: Word, sets: Word) -> Word:
    """Returns the set of a page."""
    if sets & (sets - 1) == 0:
        return page & (sets - 1)
    return np.int64(np.uint64(page) % np.uint64(sets))


@compiled(void(I32, i64, U64, i64))
def _empty(tags: Any, sets: Word, noted: Any, count: Word) -> None:
    """Empties a level into which `count` pages came, the first of them noted."""
    if sets == 0:
        return
    size = tags.size // sets
    if count > NOTED or 16 * count * size >= tags.size:
        tags[:] = 0
        return
    for at in range(count):
        begin = size * _set(np.int64(noted[at]), sets)
        tags[begin : begin + size] = 0


@compiled(void(U32, U64, U64, i64, ROWS, i64, I32, i64, i64, I32, i64, i64, U64, I64))
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
    noted: Any,
    counts: Any,
) -> None:
    """Runs accesses (and their pages) through both levels, with what the policy's log says in between."""
    tags, more, numbers = np.int64(first.ctypes.data), np.int64(second.ctypes.data), np.int64(page_of.ctypes.data)
    size, second_size = 4 * (first.size // sets), 4 * (second.size // max(second_sets, 1))
    row = hits = second_hits = 0
    filled = counts[FILLED]
    for at in range(accesses.size):
        while row < rows and log[row, 0] == position + at:
            gone = log[row, 1]
            prefetch(numbers + 8 * log[min(row + AHEAD, rows - 1), 1])
            row += 1
            if gone == FLUSH:
                _empty(first, sets, noted, filled)
                _empty(second, second_sets, noted, filled)
                filled = 0
            else:
                page = np.int64(page_of[gone])
                drop(tags + size * _set(page, sets), ways, gone)
                if second_sets:
                    drop(more + second_size * _set(page, second_sets), second_ways, gone)
        node = np.int64(accesses[at] >> 1)
        page = np.int64(pages[at])
        if touch(tags + size * _set(page, sets), ways, node) == node:
            hits += 1
            continue
        noted[min(filled, NOTED)] = page
        filled += 1
        if second_sets:
            found = touch(more + second_size * _set(page, second_sets), second_ways, node)
            second_hits += found == node
    counts[FILLED] = filled
    counts[HITS] += hits
    counts[SECOND_HITS] += second_hits
    counts[MISSES_OF] += accesses.size - hits - second_hits


class Tlb:
    """The two levels of one policy with one number of frames."""

    def __init__(self, plan: TlbPlan) -> None:
        self._plan = plan
        self._first = np.zeros(plan.entries // plan.ways * stride(plan.ways), np.int32)
        self._second = np.zeros(plan.second_entries // plan.second_ways * stride(plan.second_ways), np.int32)
        self._noted = np.zeros(NOTED + 1, np.uint64)
        self.counts = np.zeros(4, np.int64)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        return int(self._first.nbytes + self._second.nbytes + self._noted.nbytes)

    def run(self, accesses: Any, pages: Any, page_of: Any, position: int, log: Any, rows: int) -> None:
        """Runs accesses, the first of which is number `position`; `log` has `rows` rows about them."""
        plan = self._plan
        run(
            accesses, pages, page_of, position, log, rows,
            self._first, plan.entries // plan.ways, plan.ways,
            self._second, plan.second_entries // plan.second_ways, plan.second_ways,
            self._noted, self.counts,
        )  # fmt: skip
