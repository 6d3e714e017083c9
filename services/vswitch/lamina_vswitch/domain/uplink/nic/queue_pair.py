"""One queue pair of a NIC: frames that wait for the transmit ring, and both rings."""

from __future__ import annotations

from collections import deque

from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES
from lamina_vswitch.domain.uplink.nic.descriptors import Work
from lamina_vswitch.domain.uplink.nic.offloads import prepared
from lamina_vswitch.domain.uplink.nic.plan import (
    BUFFER_BYTES,
    RECEIVE_DESCRIPTORS,
    TRANSMIT_BYTES,
    TRANSMIT_DESCRIPTORS,
    Pair,
)
from lamina_vswitch.domain.uplink.nic.rings import Memory, ReceiveRing, TransmitRing

MOST_WAITING = 1024
"""Frames that wait while a transmit ring is full. The wire is slower than the switch then, and drops at the tail."""


class QueuePair:
    """Rings as `plan` laid them out; `address` is the DMA address of offset 0."""

    def __init__(self, memory: Memory, address: int, place: Pair) -> None:
        self.receive = ReceiveRing(
            memory, address, place.receive_ring, place.receive_buffers, RECEIVE_DESCRIPTORS, BUFFER_BYTES
        )
        self.transmit = TransmitRing(
            memory, address, place.transmit_ring, place.transmit_buffers, TRANSMIT_DESCRIPTORS, TRANSMIT_BYTES
        )
        self._waiting: deque[tuple[bytes, Work | None]] = deque()

    def send(self, frame: bytes, mtu_bytes: int) -> bool:
        """Put a frame into the ring, or behind those that wait; False: it is lost.

        A NIC stops at a frame that is longer than its MTU, so none is shown to it: the switch's MTU has just changed.
        """
        if len(self._waiting) >= MOST_WAITING:
            return False
        pieces = prepared(frame)
        longest = mtu_bytes + HEADER_BYTES + TAG_BYTES
        if any(_longest(piece, work) > longest for piece, work in pieces):
            return False
        self._waiting.extend(pieces)
        self.flush()
        return True

    @property
    def taken(self) -> int:
        """How many frames went into the ring so far, or wait for it."""
        return self.transmit.taken + len(self._waiting)

    @property
    def sent(self) -> int:
        """How many frames of those the NIC has sent."""
        return self.transmit.taken - self.transmit.under_way

    def flush(self) -> None:
        """Put into the ring what waits and fits."""
        while self._waiting and self.transmit.put(*self._waiting[0]):
            self._waiting.popleft()

    def withdraw(self) -> list[bytes]:
        """Return what waits, oldest first, and forget it."""
        frames = [frame for frame, _ in self._waiting]
        self._waiting.clear()
        return frames


def _longest(frame: bytes, work: Work | None) -> int:
    """Return how long the longest frame on the wire is that a send becomes."""
    return len(frame) if work is None or not work.mss else len(frame) - work.payload_bytes + work.mss
