"""Physical memory as devices and the IOMMU reach it: RAM, and DMA memory beyond it."""

from __future__ import annotations

from collections.abc import Callable

from lamina_kit.bus.dma import DMA_BASE
from lamina_kit.bus.memory import MemoryBus


class HostPhysical:
    """Both parts of one bus by address; `stale` is called when a store made translated code stale."""

    def __init__(self, bus: MemoryBus, stale: Callable[[], None]) -> None:
        self._bus = bus
        self._stale = stale

    def contains(self, pa: int, n: int) -> bool:
        """See `Physical.contains`."""
        return (pa >= 0 and pa + n <= self._bus.size) if pa < DMA_BASE else self._bus.dma.contains(pa, n)

    def is_dma(self, pa: int) -> bool:
        """See `Physical.is_dma`."""
        return pa >= DMA_BASE

    def read(self, pa: int, n: int) -> bytes:
        """See `Physical.read`."""
        return self._bus.read(pa, n) if pa < DMA_BASE else self._bus.dma.read(pa, n)

    def write(self, pa: int, data: bytes) -> None:
        """See `Physical.write`."""
        if pa >= DMA_BASE:
            self._bus.dma.write(pa, data)
            return
        self._bus.write(pa, data)
        if self._bus.has_code_writes:
            self._stale()

    def load64(self, pa: int) -> int:
        """See `Physical.load64`."""
        return self._bus.load64(pa) if pa < DMA_BASE else self._bus.dma.load64(pa)

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """See `Physical.cas64`."""
        return (self._bus if pa < DMA_BASE else self._bus.dma).cas64(pa, expected, new)

    def take64(self, pa: int, count: int) -> list[int]:
        """See `Physical.take64`."""
        return (self._bus if pa < DMA_BASE else self._bus.dma).take64(pa, count)
