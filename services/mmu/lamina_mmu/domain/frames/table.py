"""Page frames: which are free, what each is used for, who pays for it. Pure.

    frame 0 ──▶ RESERVED, never given out (an entry of 0 must mean "nothing")
    free ─┬─ hot: single frames for pages; those given back last are taken first (they are in the core's caches)
          ├─ fixed: single frames for what never moves (tables, allocations), from huge blocks of their own, so that
          │         other blocks can be emptied by moving pages (Linux groups by mobility in the same way)
          ├─ zeroed: single frames that hold zeros already
          └─ buddy: all others, as blocks of 2^n frames (`buddy.py`); huge pages and extents come from here

A single frame is taken and given back on a list alone, one append or pop; the lists are filled from the buddy system,
and spilled into it, in batches, as Linux does with its per-core lists. In need each takes from the others.

The arrays have one element a frame. numpy takes them from zeroed pages of the operating system that cost nothing until
they are touched: a table for 8 GiB is ready in a millisecond. Scalars are read and written through memoryviews of
the same arrays (plain integers, three times faster than numpy's).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, cast

import numpy as np

from lamina_kit.errors import OutOfRange
from lamina_mmu.domain.frames.buddy import HUGE_ORDER, MAX_ORDER, Buddy


class Use(IntEnum):
    """What a frame is used for; the numbers are those of the contract's `Frame.Use`, less one."""

    FREE = 0
    ANONYMOUS = 1
    OBJECT = 2
    TABLE = 3
    ALLOCATED = 4
    RESERVED = 5
    OFFLINE = 6


_FREE, _TABLE, _RESERVED = int(Use.FREE), int(Use.TABLE), int(Use.RESERVED)
"""Plain numbers for the path of each fault: a look-up in an enum costs as much as the rest of `take`."""
DIRTY = 1
"""Flag: the content differs from the swap slot (or from zeros, without one), whatever the entries' D bits say."""
BUSY = 2
"""Flag: the frame is in transit; entries that named it say TRANSIT."""
HUGE_FRAMES = 1 << HUGE_ORDER
"""Frames of a huge page (2 MiB)."""
HOT_MOST, BATCH_ORDER = 4096, 6
"""Most frames on a list; order of the blocks that the hot list is filled with."""


def column(count: int, kind: Any) -> tuple[Any, memoryview]:
    """Returns a lazily backed array of `count` zeros and a memoryview of it for scalar access."""
    array = np.zeros(count, kind)
    return array, memoryview(cast(Any, array))


