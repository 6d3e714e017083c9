"""A DMA engine: copies memory between DMA addresses while the processor does something else. Pure.

Four channels, each with a ring of descriptors that its driver fills and a vector of its own. A descriptor, 32 bytes,
little-endian:

     0  4  control: bit 0 interrupt when done; bits 31–24 operation: 0 copy, 1 fill
     4  4  bytes, 1 to 1 MiB
     8  8  source address; for a fill the eight bytes that are repeated
    16  8  destination address
    24  4  status, written by the engine: bit 0 done, bit 1 refused; bits 15–8 why: a `DmaOutcome`, 255 malformed
    28  4  bytes moved, written by the engine

The ring's address and size stand in the device page (`ring address`, `ring size`); left 0 they mean 256 descriptors at
DMA address 0. An engine moves bursts of 16 KiB, each at the time that its rate gives: what is unmapped between two
bursts is refused at the next. A channel that was refused, or found nonsense, stops until the device is reset.

A teaching-sized relative of Intel's I/OAT (source: Intel 7300 chipset datasheet, DMA engine registers).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from lamina_hardware.domain.devices.device import DevicePorts, Timer
from lamina_hardware.domain.devices.dma import MAX_TRANSFER, DmaRefused, PageNeeded
from lamina_kit.errors import OutOfRange

CHANNELS: Final = 4
DESCRIPTOR_BYTES: Final = 32
DEFAULT_RING: Final = 256
MAX_RING: Final = 65_536
BURST: Final = 16 << 10
FETCH_NS: Final = 200
BYTES_PER_NS: Final = 8

INTERRUPT: Final = 1
COPY, FILL = 0, 1
DONE, REFUSED = 1, 2
MALFORMED: Final = 255
_DESCRIPTOR = struct.Struct("<IIQQ")
_STATUS = struct.Struct("<II")
_STATUS_PLACE = 24
_Step: TypeAlias = Callable[[], None]
_MOST_BURSTS = 64
"""Bursts of one turn, when the clock is ahead: others want the event loop too."""


class DmaEngine:
    """One engine."""

    vector_count = CHANNELS
    queue_limit = CHANNELS
    queue_count = CHANNELS

    def connect(self, ports: DevicePorts) -> None:
        """See `DeviceModel.connect`."""
        self._channels = [Channel(ports, number) for number in range(CHANNELS)]

    def reset(self) -> None:
        """See `DeviceModel.reset`."""
        for channel in self._channels:
            channel.reset()

    def doorbell(self, queue: int, tail: int) -> None:
        """See `DeviceModel.doorbell`. Raises `OutOfRange` `TAIL_OUTSIDE_RING`."""
        self._channels[queue].wake(tail)


class Channel:
    """One ring and the copy that is under way. `busy` while a descriptor is."""

    def __init__(self, ports: DevicePorts, number: int) -> None:
        self._ports = ports
        self._number = number
        self._timer: Timer | None = None
        self._epoch = 0
        self._clear()

    def _clear(self) -> None:
        self.head = 0
        self.busy = False
        self.stopped = False
        self._base, self._size = 0, DEFAULT_RING
        self._due = 0
        self._moved = 0

    def reset(self) -> None:
        """Forgets ring and copy."""
        if self._timer is not None:
            self._timer.cancel()
        self._epoch += 1
        self._clear()

    def wake(self, tail: int) -> None:
        """Looks for work, unless it works or has stopped."""
        if self.busy or self.stopped:
            return
        address, size = self._ports.ring(self._number)
        self._base, self._size = (address, size) if size else (0, DEFAULT_RING)
        if self._size & (self._size - 1) or not 2 <= self._size <= MAX_RING or self._base % DESCRIPTOR_BYTES:
            self._stop("the ring is malformed", address=hex(address), size=size)
            return
        if tail >= self._size:
            raise OutOfRange(
                f"The tail {tail} of queue {self._number} is outside its ring of {self._size} descriptors.",
                reason="TAIL_OUTSIDE_RING",
                next_step="Give the index behind the last descriptor that is ready, modulo the ring's size.",
            )
        self._next()

    def _next(self) -> None:
        """Takes the next descriptor, or sleeps."""
        tail = self._ports.tail(self._number)
        while tail == self.head:
            self.busy = False
            if not self._ports.sleep(self._number):
                return
            tail = self._ports.tail(self._number)
        if tail >= self._size:
            self._stop("the tail is outside the ring", tail=tail, size=self._size)
            return
        self.busy = True
        self._due = max(self._due, self._ports.now_ns()) + FETCH_NS
        self._timer = self._ports.call_at(self._due, self._resume(self._epoch, self._fetch))

    def _resume(self, epoch: int, step: _Step) -> _Step:
        """Returns a step that does nothing after a reset."""

        def go_on() -> None:
            if epoch == self._epoch:
                self._attempt(step)

        return go_on

    def _attempt(self, step: _Step) -> None:
        """Does a step; one that needs a page is done again when its owner has answered."""
        try:
            step()
        except PageNeeded as needed:
            needed.then(self._resume(self._epoch, step))
        except DmaRefused as refused:
            told = self._tell(refused)
            self._stop("a transfer was refused", iova=hex(refused.iova), outcome=refused.outcome.name, told=told)

    def _tell(self, refused: DmaRefused) -> bool:
        """Writes a refusal into the descriptor; returns False where that is refused as well."""
        try:
            self._put_status(REFUSED | refused.outcome << 8)
        except (DmaRefused, PageNeeded):
            return False
        return True

    def _fetch(self) -> None:
        data = self._ports.dma.read(self._place, _DESCRIPTOR.size, queue=self._number)
        self._control, self._bytes, self._source, self._destination = _DESCRIPTOR.unpack(data)
        self._moved = 0
        if not 1 <= self._bytes <= MAX_TRANSFER or self._control >> 24 not in (COPY, FILL):
            self._put_status(REFUSED | MALFORMED << 8)
            self._stop("a descriptor is malformed", head=self.head, control=hex(self._control), size=self._bytes)
            return
        self._move()

    def _move(self) -> None:
        """Moves the bursts whose time has come."""
        for _ in range(_MOST_BURSTS):
            if self._moved == self._bytes:
                self._finish()
                return
            if self._due > self._ports.now_ns():
                break
            size = min(BURST, self._bytes - self._moved)
            self._burst(size)
            self._moved += size
            self._due += -(-size // BYTES_PER_NS)
        self._timer = self._ports.call_at(self._due, self._resume(self._epoch, self._move))

    def _burst(self, size: int) -> None:
        dma, target = self._ports.dma, self._destination + self._moved
        if self._control >> 24 == FILL:
            pattern = self._source.to_bytes(8, "little") * (size // 8 + 1)
            dma.write(target, pattern[:size], queue=self._number)
            return
        dma.check(target, size, True, queue=self._number)
        dma.write(target, dma.read(self._source + self._moved, size, queue=self._number), queue=self._number)

    def _finish(self) -> None:
        self._put_status(DONE)
        self.head = (self.head + 1) & (self._size - 1)
        self._ports.set_head(self._number, self.head)
        if self._control & INTERRUPT:
            self._ports.interrupt(self._number, self._number)
        self._next()

    def _put_status(self, status: int) -> None:
        data = _STATUS.pack(status, self._moved)
        self._ports.dma.write(self._place + _STATUS_PLACE, data, queue=self._number)

    def _stop(self, why: str, **inputs: object) -> None:
        if not self.stopped:
            self.stopped = True
            self._ports.record("queue.stopped", rule=why, queue=self._number, **inputs)
        self.busy = False

    @property
    def _place(self) -> int:
        return self._base + DESCRIPTOR_BYTES * self.head
