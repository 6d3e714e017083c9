"""Free frames as aligned blocks of 2^order frames, order 0 (4 KiB) to 18 (1 GiB): a binary buddy system. Pure.

    order 3   8 ├───────────────┤          A block of order n begins at a multiple of 2^n. Its buddy is the block that
    order 2   8 ├───────┤12 ├───────┤      makes a block of order n + 1 with it: `first ^ 2^n`. A block that comes free
    order 0   8 9 10 11 …                  joins its buddy when that is free, and again, as far as it goes.

A block is taken from the lowest order that has one large enough, so that large blocks stay whole; what is cut off goes
back. Among blocks of one order the last that came is taken first: the order follows from the calls alone.
Source: D. E. Knuth, The Art of Computer Programming vol. 1, 2.5 (buddy system); Linux mm/page_alloc.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_ORDER = 18
"""Order of the largest block: 1 GiB."""
HUGE_ORDER = 9
"""Order of a huge page: 512 frames, 2 MiB."""


class Buddy:
    """Free blocks. Frame 0 is never among them, so 0 stands for "none"."""

    def __init__(self) -> None:
        self._blocks: list[dict[int, None]] = [{} for _ in range(MAX_ORDER + 1)]
        self.frames = 0

    def put(self, first: int, order: int) -> None:
        """Adds a free block, joined with its buddies."""
        self.frames += 1 << order
        blocks = self._blocks
        while order < MAX_ORDER and (other := first ^ 1 << order) in blocks[order]:
            del blocks[order][other]
            first &= ~(1 << order)
            order += 1
        blocks[order][first] = None

    def put_range(self, first: int, end: int) -> None:
        """Adds frames `first` to `end` - 1, in the largest blocks that are aligned; the lowest is taken first."""
        cut: list[tuple[int, int]] = []
        while first < end:
            order = min((first & -first).bit_length() - 1, (end - first).bit_length() - 1, MAX_ORDER)
            cut.append((first, order))
            first += 1 << order
        for block, order in reversed(cut):
            self.put(block, order)

    def put_many(self, frames: Sequence[int]) -> None:
        """Adds single frames, in any order."""
        if not frames:
            return
        ordered = np.sort(np.array(frames, np.int64))
        breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
        starts = ordered[np.concatenate(([0], breaks))].tolist()
        ends = ordered[np.concatenate((breaks - 1, [len(ordered) - 1]))].tolist()
        for first, last in zip(starts, ends, strict=True):
            self.put_range(first, last + 1)

    def take(self, order: int, highest: int = MAX_ORDER) -> int:
        """Takes a block of `order` out of one of order `highest` at most; returns its first frame, 0 without one."""
        for found in range(order, highest + 1):
            if self._blocks[found]:
                first, _ = self._blocks[found].popitem()
                self._cut(first, found, first, order)
                return first
        return 0

    def smallest(self) -> int:
        """Returns the lowest order that has a block; -1 when nothing is free."""
        return next((order for order, blocks in enumerate(self._blocks) if blocks), -1)

    def holding(self, frame: int) -> tuple[int, int]:
        """Returns (first frame, order) of the free block with `frame` in it; (0, -1) when it is in none."""
        for order, blocks in enumerate(self._blocks):
            first = frame & ~((1 << order) - 1)
            if first in blocks:
                return first, order
        return 0, -1

    def carve(self, frame: int, order: int) -> tuple[int, int]:
        """Takes the free frames around `frame` that lie in its aligned block of `order`.

        Returns (first frame, order) of what was taken, which is smaller when less is free around it; (0, -1) when
        `frame` is not free.
        """
        first, found = self.holding(frame)
        if found < 0:
            return 0, -1
        del self._blocks[found][first]
        target = min(order, found)
        wanted = frame & ~((1 << target) - 1)
        self._cut(first, found, wanted, target)
        return wanted, target

    def of_order(self, order: int) -> int:
        """Returns how many disjoint blocks of `order` could be taken."""
        return sum(len(self._blocks[above]) << above - order for above in range(order, MAX_ORDER + 1))

    def below(self, order: int) -> int:
        """Returns how many frames lie in blocks smaller than `order`."""
        return sum(len(self._blocks[under]) << under for under in range(order))

    def _cut(self, first: int, order: int, wanted: int, target: int) -> None:
        """Gives back what is left of the block `first` (no longer listed) but the block `wanted` of order `target`."""
        self.frames -= 1 << target
        while order > target:
            order -= 1
            half = first + (1 << order)
            if wanted >= half:
                self._blocks[order][first] = None
                first = half
            else:
                self._blocks[order][half] = None
