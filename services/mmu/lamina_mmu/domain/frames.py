"""Page frames: which are free, what each is used for, who pays for it. Pure.

    frame 0 ──▶ RESERVED, never given out (an entry of 0 must mean "nothing")
    1 … fresh-1 given out at least once; those given back lie on the stack `_freed`
    fresh …     never touched, so neither RAM nor the arrays below cost memory for them

The arrays have one element a frame. numpy takes them from zeroed pages of the operating system that cost nothing until
they are touched: a table for 8 GiB is ready in a millisecond. Scalars are read and written through memoryviews of
the same arrays (plain integers, three times faster than numpy's).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, cast

import numpy as np

from lamina_kit.errors import OutOfRange


class Use(IntEnum):
    """What a frame is used for; the numbers are those of the contract's `Frame.Use`, less one."""

    FREE = 0
    ANONYMOUS = 1
    OBJECT = 2
    TABLE = 3
    ALLOCATED = 4
    RESERVED = 5


DIRTY = 1
"""Flag: the content differs from the swap slot (or from zeros, without one), whatever the entries' D bits say."""
BUSY = 2
"""Flag: the frame is in transit; entries that named it say TRANSIT."""


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
        _, self.group = column(count, np.int32)
        self.slot_array, self.slot = column(count, np.int32)
        _, self.owner = column(count, np.int32)
        _, self.index = column(count, np.int64)
        self.use[0] = Use.RESERVED
        self.by_use = [0] * len(Use)
        self.by_use[Use.FREE] = count - 1
        self.by_use[Use.RESERVED] = 1
        self._fresh = 1
        self._freed: list[int] = []
        self._limbo: list[int] = []

    @property
    def free(self) -> int:
        """Returns how many frames can be taken."""
        return self.by_use[Use.FREE]

    def check(self, frame: int) -> None:
        """Refuses a frame number outside RAM."""
        if not 0 <= frame < self.count:
            raise OutOfRange(
                f"Frame {frame} is outside the RAM of {self.count} frames.",
                reason="FRAME_OUTSIDE_RAM",
                next_step="A frame number is a physical address divided by 4096.",
            )

    def take(self, use: Use, group: int, owner: int = 0, index: int = 0) -> int:
        """Takes a free frame for `use` and returns its number; 0 when there is none. Its content is undefined.

        The frame that was given back last is taken first.
        """
        if self._freed:
            frame = self._freed.pop()
        elif self._fresh < self.count:
            frame = self._fresh
            self._fresh += 1
        else:
            return 0
        self.use[frame] = use
        self.group[frame] = group
        self.owner[frame] = owner
        self.index[frame] = index
        self.by_use[Use.FREE] -= 1
        self.by_use[use] += 1
        return frame

    def give_back(self, frame: int, pinned: bool) -> None:
        """Makes a frame free that nothing refers to; while it is pinned it is kept as RESERVED (see `settle`)."""
        self.by_use[self.use[frame]] -= 1
        self.flags[frame] = 0
        self.refs[frame] = 0
        self.slot[frame] = 0
        self.owner[frame] = 0
        use = Use.RESERVED if pinned else Use.FREE
        self.use[frame] = use
        self.by_use[use] += 1
        (self._limbo if pinned else self._freed).append(frame)

    @property
    def limbo(self) -> tuple[int, ...]:
        """Returns the frames that were given back while pinned, in that order."""
        return tuple(self._limbo)

    def settle(self, frame: int) -> None:
        """Makes a frame of `limbo` free: its last pin is gone."""
        self._limbo.remove(frame)
        self.use[frame] = Use.FREE
        self.by_use[Use.RESERVED] -= 1
        self.by_use[Use.FREE] += 1
        self._freed.append(frame)

    def used(self, use: Use) -> Any:
        """Returns the numbers of all frames of one use but FREE, ascending, as an array."""
        return np.flatnonzero(self.uses[: self._fresh] == use)