class FrameTable:
    """The state of every frame.

    Columns: `use` · `flags` · `refs` (entries, an object's hold, and operations in progress that keep the frame) ·
    `group` (who pays) · `slot` (swap slot with a copy, plus one; 0 none) · `owner` (object id, space id or allocation
    id, by use) · `index` (page of the object).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.uses, self.use = column(count, np.uint8)
        self.flags_array, self.flags = column(count, np.uint8)
        self.refs_array, self.refs = column(count, np.int32)
        self.group_array, self.group = column(count, np.int32)
        self.slot_array, self.slot = column(count, np.int64)
        self.owner_array, self.owner = column(count, np.int32)
        _, self.index = column(count, np.int64)
        self.use[0] = Use.RESERVED
        self.by_use = [0] * len(Use)
        self.by_use[Use.FREE] = count - 1
        self.by_use[Use.RESERVED] = 1
        self.moved = 0
        self._top = 1
        self._hot: list[int] = []
        self._fixed: list[int] = []
        self._zeroed: list[int] = []
        self.limbo: list[int] = []
        """Frames that were given back while pinned, in that order; not to be changed from outside."""
        self._isolated: dict[int, tuple[int, list[int]]] = {}
        self.buddy = Buddy()
        self.buddy.put_range(1, count)

    @property
    def free(self) -> int:
        """Returns how many frames can be taken."""
        return self.by_use[Use.FREE]

    @property
    def top(self) -> int:
        """Returns a number that no frame ever given out reaches: columns need to be read up to there only."""
        return self._top

    @property
    def zeroed(self) -> int:
        """Returns how many free frames hold zeros already."""
        return len(self._zeroed)

    def check(self, frame: int) -> None:
        """Refuses a frame number outside RAM."""
        if not 0 <= frame < self.count:
            raise OutOfRange(
                f"Frame {frame} is outside the RAM of {self.count} frames.",
                reason="FRAME_OUTSIDE_RAM",
                next_step="A frame number is a physical address divided by 4096.",
            )

    # ── single frames ────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, use: Use, group: int, owner: int = 0, index: int = 0) -> int:
        """Takes a free frame for `use` and returns its number; 0 when there is none. Its content is undefined.

        The frame that was given back last is taken first.
        """
        ready = self._hot if use < _TABLE else self._fixed
        if not ready and not self._refill(ready):
            return 0
        frame = ready.pop()
        self.use[frame] = use
        self.group[frame] = group
        self.owner[frame] = owner
        self.index[frame] = index
        self.by_use[_FREE] -= 1
        self.by_use[use] += 1
        return frame

    def take_zeroed(self, use: Use, group: int, owner: int = 0, index: int = 0) -> int:
        """Takes a frame of the stock of zeroed ones; 0 when the stock is empty."""
        if not self._zeroed:
            return 0
        (self._hot if use < Use.TABLE else self._fixed).append(self._zeroed.pop())
        return self.take(use, group, owner, index)

    def unzeroed(self) -> int:
        """Takes a free frame off the lists for `stock`, FREE as it stays; 0 when there is none to zero."""
        if self._hot or self._refill(self._hot, zeroed=False):
            return self._hot.pop()
        return 0

    def stock(self, frame: int) -> None:
        """Puts a frame of `unzeroed`, which was filled with zeros, into the stock of zeroed ones."""
        self._zeroed.append(frame)

    def give_back(self, frame: int, pinned: bool) -> None:
        """Makes a frame free that nothing refers to; while it is pinned it is kept as RESERVED (see `settle`)."""
        use = self.use[frame]
        by_use = self.by_use
        by_use[use] -= 1
        self.flags[frame] = self.refs[frame] = self.slot[frame] = self.owner[frame] = 0
        if pinned:
            self.use[frame] = _RESERVED
            by_use[_RESERVED] += 1
            self.limbo.append(frame)
            return
        ready = self._hot if use < _TABLE else self._fixed
        if self._isolated or len(ready) >= HOT_MOST:
            self._set_free(frame, ready)
            return
        self.use[frame] = _FREE
        by_use[_FREE] += 1
        ready.append(frame)

    def _set_free(self, frame: int, ready: list[int]) -> None:
        """Makes a frame free that may lie in an isolated range, or whose list may be full."""
        for first, (count, found) in self._isolated.items():
            if first <= frame < first + count:
                self.use[frame] = _RESERVED
                self.by_use[_RESERVED] += 1
                found.append(frame)
                return
        self.use[frame] = _FREE
        self.by_use[_FREE] += 1
        ready.append(frame)
        if len(ready) > HOT_MOST:
            spilled = ready[: HOT_MOST // 2]
            del ready[: HOT_MOST // 2]
            self.buddy.put_many(spilled)

    def _refill(self, ready: list[int], zeroed: bool = True) -> bool:
        """Moves a block of the buddy system to a list, or, in need, what others have; returns whether it could."""
        fixed = ready is self._fixed
        order = HUGE_ORDER if fixed and self.buddy.of_order(HUGE_ORDER) else min(self.buddy.smallest(), BATCH_ORDER)
        if order >= 0:
            first = self.buddy.take(order)
            end = first + (1 << order)
            ready.extend(range(end - 1, first - 1, -1))
            self._top = max(self._top, end)
            return True
        for other in (self._hot if fixed else self._fixed, self._zeroed if zeroed else []):
            if other:
                ready.extend(other)
                other.clear()
                return True
        return False

    def settle(self, frame: int) -> None:
        """Makes a frame of `limbo` free: its last pin is gone."""
        self.limbo.remove(frame)
        self.by_use[Use.RESERVED] -= 1
        self._set_free(frame, self._hot)

    def convert(self, frame: int, use: Use, owner: int, index: int) -> None:
        """Changes what a frame that holds a page is used for."""
        self.by_use[self.use[frame]] -= 1
        self.by_use[use] += 1
        self.use[frame], self.owner[frame], self.index[frame] = use, owner, index

    # ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────

    def take_block(self, order: int, use: Use, group: int, owner: int = 0) -> int:
        """Takes 2^order contiguous, aligned frames for `use`; returns the first, 0 when there is no such block.

        Their content is undefined. They may be given back one by one, or with `give_back_block`.
        """
        first = self.buddy.take(order)
        if not first:
            self.drain(everything=True)
            first = self.buddy.take(order)
            if not first:
                return 0
        count = 1 << order
        block = slice(first, first + count)
        self.uses[block] = use
        self.group_array[block] = group
        self.owner_array[block] = owner
        self.by_use[Use.FREE] -= count
        self.by_use[use] += count
        self._top = max(self._top, first + count)
        return first

    def give_back_block(self, first: int, order: int) -> None:
        """Makes a block of one use free at once; nothing refers to its frames, and none is pinned or isolated."""
        count = 1 << order
        block = slice(first, first + count)
        self.by_use[self.use[first]] -= count
        self.by_use[Use.FREE] += count
        for array in (self.uses, self.flags_array, self.refs_array, self.slot_array, self.owner_array):
            array[block] = 0
        self.buddy.put(first, order)

    def drain(self, everything: bool = False) -> None:
        """Puts single free frames into the buddy system, where they join.

        What never moves keeps its list, unless `everything` is asked for or the list holds a huge block or more.
        """
        self.buddy.put_many(self._hot + self._zeroed)
        self._hot.clear()
        self._zeroed.clear()
        if everything or len(self._fixed) >= HUGE_FRAMES:
            self.buddy.put_many(self._fixed)
            self._fixed.clear()

    # ── taking frames out of circulation ─────────────────────────────────────────────────────────────────────────

    def isolate(self, first: int, count: int) -> None:
        """Keeps the free frames of a range, and those that come free there, from being taken: RESERVED meanwhile."""
        self.drain()
        found: list[int] = []
        frame, end = max(first, 1), first + count
        self.buddy.put_many([one for one in self._fixed if first <= one < end])
        self._fixed[:] = [one for one in self._fixed if not first <= one < end]
        while frame < end:
            taken, order = (0, -1)
            if self.use[frame] == Use.FREE:
                room = min((frame & -frame).bit_length() - 1, (end - frame).bit_length() - 1, MAX_ORDER)
                taken, order = self.buddy.carve(frame, room)
            if order < 0:
                frame += 1
                continue
            found.extend(range(taken, taken + (1 << order)))
            frame = taken + (1 << order)
        self.uses[found] = Use.RESERVED
        self.by_use[Use.FREE] -= len(found)
        self.by_use[Use.RESERVED] += len(found)
        self._isolated[first] = (count, found)

    def is_isolated(self, frame: int) -> bool:
        """Returns whether a frame lies in a range that somebody isolated."""
        return self.isolation_of(frame) >= 0

    def isolation_of(self, frame: int) -> int:
        """Returns where the isolated range begins that a frame lies in; -1 without one."""
        ranges = self._isolated.items()
        return next((first for first, (count, _) in ranges if first <= frame < first + count), -1)

    def rejoin(self, first: int) -> None:
        """Ends an isolation: its free frames can be taken again."""
        _, found = self._isolated.pop(first)
        self.uses[found] = Use.FREE
        self.by_use[Use.FREE] += len(found)
        self.by_use[Use.RESERVED] -= len(found)
        self.buddy.put_many(found)

    def retire(self, frame: int) -> bool:
        """Ends the isolation of one frame by taking it out of use for ever; False when it is not free."""
        _, found = self._isolated[frame]
        if not found:
            self.rejoin(frame)
            return False
        del self._isolated[frame]
        self.use[frame] = Use.OFFLINE
        self.by_use[Use.RESERVED] -= 1
        self.by_use[Use.OFFLINE] += 1
        return True

    # ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def used(self, use: Use) -> Any:
        """Returns the numbers of all frames of one use but FREE, ascending, as an array."""
        return np.flatnonzero(self.uses[: max(self._top, 1)] == use)

    def free_blocks(self) -> list[int]:
        """Returns how many free blocks there are of each order, each free frame counted in its largest one."""
        free = self.uses == Use.FREE
        counts: list[int] = []
        for _ in range(MAX_ORDER):
            even = len(free) & ~1
            pairs = free[0:even:2] & free[1:even:2]
            counts.append(int(free.sum()) - 2 * int(pairs.sum()))
            free = pairs
        return [*counts, int(free.sum())]
