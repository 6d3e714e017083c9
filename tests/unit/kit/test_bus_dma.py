"""DMA memory on the memory bus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamina_kit.bus.dma import DMA_BASE, DmaArea
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import FailedPrecondition, InvalidArgument, OutOfRange

RAM, DMA = 2 << 20, 4 << 20


def test_it_lies_behind_the_run_pages_and_is_one_for_all(tmp_path: Path) -> None:
    """Two mappings see the same bytes and words, at the place in the file that it says; RAM and run pages stay."""
    path = tmp_path / "ram"
    with MemoryBus.create(path, RAM, run_pages=3, dma_bytes=DMA) as bus, MemoryBus.open(path) as other:
        assert (other.dma.base, other.dma.size, other.dma.offset % (2 << 20)) == (DMA_BASE, DMA, 0)
        bus.dma.write(DMA_BASE + 5, b"hello")
        assert other.dma.read(DMA_BASE + 5, 5) == b"hello"
        assert path.read_bytes()[bus.dma.offset + 5 :][:5] == b"hello"
        assert other.dma.cas64(DMA_BASE + 8, bus.dma.load64(DMA_BASE + 8), 9) != 9
        assert bus.dma.load64(DMA_BASE + 8) == 9
        assert bus.dma.cas64(DMA_BASE + 8, 1, 2) == 9
        assert bus.dma.take64(DMA_BASE + 8, 2) == [9, 0]
        assert other.dma.load64(DMA_BASE + 8) == 0
        assert not any(bus.read(0, RAM)) and not any(bytes(bus.run_page(2)))
        bus.dma.view(DMA_BASE, 4)[:] = b"view"
        assert other.dma.read(DMA_BASE, 4) == b"view"


CALLS: list[Callable[[DmaArea, int], Any]] = [
    lambda area, pa: area.read(pa, 8),
    lambda area, pa: area.write(pa, bytes(8)),
    lambda area, pa: area.load64(pa),
    lambda area, pa: area.cas64(pa, 0, 1),
    lambda area, pa: area.take64(pa, 1),
    lambda area, pa: area.view(pa, 8),
    lambda area, pa: area.empty(pa, 8),
]


@pytest.mark.parametrize("call", CALLS)
def test_nothing_beside_it_is_reached(tmp_path: Path, call: Callable[[DmaArea, int], Any]) -> None:
    """Addresses before, behind and across its end are refused."""
    with MemoryBus.create(tmp_path / "ram", RAM, run_pages=0, dma_bytes=DMA) as bus:
        for pa in (0, -8, DMA_BASE - 8, DMA_BASE + DMA, 1 << 63):
            with pytest.raises(OutOfRange) as refused:
                call(bus.dma, pa)
            assert refused.value.reason == "ADDRESS_OUTSIDE_RAM"
    with MemoryBus.create(tmp_path / "none", RAM, run_pages=0) as bus, pytest.raises(OutOfRange):
        call(bus.dma, DMA_BASE)


def test_words_are_aligned(tmp_path: Path) -> None:
    """A word at an odd address is refused."""
    with MemoryBus.create(tmp_path / "ram", RAM, dma_bytes=DMA) as bus:
        with pytest.raises(InvalidArgument) as refused:
            bus.dma.load64(DMA_BASE + 4)
        assert refused.value.reason == "ADDRESS_MISALIGNED"


@pytest.mark.parametrize("holes", [True, False])
def test_what_is_emptied_is_zero(tmp_path: Path, holes: bool) -> None:
    """Whether the file system takes blocks back or not, exactly the range reads as zeros."""
    with MemoryBus.create(tmp_path / "ram", RAM, dma_bytes=DMA) as bus:
        if not holes:
            bus.dma._discard = lambda offset, size: False
        bus.dma.write(DMA_BASE, b"\xff" * DMA)
        bus.dma.empty(DMA_BASE + 4096, 3 << 20)
        data = bus.dma.read(DMA_BASE, DMA)
        assert data == b"\xff" * 4096 + bytes(3 << 20) + b"\xff" * ((1 << 20) - 4096)


def test_sizes_that_are_not_possible(tmp_path: Path) -> None:
    """A size that is no number of pages, or too large, makes no bus; a header that lies about it is no bus."""
    for size in (-4096, 1, 1 << 41):
        with pytest.raises(InvalidArgument) as refused:
            MemoryBus.create(tmp_path / "ram", RAM, dma_bytes=size)
        assert refused.value.reason == "DMA_SIZE_INVALID"
    path = tmp_path / "lie"
    MemoryBus.create(path, RAM, dma_bytes=DMA).close()
    with path.open("r+b") as file:
        file.seek(64)
        file.write((2 * DMA).to_bytes(8, "little"))
    with pytest.raises(FailedPrecondition) as foreign:
        MemoryBus.open(path)
    assert foreign.value.reason == "BUS_FOREIGN"


def test_words_of_ram_are_taken(tmp_path: Path) -> None:
    """`take64` of RAM returns what was there, leaves zeros, and marks the frames; unaligned or outside is refused."""
    with MemoryBus.create(tmp_path / "ram", RAM, dma_bytes=DMA) as bus:
        bus.store64(8192 - 8, 7)
        bus.store64(8192, 1 << 63)
        bus.collect_dirty(0, 4)
        assert bus.take64(8192 - 8, 3) == [7, 1 << 63, 0]
        assert bus.load64(8192) == 0
        assert bus.collect_dirty(0, 4) == [1, 2]
        assert bus.take64(0, 0) == []
        for pa, count in ((4, 1), (RAM - 8, 2), (-8, 1), (0, -1)):
            with pytest.raises((InvalidArgument, OutOfRange)):
                bus.take64(pa, count)
        assert not bus.has_code_writes
        bus.set_exec(3)
        bus.write(3 * 4096, b"x")
        assert bus.has_code_writes
        assert bus.drain_code_writes() == [3]
        assert not bus.has_code_writes
