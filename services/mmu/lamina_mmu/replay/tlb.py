"""A TLB of two levels in front of a replayed page table, compiled.

Each level is sets of ways, least recently used within a set, found by the low bits of the page number. A walk fills
both. A page that is evicted leaves both, and a sample of accessed bits empties them: every translation in them stands
for a bit that is cleared then. So what happens depends on the policy, and is taken from its log.
Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, Skylake server (64 of 4 ways, 1536 of 12).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.native import I32, I64, ROWS, U32, U64, Word, compiled, i64, set_word, void, word
from lamina_mmu.replay.passes import FLUSH
from lamina_mmu.replay.plan import TlbPlan

HITS, SECOND_HITS, MISSES_OF = range(3)


FILTER = 1 << 12
"""Counters of what is in both levels, by the low bits of the node: most pages that are evicted are in neither."""


@compiled(i64(i64, i64))
def _set(page: Word, sets: Word) -> Word:
    """Returns the set of a page."""
    if sets & (sets - 1) == 0:
        return page & (sets - 1)
    return np.int64(np.uint64(page) % np.uint64(sets))


@compiled(i64(i64, i64, i64))
def _touch(tags: Word, ways: Word, node: Word) -> Word:
    """Puts a node at the front of the set at an address; returns what was displaced: the node itself when it was in."""
    carried = node
    for way in range(ways):
        there = word(tags, way)
        set_word(tags, way, carried)
        carried = there
        if there == node:
            break
    return carried


@compiled(i64(i64, i64, i64))
def _drop(tags: Word, ways: Word, node: Word) -> Word:
    """Takes a node out of the set at an address; those behind it move up. Returns whether it was in it."""
    for way in range(ways):
        if word(tags, way) == node:
            for behind in range(way, ways - 1):
                set_word(tags, behind, word(tags, behind + 1))
            set_word(tags, ways - 1, 0)
            return 1
    return 0


@compiled(void(i64, i64, i64))
def _count(filters: Word, node: Word, change: Word) -> None:
    """Counts a node in or out; node 0 is an empty place."""
    if node:
        at = node & (FILTER - 1)
        set_word(filters, at, word(filters, at) + change)


@compiled(void(U32, U64, U64, i64, ROWS, i64, I32, i64, i64, I32, i64, i64, I32, I64))
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
    filters: Any,
    counts: Any,
) -> None:
    """Runs accesses (and their pages) through both levels, with what the policy's log says in between."""
    tags, more, present = np.int64(first.ctypes.data), np.int64(second.ctypes.data), np.int64(filters.ctypes.data)
    row = hits = second_hits = misses = 0
    for at in range(accesses.size):
        while row < rows and log[row, 0] == position + at:
            gone = log[row, 1]
            row += 1
            if gone == FLUSH:
                first[:] = 0
                second[:] = 0
                filters[:] = 0
            elif word(present, gone & (FILTER - 1)):
                page = np.int64(page_of[gone])
                found = _drop(tags + 4 * _set(page, sets) * ways, ways, gone)
                if second_sets:
                    found += _drop(more + 4 * _set(page, second_sets) * second_ways, second_ways, gone)
                _count(present, gone, -found)
        node = np.int64(accesses[at] >> 1)
        page = np.int64(pages[at])
        out = _touch(tags + 4 * _set(page, sets) * ways, ways, node)
        if out == node:
            hits += 1
            continue
        _count(present, node, 1)
        _count(present, out, -1)
        out = 0
        if second_sets:
            out = _touch(more + 4 * _set(page, second_sets) * second_ways, second_ways, node)
            if out != node:
                _count(present, node, 1)
                _count(present, out, -1)
        if out == node:
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
        self._filters = np.zeros(FILTER, np.int32)
        self.counts = np.zeros(3, np.int64)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        return int(self._first.nbytes + self._second.nbytes + self._filters.nbytes)

    def run(self, accesses: Any, pages: Any, page_of: Any, position: int, log: Any, rows: int) -> None:
        """Runs accesses, the first of which is number `position`; `log` has `rows` rows about them."""
        plan = self._plan
        run(
            accesses, pages, page_of, position, log, rows,
            self._first, plan.entries // plan.ways, plan.ways,
            self._second, plan.second_entries // plan.second_ways, plan.second_ways,
            self._filters, self.counts,
        )  # fmt: skip
