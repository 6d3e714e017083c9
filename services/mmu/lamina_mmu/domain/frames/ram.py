"""The port through which the MMU sees RAM. `lamina_kit.bus.memory.MemoryBus` fits it; tests may give another. Pure."""

from __future__ import annotations

from typing import Protocol


class Ram(Protocol):
    """The RAM of a host, in bytes, 8-byte words and 4 KiB frames.

    Every write marks what the memory bus marks (dirty log, stale code). Addresses outside RAM raise `OutOfRange`.
    """

    frames: int
    """Number of frames."""

    def read(self, pa: int, n: int, /) -> bytes:
        """Returns a copy of `n` bytes at `pa`."""

    def write(self, pa: int, data: bytes | bytearray | memoryview, /) -> None:
        """Stores bytes at `pa`."""

    def view(self, pa: int, n: int, /) -> memoryview:
        """Returns a read-only view that changes as RAM changes."""

    def zero(self, frame: int, /) -> None:
        """Fills a frame with zeros."""

    def copy_frame(self, src: int, dst: int, /) -> None:
        """Copies one frame to another."""

    def load64(self, pa: int, /) -> int:
        """Returns the 8 bytes at `pa`, loaded undivided."""

    def cas64(self, pa: int, expected: int, new: int, /) -> int:
        """Stores `new` when `expected` is there; returns what was there."""

    def pins(self, frame: int, /) -> int:
        """Returns how many accesses in progress keep the frame in place."""

    def pinned_frames(self, first: int, count: int, /) -> list[int]:
        """Returns which of `count` frames from `first` have pins, ascending."""

    def pin(self, frame: int, /) -> None:
        """Keeps a frame in place until `unpin`; whoever pins it for ever gives it up. PIN_LIMIT at 65,535 pins."""

    def unpin(self, frame: int, /) -> None:
        """Takes a pin away."""
