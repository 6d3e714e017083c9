"""OPT and what it would have done, compiled: both know when each page is used again.

Resident pages are a heap, the page whose next use is the farthest on top; of pages that are never used again the one
whose last use was first. Pages move up only: a page that is used gets a next use that is later than now.
Source: L. Belady, A study of replacement algorithms for a virtual-storage computer, IBM Systems Journal 5(2), 1966.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import I32, I64, ROWS, U8, U32, Word, compiled, i64, void
from lamina_mmu.replay.memory.state import Array
from lamina_mmu.replay.policies.eviction_reasons import FARTHEST_USE
from lamina_mmu.replay.policies.passes import FLUSH

NEVER = 1 << 62
"""Keys from half of this on are those of pages that are never used again."""
USED, MISSES, EVICTIONS, WRITE_BACKS, ROW = range(5)

ACCESS, INCOMING, PAGE, WHY, VALUE, NEXT_USE, BEST, BEST_NEXT, CAME, LAST_USE = range(10)
"""Columns of a judged eviction. Next uses are positions, -1 for never."""


@compiled(void(U32, I64, i64, I64))
def look_ahead(accesses: Any, ahead: Any, position: Word, out: Any) -> None:
    """Writes where each access's page is used next (-1: never). Called for the blocks of a trace from its end.

    `ahead` has one more than the position of each page's next use, 0 without one.
    """
    for at in range(accesses.size - 1, -1, -1):
        node = accesses[at] >> 1
        out[at] = ahead[node] - 1
        ahead[node] = position + at + 1


@compiled(void(I32, I32, I64, i64))
def _up(heap: Any, place: Any, key: Any, at: Word) -> None:
    """Moves the node at `at` up to where it belongs. `place` is one more than where a node lies, 0 for none."""
    node = heap[at]
    while at > 0:
        parent = (at - 1) >> 1
        if key[heap[parent]] >= key[node]:
            break
        heap[at] = heap[parent]
        place[heap[at]] = at + 1
        at = parent
    heap[at] = node
    place[node] = at + 1


@compiled(void(I32, I32, I64, i64, i64))
def _down(heap: Any, place: Any, key: Any, at: Word, size: Word) -> None:
    """Moves the node at `at` down to where it belongs in a heap of `size`."""
    node = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and key[heap[child + 1]] > key[heap[child]]:
            child += 1
        if key[heap[child]] <= key[node]:
            break
        heap[at] = heap[child]
        place[heap[at]] = at + 1
        at = child
    heap[at] = node
    place[node] = at + 1


@compiled(void(I32, I32, I64, i64, i64))
def _remove(heap: Any, place: Any, key: Any, node: Word, size: Word) -> None:
    """Takes a node out of a heap of `size`."""
    at = place[node] - 1
    place[node] = 0
    if at < size - 1:
        heap[at] = heap[size - 1]
        place[heap[at]] = at + 1
        _down(heap, place, key, at, size - 1)
        _up(heap, place, key, place[heap[at]] - 1)


@compiled(void(U32, I64, i64, i64, I32, I32, I64, U8, I64, ROWS))
def run(
    accesses: Any,
    nexts: Any,
    position: Word,
    frames: Word,
    heap: Any,
    place: Any,
    key: Any,
    dirty: Any,
    n: Any,
    log: Any,
) -> None:
    """Runs accesses, with their next uses, through OPT."""
    for at in range(accesses.size):
        node = np.int64(accesses[at] >> 1)
        key[node] = nexts[at] if nexts[at] >= 0 else NEVER - (position + at)
        if place[node]:
            _up(heap, place, key, place[node] - 1)
        else:
            n[MISSES] += 1
            if n[USED] == frames:
                victim = heap[0]
                _remove(heap, place, key, victim, n[USED])
                n[USED] -= 1
                n[EVICTIONS] += 1
                n[WRITE_BACKS] += dirty[victim]
                dirty[victim] = 0
                if n[ROW] < log.shape[0]:
                    log[n[ROW], 0], log[n[ROW], 1] = position + at, victim
                    log[n[ROW], 2], log[n[ROW], 3] = FARTHEST_USE, 0
                    n[ROW] += 1
            heap[n[USED]] = node
            n[USED] += 1
            _up(heap, place, key, n[USED] - 1)
        dirty[node] |= np.uint8(accesses[at] & 1)


@compiled(i64(U32, I64, i64, i64, I32, I32, I64, I64, I64, I64, ROWS, ROWS))
def judge(
    accesses: Any,
    nexts: Any,
    position: Word,
    frames: Word,
    heap: Any,
    place: Any,
    key: Any,
    came: Any,
    last: Any,
    n: Any,
    log: Any,
    out: Any,
) -> Word:
    """Writes beside each eviction of a log what OPT would have taken from the same frames; returns how many are done.

    The resident pages are those that the log leaves: what it says went goes, whatever OPT would have said.
    """
    for at in range(accesses.size):
        if n[ROW] == log.shape[0]:
            break
        node = np.int64(accesses[at] >> 1)
        fresh_key = nexts[at] if nexts[at] >= 0 else NEVER - (position + at)
        if place[node]:
            key[node] = fresh_key
            _up(heap, place, key, place[node] - 1)
        else:
            if n[USED] == frames:
                row = n[ROW]
                victim, best = log[row, 1], np.int64(heap[0])
                out[row, ACCESS], out[row, INCOMING], out[row, PAGE] = position + at, node, victim
                out[row, WHY], out[row, VALUE] = log[row, 2], log[row, 3]
                out[row, NEXT_USE] = key[victim] if key[victim] < NEVER // 2 else -1
                out[row, BEST] = best
                out[row, BEST_NEXT] = key[best] if key[best] < NEVER // 2 else -1
                out[row, CAME], out[row, LAST_USE] = came[victim], last[victim]
                n[ROW] += 1
                _remove(heap, place, key, victim, n[USED])
                n[USED] -= 1
            key[node] = fresh_key
            heap[n[USED]] = node
            n[USED] += 1
            came[node] = position + at
            _up(heap, place, key, n[USED] - 1)
        last[node] = position + at
    return n[ROW]


class Heap:
    """The resident pages of one size by their next use."""

    def __init__(self, frames: int, nodes: int) -> None:
        self.frames = frames
        self.heap = np.zeros(min(frames, nodes) + 1, np.int32)
        self.place = np.zeros(nodes, np.int32)
        self.key = np.zeros(nodes, np.int64)
        self.n = np.zeros(8, np.int64)


class Opt(Heap):
    """OPT with one number of frames, for a trace whose next uses are known."""

    def __init__(self, frames: int, nodes: int) -> None:
        super().__init__(frames, nodes)
        self._dirty = np.zeros(nodes, np.uint8)

    def run(self, accesses: Array, nexts: Array, position: int, log: Array) -> int:
        """Runs accesses with their next uses; writes evictions to `log`, as rows of `passes`, and returns how many."""
        self.n[ROW] = 0
        run(accesses, nexts, position, self.frames, self.heap, self.place, self.key, self._dirty, self.n, log)
        return int(self.n[ROW])

    def totals(self) -> tuple[int, int, int]:
        """Returns misses, evictions and write-backs."""
        return int(self.n[MISSES]), int(self.n[EVICTIONS]), int(self.n[WRITE_BACKS])


class Judge(Heap):
    """Sets the evictions of a log (`passes`) beside what OPT would have chosen."""

    def __init__(self, frames: int, nodes: int, log: Array) -> None:
        super().__init__(frames, nodes)
        self._log = np.ascontiguousarray(log[log[:, 1] != FLUSH])
        self._came, self._last = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
        self.judged = np.zeros((len(self._log), 10), np.int64)

    @property
    def is_done(self) -> bool:
        """Whether every eviction was judged."""
        return int(self.n[ROW]) == len(self._log)

    def run(self, accesses: Array, nexts: Array, position: int) -> None:
        """Goes on through the trace."""
        judge(
            accesses, nexts, position, self.frames, self.heap, self.place, self.key, self._came, self._last, self.n,
            self._log, self.judged,
        )  # fmt: skip


def memory(frames: int, nodes: int) -> int:
    """Returns about how many bytes OPT, or a judge, needs with so many frames and nodes."""
    return 4 * min(frames, nodes) + 28 * nodes
