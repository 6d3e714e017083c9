"""The swap area: slots, who refers to them, and which frames still hold a copy. Pure.

    entry SWAP(slot) ──▶ slot ◀── frame that was read from it and not written since (the swap cache)

A slot lives while an entry names it or a frame caches it. A clean page keeps its slot and leaves RAM again without a
write. When slots run short, those that only a cache holds are taken back: the page itself is in RAM.

The bytes lie behind the `SwapStore` port. Each slot has a checksum, so that bytes which rotted are reported
(SWAP_CORRUPT) and never mapped.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import numpy as np

from lamina_kit.errors import DataLoss
from lamina_mmu.domain.frames import column


class SwapStore(Protocol):
    """Keeps pages of 4096 bytes by slot number. Errors of the device are raised as `DataLoss` or `Unavailable`."""

    slots: int
    """How many slots there are."""

    def write(self, slot: int, data: bytes | memoryview, /) -> None:
        """Stores 4096 bytes."""

    def read(self, slot: int, /) -> bytes:
        """Returns the 4096 bytes stored last."""


class SwapArea:
    """Slots of the swap area.

    Columns, one element a slot: `refs` (entries that name it), `frame` (that caches it; 0 none), `group` (that pays),
    `sum` (CRC-32).
    """

    def __init__(self, store: SwapStore) -> None:
        self._store = store
        self.count = store.slots
        self.refs_array, self.refs = column(self.count, np.int32)
        _, self.frame = column(self.count, np.int32)
        _, self.group = column(self.count, np.int32)
        _, self._sum = column(self.count, np.uint32)
        self._used_array, self._used = column(self.count, np.uint8)
        self._fresh = 0
        self._freed: list[int] = []
        self._free = self.count
        self.refusing = False
        self.written = 0
        self.read_back = 0

    @property
    def free(self) -> int:
        """How many slots can be taken; 0 while the area is `refusing`, as if something else had taken them."""
        return 0 if self.refusing else self._free

    def take(self, group: int) -> int:
        """Takes a free slot for `group`; -1 when there is none."""
        if self.refusing:
            return -1
        if self._freed:
            slot = self._freed.pop()
        elif self._fresh < self.count:
            slot = self._fresh
            self._fresh += 1
        else:
            return -1
        self._used[slot] = 1
        self.group[slot] = group
        self._free -= 1
        return slot

    def give_back(self, slot: int) -> None:
        """Frees a slot that nobody refers to."""
        self._used[slot] = 0
        self.frame[slot] = 0
        self.refs[slot] = 0
        self._freed.append(slot)
        self._free += 1

    def cached_only(self, limit: int) -> list[int]:
        """Returns up to `limit` slots, ascending, that no entry names: a frame in RAM holds the same bytes."""
        used = self._used_array[: self._fresh]
        found: list[int] = np.flatnonzero((used != 0) & (self.refs_array[: self._fresh] == 0))[:limit].tolist()
        return found

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Stores a page and its checksum."""
        self._store.write(slot, data)
        self._sum[slot] = zlib.crc32(data)
        self.written += 1

    def read(self, slot: int) -> bytes:
        """Returns the page in a slot; SWAP_CORRUPT when it is not what was written."""
        data = self._store.read(slot)
        if len(data) != 4096 or zlib.crc32(data) != self._sum[slot]:
            raise DataLoss(
                f"The page in swap slot {slot} is not what was written there.",
                reason="SWAP_CORRUPT",
                next_step="The page is lost: end the process or VM that owns it, and check the disk of the swap file.",
                slot=slot,
            )
        self.read_back += 1
        return data
