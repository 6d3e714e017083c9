"""The receiving ring of a packet socket, version 3: blocks of frames in memory that the kernel and this process share.

    kernel: fills a block with frames; hands it over when it is full or old  ─►  reader: takes all, gives it back

    block     0  version, offset of private data · 8  status · 12  frames · 16  offset of the first frame
    frame     tpacket3_hdr: next, seconds, ns, bytes here, bytes on the wire, status, where the frame begins, where its
              network header does, hash, tag, tag protocol; behind it sockaddr_ll; right before the frame a vnet header

Source: Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h, net/packet/af_packet.c of Linux 6.18.
"""

from __future__ import annotations

import mmap
import socket
import struct

from lamina_vswitch.domain.backend.vnet import LAYOUT, from_kernel

SOL_PACKET = 263
_RX_RING, _VERSION = 5, 10
_TPACKET_V3 = 2
_REQUEST = struct.Struct("=IIIIIII")
"""Bytes of a block, blocks, bytes of a frame, frames, milliseconds until a block is old, private bytes, features."""

_BLOCK_HEAD = struct.Struct("=8xIII")
_FRAME = struct.Struct("=IIIIIIHHIIH")
_PACKET_TYPE = 48 + 10
_OUTGOING = 4
_USER, _KERNEL = 1, 0
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
_STATUS_AT = 8
_OLD_MS = 1
_LONGEST_BLOCK = 256 << 10
_FRAME_UNIT = 2048


class BlockRing:
    """What came in on an interface, in a ring of `ring_bytes`, 64 KiB to 64 MiB."""

    def __init__(self, end: socket.socket, ring_bytes: int) -> None:
        block = min(_LONGEST_BLOCK, ring_bytes // 2)
        block -= block % mmap.PAGESIZE
        count = max(ring_bytes // block, 1)
        frames = block * count // _FRAME_UNIT
        end.setsockopt(SOL_PACKET, _VERSION, _TPACKET_V3)
        end.setsockopt(SOL_PACKET, _RX_RING, _REQUEST.pack(block, count, _FRAME_UNIT, frames, _OLD_MS, 0, 0))
        self._memory = mmap.mmap(end.fileno(), block * count, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._memory).cast("I")  # a status is stored and loaded as one word
        self._block, self._count, self._next = block, count, 0

    def take(self, most_blocks: int) -> tuple[list[bytes], int]:
        """Return the frames of at most `most_blocks`, whole and with their loads, and how many were cut by the kernel.

        Frames that this machine sent are passed over.
        """
        frames: list[bytes] = []
        cut = 0
        for _ in range(most_blocks):
            place = self._next * self._block
            status, count, first = _BLOCK_HEAD.unpack_from(self._memory, place)
            if not status & _USER:
                break
            cut += self._take_block(place + first, count, frames)
            self._words[(place + _STATUS_AT) >> 2] = _KERNEL
            self._next = (self._next + 1) % self._count
        return frames, cut

    def _take_block(self, at: int, count: int, frames: list[bytes]) -> int:
        memory, cut = self._memory, 0
        for _ in range(count):
            step, _, _, here, length, status, begin, _, _, tag, protocol = _FRAME.unpack_from(memory, at)
            if memory[at + _PACKET_TYPE] != _OUTGOING:
                first = at + begin
                if here < length:
                    cut += 1
                else:
                    beside = b""
                    if status & _VLAN_VALID:
                        beside = struct.pack(">HH", protocol if status & _TPID_VALID else 0x8100, tag & 0xFFFF)
                    header = memory[first - LAYOUT.size : first]
                    frames.append(from_kernel(header, memory[first : first + here], beside))
            at += step
        return cut

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._words.release()
        self._memory.close()
