"""LRU stack distances, compiled: one pass gives the misses of LRU for every number of frames at once, exactly.

A page's distance is the number of different pages since its last use, itself included: LRU with at least so many frames
hits. Each page's last use is a mark in a row of time slots, and a distance is the number of marks behind it: counted by
population counts within 512 slots, and by a Fenwick tree over those groups. A full row is packed.
Source: Mattson et al., Evaluation techniques for storage hierarchies, IBM Systems Journal 9(2), 1970; F. Olken, 1981.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import I32, I64, U32, U64, Word, compiled, i64, ones, void
from lamina_mmu.replay.memory.state import FIRST, longer

GROUP_SHIFT = 9
LEAST_SLOTS = 1 << 16
TIME, MARKS, COLD = range(3)


@compiled(void(I32, i64, i64))
def _add(tree: Any, group: Word, change: Word) -> None:
    """Adds to a group's count."""
    at = group + 1
    while at < tree.size:
        tree[at] += change
        at += at & -at


@compiled(i64(U64, I32, i64))
def _before(marks: Any, tree: Any, slot: Word) -> Word:
    """Returns how many marks there are up to `slot`, itself included."""
    at = slot >> GROUP_SHIFT
    first = at << (GROUP_SHIFT - 6)
    total = 0
    while at > 0:
        total += tree[at]
        at -= at & -at
    last = slot >> 6
    for index in range(first, last):
        total += ones(marks[index])
    return total + ones(marks[last] << np.uint64(63 - (slot & 63)))


@compiled(void(U64, I32, I32, I32, I64))
def _pack(marks: Any, tree: Any, node_at: Any, slot_of: Any, n: Any) -> None:
    """Moves the marks together, in their order."""
    kept = 0
    for slot in range(n[TIME]):
        if (marks[slot >> 6] >> np.uint64(slot & 63)) & np.uint64(1):
            node = node_at[slot]
            node_at[kept] = node
            slot_of[node] = kept + 1
            kept += 1
    marks[:] = np.uint64(0)
    tree[:] = 0
    for slot in range(kept):
        marks[slot >> 6] |= np.uint64(1) << np.uint64(slot & 63)
        _add(tree, slot >> GROUP_SHIFT, 1)
    n[TIME] = kept


@compiled(void(U32, i64, U64, I32, I32, I32, I64, I64))
def measure(
    accesses: Any, counted: Word, marks: Any, tree: Any, node_at: Any, slot_of: Any, n: Any, histogram: Any
) -> None:
    """Counts the distances of accesses from number `counted` on; those before only move marks."""
    for at in range(accesses.size):
        node = np.int64(accesses[at] >> 1)
        if n[TIME] == node_at.size:
            _pack(marks, tree, node_at, slot_of, n)
        slot = np.int64(slot_of[node]) - 1
        if slot >= 0:
            if at >= counted:
                histogram[n[MARKS] - _before(marks, tree, slot) + 1] += 1
            marks[slot >> 6] &= ~(np.uint64(1) << np.uint64(slot & 63))
            _add(tree, slot >> GROUP_SHIFT, -1)
        else:
            n[MARKS] += 1
            n[COLD] += at >= counted
        now = n[TIME]
        marks[now >> 6] |= np.uint64(1) << np.uint64(now & 63)
        _add(tree, now >> GROUP_SHIFT, 1)
        node_at[now] = node
        slot_of[node] = now + 1
        n[TIME] += 1


class Distances:
    """The distances of a trace so far."""

    def __init__(self) -> None:
        self._n = np.zeros(3, np.int64)
        self._slot_of = np.zeros(FIRST, np.int32)
        self._histogram = np.zeros(2, np.int64)
        self._lay_out(LEAST_SLOTS)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        arrays = (self._slot_of, self._histogram, self._node_at, self._marks, self._tree)
        return sum(array.nbytes for array in arrays)

    def _lay_out(self, slots: int) -> None:
        self._node_at = np.zeros(slots, np.int32)
        self._marks = np.zeros(slots >> 6, np.uint64)
        self._tree = np.zeros((slots >> GROUP_SHIFT) + 1, np.int32)

    def run(self, accesses: Any, nodes: int, counted: int) -> None:
        """Takes accesses, whose nodes are below `nodes`; those from number `counted` on are counted."""
        pages = nodes - FIRST
        if nodes > self._slot_of.size:
            self._slot_of = longer(self._slot_of, max(nodes, 2 * self._slot_of.size))
        if pages + 2 > self._histogram.size:
            self._histogram = longer(self._histogram, max(pages + 2, 2 * self._histogram.size))
        if 2 * pages > self._node_at.size:
            self._widen(1 << (2 * pages).bit_length())
        measure(accesses, counted, self._marks, self._tree, self._node_at, self._slot_of, self._n, self._histogram)

    def _widen(self, slots: int) -> None:
        """Lays the marks out in a longer row."""
        _pack(self._marks, self._tree, self._node_at, self._slot_of, self._n)
        kept, nodes = int(self._n[TIME]), self._node_at
        self._lay_out(slots)
        self._node_at[:kept] = nodes[:kept]
        for word in range((kept + 63) >> 6):
            left = min(64, kept - (word << 6))
            self._marks[word] = (1 << left) - 1
            _add(self._tree, word >> (GROUP_SHIFT - 6), left)

    @property
    def largest(self) -> int:
        """Returns the number of pages: with as many frames only first touches miss."""
        return int(self._n[MARKS])

    def misses(self) -> Any:
        """Returns the misses for 0, 1, … `largest` frames; first touches that count are among them."""
        counts = self._histogram[: self.largest + 1]
        return int(self._n[COLD]) + counts.sum() - np.cumsum(counts)
