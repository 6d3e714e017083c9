"""DMA memory: a part of the memory bus that devices reach and page tables do not.

It has physical addresses of its own, far above any RAM, so an entry of a process's or a guest's page table that names
one leads outside RAM. Drivers below the MMU keep rings, buffers and IOMMU tables here; nobody executes from it, no
log of dirty frames covers it. The hardware service alone gives parts of it away (`Devices.AllocateDmaBuffer`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Final

from lamina_kit.errors import InvalidArgument, OutOfRange

DMA_BASE: Final = 1 << 45
"""Physical address of the first byte of DMA memory; RAM ends at 2^44 at the latest."""

_ZEROS = bytes(1 << 20)


class DmaArea:
    """The DMA memory of one mapped bus, by physical address.

    `offset` is its place in the file and `base` the first address. Every method checks what it is given: `OutOfRange`
    `ADDRESS_OUTSIDE_RAM` for bytes that are not all DMA memory.
    """

    def __init__(
        self,
        view: memoryview,
        offset: int,
        address: int,
        discard: Callable[[int, int], bool],
    ) -> None:
        """Takes the bytes, where they lie in file and process, and what gives blocks of the file back."""
        self._discard = discard
        self.base = DMA_BASE
        self.size = len(view)
        self.offset = offset
        self._view = view
        self._words = view.cast("Q")
        self._address = address

    @cached_property
    def _atomics(self) -> ModuleType:
        from lamina_kit.bus import atomics  # numba: only those pay for it who use it

        return atomics

    def contains(self, pa: int, n: int) -> bool:
        """Returns whether `n` bytes at `pa` are DMA memory."""
        return self.base <= pa and n >= 0 and pa + n <= self.base + self.size

    def read(self, pa: int, n: int) -> bytes:
        """Returns a copy of `n` bytes at `pa`."""
        start = self._place(pa, n)
        return bytes(self._view[start : start + n])

    def write(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Stores `data` at `pa`."""
        start = self._place(pa, len(data))
        self._view[start : start + len(data)] = data

    def view(self, pa: int, n: int) -> memoryview:
        """Returns a writable view of `n` bytes at `pa`."""
        start = self._place(pa, n)
        return self._view[start : start + n]

    def load64(self, pa: int) -> int:
        """Returns the 8 bytes at `pa` (a multiple of 8) as one undivided little-endian load."""
        return self._words[self._word(pa) >> 3]

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Stores `new` at `pa` (a multiple of 8) when `expected` is there; returns what was there."""
        found: int = self._atomics.swap64(self._address + self._word(pa), expected, new)
        return found

    def take64(self, pa: int, count: int) -> list[int]:
        """Replaces `count` words from `pa` (a multiple of 8) with zeros; returns what was there."""
        start = self._word(pa, count)
        return [int(word) for word in self._atomics.take64(self._address + start, count)]

    def empty(self, pa: int, n: int) -> None:
        """Makes `n` bytes at `pa` (both page aligned) zeros, and gives the file's blocks back where that is possible.

        A file system that cannot give blocks back keeps them, with zeros in them.
        """
        start = self._place(pa, n)
        if self._discard(self.offset + start, n):
            return
        for at in range(start, start + n, len(_ZEROS)):
            piece = min(len(_ZEROS), start + n - at)
            self._view[at : at + piece] = _ZEROS[:piece]

    def close(self) -> None:
        """Ends the views of this object. Idempotent."""
        self._words.release()
        self._view.release()

    def _word(self, pa: int, count: int = 1) -> int:
        if pa & 7:
            raise InvalidArgument(f"{pa:#x} is not the address of an aligned 8-byte word.", reason="ADDRESS_MISALIGNED")
        return self._place(pa, 8 * count)

    def _place(self, pa: int, n: int) -> int:
        """Returns where `n` bytes at `pa` begin in the area."""
        if not self.contains(pa, n):
            raise OutOfRange(
                f"{n} bytes at {pa:#x} are not DMA memory, which has {self.size:#x} bytes from {self.base:#x}.",
                reason="ADDRESS_OUTSIDE_RAM",
                next_step="Use the address that AllocateDmaBuffer returned.",
                address=f"{pa:#x}",
                size=n,
            )
        return pa - self.base
