"""The hypervisor's own view of a guest's RAM: bytes at guest physical addresses, through the EPT. Pure.

A page that the EPT does not map raises `NeedPage`: the caller asks the memory layer for it and tries again. For the
time of a copy the frame is pinned, and the EPT entry is read again after pinning: had the page been revoked in between,
the copy starts over. A and D are set in the EPT before bytes move, as a core would.
"""

from __future__ import annotations

from typing import Protocol

from lamina_hypervisor.domain.addresses import Gpa, Hpa, page_of
from lamina_hypervisor.domain.ept import Ept
from lamina_kit import paging
from lamina_kit.paging import ADDR_MASK, EPT_A, EPT_D, EPT_R, EPT_W, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE


class HostMemory(Protocol):
    """What this layer uses of the host's RAM; the kit's memory bus is one."""

    def read(self, pa: int, n: int) -> bytes:
        """Returns `n` bytes at `pa`."""

    def write(self, pa: int, data: bytes) -> None:
        """Stores bytes at `pa` and drops translated code of their frames."""

    def load64(self, pa: int) -> int:
        """Returns the 8 bytes at `pa`."""

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Stores `new` at `pa` if `expected` is there; returns what was there."""

    def pin(self, frame: int) -> None:
        """Keeps a frame where it is until `unpin`."""

    def unpin(self, frame: int) -> None:
        """Takes a pin away."""


class NeedPage(Exception):  # noqa: N818 (not an error: it says what the caller must ask for)
    """A guest page is not mapped as the hypervisor's own access needs it."""

    def __init__(self, gpa: Gpa, write: bool) -> None:
        super().__init__(f"guest page {gpa:#x} is not mapped for {'writing' if write else 'reading'}")
        self.gpa = gpa
        self.write = write


class GuestRam:
    """Bytes of one guest's RAM."""

    def __init__(self, memory: HostMemory, ept: Ept) -> None:
        self._memory = memory
        self._ept = ept

    def read(self, gpa: Gpa, n: int) -> bytes:
        """Returns `n` bytes at `gpa`; raises `NeedPage` for the first page that is not mapped."""
        parts = []
        while n > 0:
            size = min(n, PAGE_SIZE - (gpa & PAGE_MASK))
            address = self._pin(gpa, write=False)
            parts.append(self._memory.read(address, size))
            self._memory.unpin(address >> PAGE_SHIFT)
            gpa, n = Gpa(gpa + size), n - size
        return b"".join(parts)

    def write(self, gpa: Gpa, data: bytes) -> None:
        """Stores bytes at `gpa`; raises `NeedPage` for the first page that is not mapped writable."""
        while data:
            size = min(len(data), PAGE_SIZE - (gpa & PAGE_MASK))
            address = self._pin(gpa, write=True)
            self._memory.write(address, data[:size])
            self._memory.unpin(address >> PAGE_SHIFT)
            gpa, data = Gpa(gpa + size), data[size:]

    def load64(self, gpa: Gpa) -> int:
        """Returns the 8 bytes at `gpa`, a multiple of 8."""
        return int.from_bytes(self.read(gpa, 8), "little")

    def set_bits(self, gpa: Gpa, entry: int, bits: int) -> bool:
        """Sets bits of the 8-byte word at `gpa` if it still is `entry`; returns whether it was."""
        if entry & bits == bits:
            return True
        address = self._pin(gpa, write=True)
        found = self._memory.cas64(address, entry, entry | bits)
        self._memory.unpin(address >> PAGE_SHIFT)
        return found == entry

    def _pin(self, gpa: Gpa, *, write: bool) -> Hpa:
        """Returns the host address of `gpa` with its frame pinned, A (and D) set in the EPT."""
        need = EPT_R | (EPT_W if write else 0)
        mark = EPT_A | (EPT_D if write else 0)
        while True:
            visits = self._ept.walk(gpa)
            leaf = visits[-1] if len(visits) == paging.LEVELS else None
            if leaf is None or leaf.entry & need != need:
                raise NeedPage(page_of(gpa), write)
            frame = (leaf.entry & ADDR_MASK) >> PAGE_SHIFT
            self._memory.pin(frame)
            if self._memory.cas64(leaf.address, leaf.entry, leaf.entry | mark) == leaf.entry:
                return Hpa(frame << PAGE_SHIFT | gpa & PAGE_MASK)
            self._memory.unpin(frame)
