"""DMA memory given away: contiguous pages beyond RAM, first fit. Pure."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.slots import Slots
from lamina_kit.errors import ResourceExhausted


@dataclass(frozen=True, slots=True)
class DmaBuffer:
    """`size` bytes at physical address `address`. `owner` is the session whose it is, `label` a name for people."""

    handle: Handle
    address: int
    size: int
    owner: str
    label: str

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.size


class DmaBuffers:
    """All DMA memory of a host: `size` bytes from `base`."""

    def __init__(self, base: int, size: int) -> None:
        self._base = base
        self._end = base + size
        self._slots: Slots[DmaBuffer] = Slots("DMA buffer")
        self._starts: list[int] = []
        self._at: dict[int, DmaBuffer] = {}

    def allocate(self, size: int, owner: str, label: str) -> DmaBuffer:
        """Returns a buffer at the lowest address where it fits. Raises `ResourceExhausted` `DMA_MEMORY_EXHAUSTED`."""
        address = self._base
        for start in self._starts:
            if start - address >= size:
                break
            address = self._at[start].end
        if address + size > self._end:
            raise ResourceExhausted(
                f"There are no {size} contiguous bytes of DMA memory left.",
                reason="DMA_MEMORY_EXHAUSTED",
                next_step="Free buffers, or start the host with more DMA memory.",
                size=size,
            )
        handle = self._slots.claim()
        buffer = DmaBuffer(handle, address, size, owner, label)
        self._slots.put(handle, buffer)
        insort(self._starts, address)
        self._at[address] = buffer
        return buffer

    def get(self, handle: Handle) -> DmaBuffer:
        """Returns a buffer. Raises `FailedPrecondition` `HANDLE_STALE`."""
        return self._slots.get(handle)

    def free(self, buffer: DmaBuffer) -> None:
        """Takes a buffer back."""
        self._slots.remove(buffer.handle)
        self._starts.remove(buffer.address)
        del self._at[buffer.address]

    def holds(self, owner: str, pa: int, size: int) -> bool:
        """Returns whether `size` bytes at `pa` lie in buffers of one owner without a gap."""
        end = pa + size
        while pa < end:
            place = bisect_right(self._starts, pa)
            found = self._at[self._starts[place - 1]] if place else None
            if found is None or found.end <= pa or found.owner != owner:
                return False
            pa = found.end
        return True

    def entries(self) -> list[DmaBuffer]:
        """Returns all buffers in the order of their addresses."""
        return [self._at[start] for start in self._starts]
