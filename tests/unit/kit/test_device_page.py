"""The device page: what driver and device tell each other, and what neither may lose."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina_kit.bus.device_page import DevicePage, page_bytes
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import OutOfRange

QUEUES = 3


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[MemoryBus]:
    """Returns a bus with DMA memory."""
    with MemoryBus.create(tmp_path / "ram", 2 << 20, run_pages=1, dma_bytes=2 << 20) as made:
        yield made


@pytest.fixture
def page(bus: MemoryBus) -> DevicePage:
    """Returns a page after reset."""
    made = DevicePage(bus.dma, bus.dma.base + 4096, QUEUES)
    made.clear(2)
    return made


def test_the_layout_is_that_of_the_contract(bus: MemoryBus, page: DevicePage) -> None:
    """Magic, version, queues and their place; each side's words on a cache line of its own."""
    page.set_tail(2, 0x1234)
    page.set_head(2, 0x5678)
    page.wake_device(2)
    page.set_ring(2, 0xABCD_0000, 64)
    data = bus.dma.read(bus.dma.base + 4096, page_bytes(QUEUES))
    assert struct.unpack_from("<8sIII", data) == (b"LAMDEVPG", 1, 2, 4096)
    queue = 4096 + 2 * 128
    assert struct.unpack_from("<IIQI", data, queue) == (0x1234, 1, 0xABCD_0000, 64)
    assert struct.unpack_from("<II", data, queue + 64) == (0x5678, 0)
    assert (page_bytes(0), page_bytes(1), page_bytes(32), page_bytes(33), page_bytes(256)) == (
        4096, 8192, 8192, 12288, 36864,
    )  # fmt: skip


def test_flags_are_taken_once(page: DevicePage) -> None:
    """Both sides sleep at first; who takes a request finds it gone; indices stay as they are."""
    page.set_tail(0, 7)
    page.set_head(0, 5)
    assert page.take_doorbell(0) and not page.take_doorbell(0)
    assert page.take_interrupt(0) and not page.take_interrupt(0)
    page.sleep_device(0)
    page.sleep_driver(0)
    assert (page.tail(0), page.head(0)) == (7, 5)
    assert page.take_doorbell(0) and page.take_interrupt(0)
    page.set_tail(0, 0xFFFF_FFFF)
    assert page.tail(0) == 0xFFFF_FFFF


def test_a_tail_of_a_message(page: DevicePage) -> None:
    """It is stored, with the driver asleep, while the page has what was seen; a newer page stays."""
    page.take_interrupt(0)
    assert page.take_message(0, 0, 4)
    assert page.tail(0) == 4 and page.take_interrupt(0)
    page.set_tail(0, 6)
    assert not page.take_message(0, 4, 5)
    assert page.tail(0) == 6


def test_what_is_no_page_has_no_queues(bus: MemoryBus, page: DevicePage) -> None:
    """Foreign bytes are no page, and no page has more queues than there is room for."""
    assert page.queues == 2
    page.set_queues(1000)
    assert page.queues == QUEUES
    bus.dma.write(bus.dma.base + 4096, b"x")
    assert page.queues == 0
    for queue in (-1, QUEUES):
        with pytest.raises(OutOfRange) as refused:
            page.tail(queue)
        assert refused.value.reason == "QUEUE_UNKNOWN"


def test_nobody_sleeps_while_there_is_work(page: DevicePage) -> None:
    """Two threads that use the protocol hand over 20,000 descriptors without a lost doorbell."""
    total = 20_000
    bell = threading.Semaphore(0)
    handled = 0

    def device() -> None:
        nonlocal handled
        head = 0
        while head < total:
            tail = page.tail(1)
            if tail == head:
                page.sleep_device(1)
                if page.tail(1) != head:
                    page.wake_device(1)
                    continue
                assert bell.acquire(timeout=30), f"asleep at {head} of {page.tail(1)}"
                continue
            head = tail
            page.set_head(1, head)
        handled = head

    page.wake_device(1)
    worker = threading.Thread(target=device)
    worker.start()
    for tail in range(1, total + 1):
        page.set_tail(1, tail)
        if page.take_doorbell(1):
            bell.release()
    worker.join(timeout=60)
    assert handled == total == page.head(1)
