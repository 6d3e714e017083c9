"""The two rings of one queue pair as the driver keeps them, in memory that the NIC reads and writes by DMA.

Pure: memory is handed in. What the NIC wrote is not trusted: lengths are checked against the buffers, frames against
the longest that a switch has, and no answer makes the driver look further than its rings.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from lamina_vswitch.domain.frames.header import MAX_FRAME_BYTES
from lamina_vswitch.domain.uplink.nic import descriptors
from lamina_vswitch.domain.uplink.nic.descriptors import BYTES, Work

MOST_PIECE_BYTES = 0x8000
"""Bytes of one transmit buffer; a longer frame lies in several."""


class Memory(Protocol):
    """DMA memory, by offset."""

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of so many bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""


class ReceiveRing:
    """Descriptors at `ring`, each with a buffer of its own behind `buffers`; `address` is the DMA address of offset 0.

    `tail` is for the NIC: the descriptor behind the last that it may use. One is always ours, so that a full ring
    is not taken for an empty one.
    """

    def __init__(self, memory: Memory, address: int, ring: int, buffers: int, count: int, buffer_bytes: int) -> None:
        self._memory, self._address = memory, address
        self._ring, self._buffers = ring, buffers
        self._count, self._buffer_bytes = count, buffer_bytes
        self._next = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._bad = False
        self.tail = count - 1
        for at in range(count):
            self._give(at)

    def take(self) -> tuple[list[bytes], list[bytes]]:
        """Return frames that came, at most a ring full, and heads of what is no frame; their buffers are given back."""
        good: list[bytes] = []
        bad: list[bytes] = []
        for _ in range(self._count):
            at = self._next
            done, last, length = descriptors.received(self._memory.read(self._ring + at * BYTES, BYTES))
            if not done:
                break
            self._add(at, length)
            self._give(at)
            self._next = (at + 1) % self._count
            self.tail = (self.tail + 1) % self._count
            if last:
                (bad if self._bad else good).append(b"".join(self._parts))
                self._parts, self._size, self._bad = [], 0, False
        return good, bad

    def _add(self, at: int, length: int) -> None:
        """Add what lies in a buffer to the frame in the making; one that cannot be right keeps its head alone."""
        self._size += length
        if length > self._buffer_bytes or not length or self._size > MAX_FRAME_BYTES:
            self._bad = True
        if not self._bad or not self._parts:
            size = min(length, self._buffer_bytes)
            self._parts.append(self._memory.read(self._buffers + at * self._buffer_bytes, size))

    def _give(self, at: int) -> None:
        address = self._address + self._buffers + at * self._buffer_bytes
        self._memory.write(self._ring + at * BYTES, descriptors.given(address))


class TransmitRing:
    """Descriptors at `ring`, and `size` bytes at `buffers` in which the frames under way lie one behind the other."""

    def __init__(self, memory: Memory, address: int, ring: int, buffers: int, count: int, size: int) -> None:
        self._memory, self._address = memory, address
        self._ring, self._buffers = ring, buffers
        self._count, self._size = count, size
        self._used = 0
        self._end = 0
        self._under_way: deque[tuple[int, int, int]] = deque()
        """Last descriptor, how many, and where the bytes begin, of each frame that was not reported yet."""
        self.taken = 0
        """Frames that were put here."""
        self.tail = 0
        self.told = 0
        """The tail that the NIC was told last."""

    @property
    def under_way(self) -> int:
        """Frames that the NIC has not reported yet."""
        return len(self._under_way)

    def put(self, frame: bytes, work: Work | None) -> bool:
        """Put a frame with what is to be done to it behind the others; False: there is no room now."""
        pieces = max(1, -(-len(frame) // MOST_PIECE_BYTES))
        needed = pieces + (work is not None)
        place = self._place(len(frame))
        if self._used + needed >= self._count or place is None:
            self.reclaim()
            place = self._place(len(frame))
            if self._used + needed >= self._count or place is None:
                return False
        self._memory.write(self._buffers + place, frame)
        if work is not None:
            self._write(descriptors.context(work))
        for at in range(0, pieces * MOST_PIECE_BYTES, MOST_PIECE_BYTES):
            size = min(MOST_PIECE_BYTES, len(frame) - at)
            address = self._address + self._buffers + place + at
            self._write(descriptors.data(address, size, work, last=at + MOST_PIECE_BYTES >= len(frame)))
        self._under_way.append(((self.tail - 1) % self._count, needed, place))
        self._used += needed
        self.taken += 1
        self._end = place + len(frame)
        return True

    def reclaim(self) -> None:
        """Take back the descriptors and bytes of frames that the NIC reported."""
        while self._under_way:
            last, needed, _ = self._under_way[0]
            if not descriptors.sent(self._memory.read(self._ring + last * BYTES, BYTES)):
                return
            self._under_way.popleft()
            self._used -= needed

    def _place(self, size: int) -> int | None:
        """Return where so many bytes fit in one piece; None when they do not now."""
        if not self._under_way:
            return 0 if size <= self._size else None
        begin = self._under_way[0][2]
        if self._end > begin:
            if self._end + size <= self._size:
                return self._end
            return 0 if size < begin else None
        return self._end if self._end + size < begin else None

    def _write(self, raw: bytes) -> None:
        self._memory.write(self._ring + self.tail * BYTES, raw)
        self.tail = (self.tail + 1) % self._count
