"""What a NIC may have from outside: its DMA, its interrupts, its wire, and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class NicPorts(Protocol):
    """The machine around one NIC. Nothing of it calls back into the NIC before it returns."""

    def read(self, iova: int, size: int, queue: int) -> bytes:
        """Reads memory by DMA. Raises `DmaRefused` or `PageNeeded`; then nothing was read."""
        ...

    def write(self, iova: int, data: bytes, queue: int) -> None:
        """Writes memory by DMA. Raises `DmaRefused` or `PageNeeded`; then nothing was written."""
        ...

    def check(self, iova: int, size: int, queue: int) -> None:
        """Does as `write` does, but for the writing."""
        ...

    def interrupt(self, vector: int, queue: int) -> None:
        """Raises a vector of the device for a queue."""
        ...

    def tail(self, queue: int) -> int:
        """Returns the driver's index of a queue: hostile."""
        ...

    def sleep(self, queue: int) -> bool:
        """Asks for a doorbell; returns false when the tail has moved meanwhile: then nobody will ring."""
        ...

    def publish(self, queue: int, head: int) -> None:
        """Shows how far the NIC is in a queue."""
        ...

    def send(self, frames: Sequence[bytes]) -> None:
        """Puts frames on the wire, in order."""
        ...

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """Calls back once at a time, or soon when it has passed; never before this returns."""
        ...

    def stopped(self, queue: int, reason: str) -> None:
        """Hears that a queue stands still."""
        ...
