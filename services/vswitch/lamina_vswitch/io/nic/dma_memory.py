"""DMA memory of the hardware below, as this process maps it."""

from __future__ import annotations

import mmap
from pathlib import Path


class DmaMemory:
    """DMA memory as this process maps it, by offset."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size, offset=offset)

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of so many bytes."""
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        self._map[offset : offset + len(data)] = data

    def close(self) -> None:
        """End the mapping."""
        self._map.close()
