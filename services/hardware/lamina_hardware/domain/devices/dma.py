"""DMA: how a device reaches memory, and how it is refused. Pure.

    device ── read(iova, size) ──► DmaPort ── reach ──► IOMMU: (physical address, bytes), …  ──► memory
                                      │
                                      ├─ DmaRefused    an address is not allowed: nothing moved, it is logged
                                      └─ PageNeeded    the domain's owner is asked for a page: call again afterwards

Every address of a transfer is translated and checked before its first byte moves. What a device writes goes through
the memory bus, which feeds logs of dirty frames and drops translated code as for any other writer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

PIECES = list[tuple[int, int]]
"""Physical address and bytes of each piece of a transfer, in its order."""

MAX_TRANSFER = 1 << 20
"""Most bytes of one transfer."""


class DmaOutcome(enum.IntEnum):
    """How the translation of a transfer ends; the numbers are those of the contract."""

    TRANSLATED = 1
    NO_DOMAIN = 2
    NOT_PRESENT = 3
    NO_RIGHT = 4
    MALFORMED_ENTRY = 5
    ADDRESS_TOO_WIDE = 6
    PAGE_REQUEST_FAILED = 7


class DmaRefused(Exception):
    """A transfer was refused at `iova`; nothing of it moved. `entry` is the table entry that decided, 0 without one."""

    def __init__(self, iova: int, write: bool, outcome: DmaOutcome, entry: int = 0) -> None:
        super().__init__(f"{'write' if write else 'read'} at {iova:#x}: {outcome.name}")
        self.iova = iova
        self.write = write
        self.outcome = outcome
        self.entry = entry


class PageNeeded(Exception):
    """A page of a transfer is not there yet; its owner was asked. Nothing moved.

    Whoever wants the transfer hands `then` a function, which is called once the owner has answered, or has not in
    time; and does the transfer again from its begin. It is then carried out, or refused.
    """

    def __init__(self, iova: int, write: bool, then: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(f"page of {iova:#x}")
        self.iova = iova
        self.write = write
        self.then = then


class Physical(Protocol):
    """Physical memory: RAM, and DMA memory beyond it. Who asks for bytes that are neither gets `OutOfRange`."""

    def contains(self, pa: int, n: int) -> bool:
        """Returns whether `n` bytes at `pa` exist, all RAM or all DMA memory."""
        ...

    def is_dma(self, pa: int) -> bool:
        """Returns whether an address is beyond RAM, in DMA memory."""
        ...

    def read(self, pa: int, n: int) -> bytes:
        """Returns bytes."""
        ...

    def write(self, pa: int, data: bytes) -> None:
        """Stores bytes, marks their frames as written and translated code of them as stale."""
        ...

    def load64(self, pa: int) -> int:
        """Returns an aligned word."""
        ...

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Exchanges an aligned word when `expected` is there; returns what was there."""
        ...

    def take64(self, pa: int, count: int) -> list[int]:
        """Replaces aligned words with zeros, each atomically; returns what was there."""
        ...


@dataclass(slots=True)
class Transfer:
    """What a device asks for: `size` bytes at `iova`, on behalf of one of its queues."""

    iova: int
    size: int
    write: bool
    queue: int = 0


Reach = Callable[[Transfer], PIECES]
"""Translates a transfer of one device; raises `DmaRefused` or `PageNeeded`."""


class DmaPort:
    """The way of one device to memory. Sizes are 1 byte to 1 MiB; `queue` says for whom, in faults that are told."""

    def __init__(self, memory: Physical, reach: Reach) -> None:
        self._memory = memory
        self._reach = reach

    def read(self, iova: int, size: int, *, queue: int = 0) -> bytes:
        """Returns `size` bytes. Raises `DmaRefused` or `PageNeeded`."""
        pieces = self._reach(Transfer(iova, size, False, queue))
        if len(pieces) == 1:
            return self._memory.read(*pieces[0])
        return b"".join([self._memory.read(pa, n) for pa, n in pieces])

    def write(self, iova: int, data: bytes, *, queue: int = 0) -> None:
        """Stores `data`. Raises `DmaRefused` or `PageNeeded`; nothing is stored then."""
        done = 0
        for pa, n in self._reach(Transfer(iova, len(data), True, queue)):
            self._memory.write(pa, data[done : done + n])
            done += n

    def check(self, iova: int, size: int, write: bool, *, queue: int = 0) -> None:
        """Translates without moving anything, so that a device can be refused before it has begun. Raises likewise."""
        self._reach(Transfer(iova, size, write, queue))
