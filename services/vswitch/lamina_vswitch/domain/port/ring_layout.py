"""The file of a ring: where everything lies in memory that a switch and a device share (`PortRings.AttachRing`).

    file    0  8  magic `LAMRING1`
            8  4  layout version, 1
           12  4  queues, 1 to 16
           16  4  slots of a ring, a power of two, 64 to 65536
           20  4  bytes of a slot, a multiple of 64, 2048 to 65664
           24  4  offset of the first ring, a multiple of 4096
           28  4  bytes of a ring with its head, a multiple of 4096
    ring    0  4  producer index, counts up, wraps at 2^32; written by the producer
           64  4  consumer index; written by the consumer
          128  4  need_wakeup: 1 while the consumer sleeps; set by it, cleared by the producer before it rings
          192  8  frames dropped because the ring was full; written by the producer
         4096     slots: length (4), zero (12), offload header (20), zero (28 to offset 64), trace record (32),
                  zero (32 to offset 128), frame

Rings follow each other: queue 0 to the switch, queue 0 to the device, queue 1 to the switch, and so on. Little-endian.
Source: protos/lamina/vswitch/v1/rings.proto.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"LAMRING1"
VERSION = 1
PAGE = 4096
QUEUES = (1, 16)
SLOTS = (64, 1 << 16)
SLOT_BYTES = (2048, 65664)
SLOT_ALIGNMENT = 64

PRODUCER, CONSUMER, NEED_WAKEUP, DROPPED, FIRST_SLOT = 0, 64, 128, 192, PAGE
"""Offsets in a ring."""
LENGTH, OFFLOAD, RECORD, FRAME = 0, 16, 64, 128
"""Offsets in a slot."""
OFFLOAD_BYTES, RECORD_BYTES = 20, 32
INDEX_MASK = (1 << 32) - 1

_HEAD = struct.Struct("<8s6I")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a file of rings; within the ranges above, as `Geometry.fits` tells."""

    queues: int
    slots: int
    slot_bytes: int

    @property
    def fits(self) -> bool:
        """Whether a file may have these sizes."""
        return (
            QUEUES[0] <= self.queues <= QUEUES[1]
            and SLOTS[0] <= self.slots <= SLOTS[1]
            and self.slots & (self.slots - 1) == 0
            and SLOT_BYTES[0] <= self.slot_bytes <= SLOT_BYTES[1]
            and self.slot_bytes % SLOT_ALIGNMENT == 0
        )

    @property
    def ring_bytes(self) -> int:
        """Bytes of one ring with its head."""
        return FIRST_SLOT + -(-self.slots * self.slot_bytes // PAGE) * PAGE

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return PAGE + 2 * self.queues * self.ring_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of the longest frame that a slot takes."""
        return self.slot_bytes - FRAME

    def to_switch(self, queue: int) -> int:
        """Return the offset of the ring from the device to the switch."""
        return PAGE + 2 * queue * self.ring_bytes

    def to_device(self, queue: int) -> int:
        """Return the offset of the ring from the switch to the device."""
        return self.to_switch(queue) + self.ring_bytes

    def head(self) -> bytes:
        """Return the first 32 bytes of the file."""
        return _HEAD.pack(MAGIC, VERSION, self.queues, self.slots, self.slot_bytes, PAGE, self.ring_bytes)


def read_head(head: bytes) -> Geometry | None:
    """Return the sizes that the first 32 bytes of a file tell, or None when it is not a file of rings. Never raises."""
    if len(head) < _HEAD.size:
        return None
    magic, version, queues, slots, slot_bytes, first, ring_bytes = _HEAD.unpack_from(head)
    geometry = Geometry(queues, slots, slot_bytes)
    known = (magic, version, first) == (MAGIC, VERSION, PAGE) and geometry.fits
    return geometry if known and ring_bytes == geometry.ring_bytes else None
