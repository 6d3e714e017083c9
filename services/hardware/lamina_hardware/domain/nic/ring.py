"""One ring of descriptors: positions, and what became of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lamina_hardware.domain.nic import descriptors
from lamina_hardware.domain.nic.coalescing import Coalescer, Joined
from lamina_hardware.domain.nic.moderation import Moderation

RING_DMA_FAULT = "RING_DMA_FAULT"
TAIL_OUTSIDE_RING = "TAIL_OUTSIDE_RING"
DESCRIPTOR_MALFORMED = "DESCRIPTOR_MALFORMED"

LEAST_DESCRIPTORS, MOST_DESCRIPTORS, DESCRIPTOR_STEP = 8, 32768, 8
LEAST_BUFFER, MOST_BUFFER, BUFFER_STEP = 1024, 16384, 1024
RING_ALIGNMENT = 128
MOST_MODERATION_NS = 10_000_000
MOST_MODERATION_FRAMES = 65535


@dataclass(slots=True)
class Ring:
    """A ring of a NIC. The driver owns descriptors from head to tail on receive, the NIC those on transmit.

    `number` is 2n for receive queue n and 2n + 1 for transmit queue n; `buffer_bytes` is 0 for transmit.
    """

    number: int
    iova: int
    size: int
    buffer_bytes: int
    vector: int
    moderation: Moderation = field(default_factory=Moderation)
    coalescer: Coalescer = field(default_factory=Coalescer)
    context: descriptors.TransmitContext | None = None
    head: int = 0
    tail: int = 0
    stop_reason: str = ""
    parked: deque[Joined] = field(default_factory=deque)
    """Received frames that wait for a page of memory, and those behind them."""
    is_waiting: bool = False
    """Whether sending waits for a page of memory."""
    reports: int = 0
    """Descriptors written back since the driver was last told."""
    frames: int = 0
    bytes: int = 0
    empty: int = 0

    @property
    def is_receive(self) -> bool:
        """Whether frames come in by this ring."""
        return self.number % 2 == 0

    @property
    def ready(self) -> int:
        """How many descriptors the driver has given and the NIC has not taken."""
        return (self.tail - self.head) % self.size

    @property
    def held_frames(self) -> int:
        """Received frames that are not in the ring yet: held back for joining, or waiting for a page."""
        return self.coalescer.held_frames + sum(joined.count for joined in self.parked)

    def address(self, index: int) -> int:
        """Returns the DMA address of a descriptor; `index` may be beyond the end, and wraps."""
        return self.iova + index % self.size * descriptors.BYTES

    def stretches(self, count: int) -> list[tuple[int, int]]:
        """Returns where the next `count` descriptors lie, as (address, how many), at most two."""
        until_end = self.size - self.head
        if count <= until_end:
            return [(self.address(self.head), count)]
        return [(self.address(self.head), until_end), (self.iova, count - until_end)]

    def advance(self, count: int) -> None:
        """Takes descriptors: the head moves."""
        self.head = (self.head + count) % self.size
