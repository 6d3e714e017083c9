"""Least recently used, from sampled A bits. Pure.

One doubly linked list of frames a group, in two columns. A page enters at the tail; a page seen accessed moves to the
tail with the present tick as its stamp; the head is the page whose last known access is the oldest:

    head ─▶ A(3) ─▶ B(4) ─▶ C(9) ─▶ D(10) ◀─ tail          A goes first; stamps rise along every list

Several groups (the children of the one at its limit) are merged by stamp. Between two samples accesses have no order,
so pages seen accessed by the same sample keep the order that they had: with every page touched once, the first to come
is the first to go, as in the textbook's example.
Source: A. S. Tanenbaum, Modern Operating Systems, 3.4 (LRU and its approximation by ageing).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from lamina_mmu.domain.frames import column


class LruPolicy:
    """Orders the frames of each group by their last sampled access."""

    name = "lru"

    def __init__(self, frames: int) -> None:
        _, self._next = column(frames, np.int32)
        _, self._previous = column(frames, np.int32)
        _, self._stamp = column(frames, np.int64)
        _, self._group = column(frames, np.int32)
        self._heads: dict[int, int] = {}
        self._tails: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._tick = 0

    def add(self, frame: int, group: int) -> None:
        """Puts `frame` at the tail of its group's list."""
        self._group[frame] = group
        self._counts[group] = self._counts.get(group, 0) + 1
        self._append(frame, group)

    def remove(self, frame: int) -> None:
        """Takes `frame` out of its list; a frame in no list is passed over."""
        if not self._stamp[frame]:
            return
        group = self._group[frame]
        self._counts[group] -= 1
        self._unlink(frame, group)
        self._stamp[frame] = 0

    def accessed(self, frame: int) -> None:
        """Moves `frame` to the tail of its group's list; a frame in no list stays out."""
        if not self._stamp[frame]:
            return
        group = self._group[frame]
        self._unlink(frame, group)
        self._append(frame, group)

    def candidates(self, groups: Sequence[int]) -> Iterator[int]:
        """Yields the frames of these groups by their last sampled access, oldest first."""
        if len(groups) == 1:
            return self._walk(groups[0])
        stamp = self._stamp
        return heapq.merge(*(self._walk(group) for group in groups), key=stamp.__getitem__)

    def age(self, frame: int) -> int:
        """Returns how many sampled accesses came after that of `frame`."""
        return self._tick - self._stamp[frame]

    def population(self, groups: Sequence[int]) -> int:
        """Returns how many frames these groups have."""
        return sum(self._counts.get(group, 0) for group in groups)

    def _append(self, frame: int, group: int) -> None:
        self._tick += 1
        self._stamp[frame] = self._tick
        last = self._tails.get(group, 0)
        self._previous[frame] = last
        self._next[frame] = 0
        self._tails[group] = frame
        if last:
            self._next[last] = frame
        else:
            self._heads[group] = frame

    def _unlink(self, frame: int, group: int) -> None:
        before, following = self._previous[frame], self._next[frame]
        if before:
            self._next[before] = following
        else:
            self._heads[group] = following
        if following:
            self._previous[following] = before
        else:
            self._tails[group] = before

    def _walk(self, group: int) -> Iterator[int]:
        frame = self._heads.get(group, 0)
        while frame:
            yield frame
            frame = self._next[frame]
