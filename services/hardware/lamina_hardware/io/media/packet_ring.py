"""The ring of a packet socket: frames that came in, in memory that the kernel and this process share.

    kernel: copies a frame into a slot, status USER  ─►  reader: takes it, status KERNEL

Version 2: each frame is shown at once (version 3 hands over blocks, after a timer). ADR 0028.

Source: Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h, net/packet/af_packet.c of Linux 6.18.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina_hardware.domain.nic.completion import HEADER, NEEDS_SUM

SOL_PACKET = 263
_RX_RING, _VERSION = 5, 10
_TPACKET_V2 = 1
_RING = struct.Struct("=IIII")
"""Bytes of a block, blocks, bytes of a slot, slots."""

_BLOCK, _BLOCKS = 256 << 10, 16
_SLOT_UNIT = 512
_FRAME_HEADER = struct.Struct("=IIIHHIIHH4x")
"""tpacket2_hdr: status, length, bytes here, where the frame and its network header begin, s, ns, tag, tag protocol."""
_FRAME_BEGIN = struct.Struct("=IIIH")

_PACKET_TYPE = 32 + 10
"""Where the kind of packet lies in a slot: in the sockaddr_ll behind the header."""

_HEADROOM = 128
"""More than tpacket2_hdr, sockaddr_ll, their alignment and the virtio-net header before a frame."""

_USER, _COPIED, _VLAN_VALID, _TPID_VALID = 1, 2, 1 << 4, 1 << 6
_TOLD = _COPIED | _VLAN_VALID
_OUTGOING = 4
_OFFLOADS = HEADER.size
_CUSTOMER_TAG = 0x8100
_KERNEL = 0


@dataclass(slots=True)
class Arrived:
    """A frame with which something is left to do, as the kernel left it: cut to its slot if `length` is more.

    `offloads` is its virtio-net header; `tag` the VLAN tag that was taken off, with its protocol, empty for none;
    `is_copied` says that the socket's queue has it whole.
    """

    data: bytes
    length: int
    offloads: bytes
    tag: bytes
    is_copied: bool


class ReceiveRing:
    """What came in. Frames that this host sent are passed over."""

    def __init__(self, end: socket.socket, most_frame: int) -> None:
        slot = -(-(most_frame + _HEADROOM) // _SLOT_UNIT) * _SLOT_UNIT
        in_block = _BLOCK // slot
        end.setsockopt(SOL_PACKET, _VERSION, _TPACKET_V2)
        end.setsockopt(SOL_PACKET, _RX_RING, _RING.pack(_BLOCK, _BLOCKS, slot, in_block * _BLOCKS))
        self._memory = mmap.mmap(end.fileno(), _BLOCK * _BLOCKS, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._memory).cast("I")  # a status is stored and loaded as one word
        self._places = [block * _BLOCK + n * slot for block in range(_BLOCKS) for n in range(in_block)]
        self._next = 0

    def take(self, most: int, finish: Callable[[Arrived], Sequence[bytes]]) -> tuple[list[bytes], int]:
        """Returns the frames of at most `most` slots, and how many slots that were.

        Almost all frames are as they were on the cable; `finish` makes frames of the others.
        """
        at, taken, places = self._next, 0, self._places
        words, memory, unpack = self._words, self._memory, _FRAME_BEGIN.unpack_from
        frames: list[bytes] = []
        while taken < most:
            place = places[at]
            word = place >> 2
            status = words[word]
            if not status & _USER:
                break
            _, length, here, begin = unpack(memory, place)
            first = place + begin
            if memory[place + _PACKET_TYPE] != _OUTGOING:
                left = memory[first - _OFFLOADS] & NEEDS_SUM or memory[first - _OFFLOADS + 1]
                if left or here != length or status & _TOLD:
                    frames += finish(self._arrived(place, first, here))
                else:
                    frames.append(memory[first : first + here])
            words[word] = _KERNEL
            taken += 1
            at = at + 1 if at + 1 < len(places) else 0
        self._next = at
        return frames, taken

    def _arrived(self, place: int, first: int, here: int) -> Arrived:
        memory = self._memory
        status, length, _, _, _, _, _, tci, protocol = _FRAME_HEADER.unpack_from(memory, place)
        tag = b""
        if status & _VLAN_VALID:
            tag = struct.pack(">HH", protocol if status & _TPID_VALID else _CUSTOMER_TAG, tci)
        offloads = memory[first - _OFFLOADS : first]
        return Arrived(memory[first : first + here], length, offloads, tag, bool(status & _COPIED))

    def close(self) -> None:
        """Gives the memory back. Idempotent."""
        self._words.release()
        self._memory.close()
