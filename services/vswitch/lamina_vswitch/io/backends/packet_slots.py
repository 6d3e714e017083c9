"""The receiving ring of a packet socket, version 2: slots in memory that the kernel and this process share.

    kernel: copies a frame into the next slot, hands it over  ─►  reader: takes it, gives the slot back

A frame is there the moment it came; blocks of version 3 hold frames back until they are full or a millisecond old. One
that is longer than a slot waits whole in the socket's queue, in the order of the ring, and its slot says so (COPY).

    slot      0  status · 4  bytes on the wire · 8  bytes here · 12  where the frame begins · 24  tag · 26  its type
              42  kind of packet, in a sockaddr_ll; right before the frame a vnet header

Source: Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h, net/packet/af_packet.c of Linux 6.18.
"""

from __future__ import annotations

import errno
import mmap
import socket
import struct

from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel
from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES

SOL_PACKET = 263
_RX_RING, _STATISTICS, _COPY_THRESHOLD, _VERSION = 5, 6, 7, 10
_TPACKET_V2 = 1
_REQUEST = struct.Struct("=IIII")
"""Bytes of a block, blocks, bytes of a slot, slots."""

_SLOT = struct.Struct("=IIIHH8xHH14xB")
_KERNEL, _USER, _COPY, _LOSING, _TAG_VALID, _TAG_TYPE_VALID = 0, 1, 2, 4, 1 << 4, 1 << 6
_OUTGOING = 4
_BLOCK_BYTES = 64 << 10
_HEAD_BYTES, _LEAST_SLOT, _LONGEST_SLOT = 128, 2048, 16384
_LONGEST = LAYOUT.size + 65535 + 18
_QUEUE_BYTES = 4 << 20
_RCVBUFFORCE, _TRIES = 33, 8


class SlotRing:
    """What came in on an interface, in a ring of `ring_bytes`, 64 KiB to 64 MiB; slots hold frames of the MTU."""

    def __init__(self, end: socket.socket, ring_bytes: int, mtu_bytes: int) -> None:
        self.slot_bytes = _LEAST_SLOT
        while self.slot_bytes < min(mtu_bytes + HEADER_BYTES + TAG_BYTES + _HEAD_BYTES, _LONGEST_SLOT):
            self.slot_bytes *= 2
        blocks = ring_bytes // _BLOCK_BYTES
        self.slots, self.next = blocks * (_BLOCK_BYTES // self.slot_bytes), 0
        self.error = self.walked = 0
        self._end = end
        end.setsockopt(SOL_PACKET, _VERSION, _TPACKET_V2)
        try:
            end.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE_BYTES)
        except PermissionError:  # as much as the machine lets anybody have, which may be three long frames
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        end.setsockopt(SOL_PACKET, _COPY_THRESHOLD, 1)
        end.setsockopt(SOL_PACKET, _RX_RING, _REQUEST.pack(_BLOCK_BYTES, blocks, self.slot_bytes, self.slots))
        size = _BLOCK_BYTES * blocks
        self.memory = mmap.mmap(end.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self.memory).cast("I")  # a status is stored and loaded as one word

    def take(self, most: int) -> tuple[list[bytes], int, bool]:
        """Return at most `most` frames, whole and with their loads, how many were cut, and whether some were lost.

        Frames that this machine sent are passed over. `error` is what the socket said meanwhile, 0 for nothing, and
        `walked` how many slots that took.
        """
        self.error = self.walked = 0
        frames: list[bytes] = []
        cut, has_lost = 0, False
        for _ in range(most):
            place = self.next * self.slot_bytes
            status, length, here, begin, _, tag, kind, packet = _SLOT.unpack_from(self.memory, place)
            if not status & _USER:
                break
            self.walked += 1
            has_lost = has_lost or bool(status & _LOSING)
            found = self._whole(place + begin, status, length, here)
            if found is None:
                cut += 1
            elif packet != _OUTGOING:
                beside = b""
                if status & _TAG_VALID:
                    beside = struct.pack(">HH", kind if status & _TAG_TYPE_VALID else 0x8100, tag)
                frames.append(from_kernel(found[: LAYOUT.size], found[LAYOUT.size :], beside))
            self._words[place >> 2] = _KERNEL
            self.next = (self.next + 1) % self.slots
        return frames, cut, has_lost

    def lost(self) -> int:
        """Return for how many frames there was no room, since the last time."""
        found: tuple[int, int] = struct.unpack("=II", self._end.getsockopt(SOL_PACKET, _STATISTICS, 8))
        return found[1]

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._words.release()
        self.memory.close()

    def _whole(self, begin: int, status: int, length: int, here: int) -> bytes | None:
        """Return a frame behind its header; None when the kernel cut it."""
        if status & _COPY:
            for _ in range(_TRIES):
                try:
                    return self._end.recv(_LONGEST)
                except BlockingIOError:
                    return None
                except OSError as error:  # told once, in the place of a frame, which is there still
                    self.error = error.errno or errno.EIO
            return None
        return self.memory[begin - LAYOUT.size : begin + here] if here == length else None
