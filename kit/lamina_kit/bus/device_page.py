"""The device page: what a device and its driver tell each other on the memory bus. `devices.proto` has the layout.

    queue       driver's line                                 device's line
              0  tail  driver_sleeps  ring address  ring size │ 64  head  device_sleeps

Either side, over one bus:

    driver   page.set_tail(q, 5)                   device   page.set_head(q, 5)
             if page.take_doorbell(q):                      if page.take_interrupt(q): send an interrupt
                 send a Doorbell                            page.sleep_device(q); look at the tail once more

The index and the flag beside it change by compare-and-swap of both, a full fence: who says that it sleeps and then
looks again misses nothing. What the other side wrote is hostile: 32 bits of anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from lamina_kit.bus.dma import DmaArea
from lamina_kit.errors import OutOfRange
from lamina_kit.paging import PAGE_SIZE, page_up

MAGIC: Final = int.from_bytes(b"LAMDEVPG", "little")
VERSION: Final = 1
QUEUES_OFFSET: Final = PAGE_SIZE
QUEUE_BYTES: Final = 128
MAX_QUEUES: Final = 256

_HEADER = struct.Struct("<QIII")
_RING = struct.Struct("<QI")
_HEAD_LINE = 64
_LOW = 0xFFFF_FFFF
_FLAG = 1 << 32
_Change: TypeAlias = Callable[[int], int]


def page_bytes(queues: int) -> int:
    """Returns how large the page of a device with so many queues is."""
    return PAGE_SIZE + page_up(queues * QUEUE_BYTES)


class DevicePage:
    """One device page in DMA memory; `address` is physical, `limit` the most queues it has room for."""

    def __init__(self, area: DmaArea, address: int, limit: int) -> None:
        self._area = area
        self._address = address
        self._limit = limit

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def queues(self) -> int:
        """How many queues the device has now, 0 when the page is none."""
        magic, version, queues, _ = _HEADER.unpack(self._area.read(self._address, _HEADER.size))
        return min(queues, self._limit) if (magic, version) == (MAGIC, VERSION) else 0

    def tail(self, queue: int) -> int:
        """Returns the index behind the last descriptor that is ready."""
        return self._area.load64(self._place(queue)) & _LOW

    def head(self, queue: int) -> int:
        """Returns the index of the descriptor that the device takes next."""
        return self._area.load64(self._place(queue) + _HEAD_LINE) & _LOW

    # ── the device ───────────────────────────────────────────────────────────────────────────────────────────────

    def clear(self, queues: int) -> None:
        """Makes the page that of a device after reset: indices 0, both sides asleep."""
        self._area.write(self._address, bytes(page_bytes(self._limit)))
        for queue in range(self._limit):
            self._area.cas64(self._place(queue), 0, _FLAG)
            self._area.cas64(self._place(queue) + _HEAD_LINE, 0, _FLAG)
        self.set_queues(queues)

    def set_queues(self, queues: int) -> None:
        """Says how many queues there are."""
        self._area.write(self._address, _HEADER.pack(MAGIC, VERSION, queues, QUEUES_OFFSET))

    def ring(self, queue: int) -> tuple[int, int]:
        """Returns (DMA address, descriptors) of a ring as the driver wrote them; only DMA engines have these words."""
        address, size = _RING.unpack(self._area.read(self._place(queue) + 8, _RING.size))
        return address, size

    def set_head(self, queue: int, head: int) -> None:
        """Stores the device's index; its flag stays."""
        self._exchange(self._place(queue) + _HEAD_LINE, lambda word: word & ~_LOW | head)

    def sleep_device(self, queue: int) -> None:
        """Asks for a doorbell over the stream. Look at the tail once more after this."""
        self._exchange(self._place(queue) + _HEAD_LINE, lambda word: word & _LOW | _FLAG)

    def wake_device(self, queue: int) -> None:
        """Takes the request for a doorbell back."""
        self._exchange(self._place(queue) + _HEAD_LINE, lambda word: word & _LOW)

    def take_interrupt(self, queue: int) -> bool:
        """Returns whether the driver asked for an interrupt, and takes the request."""
        return self._exchange(self._place(queue), lambda word: word & _LOW) >> 32 != 0

    def take_message(self, queue: int, seen: int, tail: int) -> bool:
        """Stores a tail that came in a message for a driver that does not write here; returns whether it did.

        `seen` is the tail that the page had so far. A page that has another is newer than the message and stays. A
        driver of messages alone is always asleep: it cannot say so itself.
        """
        place = self._place(queue)
        word = self._area.load64(place)
        return word & _LOW == seen and self._area.cas64(place, word, _FLAG | tail) == word

    # ── the driver ───────────────────────────────────────────────────────────────────────────────────────────────

    def set_tail(self, queue: int, tail: int) -> None:
        """Stores the driver's index; its flag stays."""
        self._exchange(self._place(queue), lambda word: word & ~_LOW | tail)

    def set_ring(self, queue: int, address: int, size: int) -> None:
        """Says where the ring of a DMA engine's queue lies, and its size in descriptors."""
        self._area.write(self._place(queue) + 8, _RING.pack(address, size))

    def take_doorbell(self, queue: int) -> bool:
        """Returns whether the device asked for a doorbell, and takes the request."""
        return self._exchange(self._place(queue) + _HEAD_LINE, lambda word: word & _LOW) >> 32 != 0

    def sleep_driver(self, queue: int) -> None:
        """Asks for an interrupt over the stream. Look at the head once more after this."""
        self._exchange(self._place(queue), lambda word: word & _LOW | _FLAG)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _exchange(self, place: int, change: _Change) -> int:
        """Changes a word; returns what was there."""
        while True:
            word = self._area.load64(place)
            if self._area.cas64(place, word, change(word)) == word:
                return word

    def _place(self, queue: int) -> int:
        if not 0 <= queue < self._limit:
            raise OutOfRange(
                f"Queue {queue} does not exist; the device has {self._limit} at most.",
                reason="QUEUE_UNKNOWN",
                next_step="Use the queues that the device page states.",
            )
        return self._address + QUEUES_OFFSET + QUEUE_BYTES * queue
