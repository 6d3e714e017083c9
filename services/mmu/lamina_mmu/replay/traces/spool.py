"""A trace on disk, as access words, for what needs the future: read again forwards, with next uses, or backwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from lamina_kit.errors import ResourceExhausted
from lamina_mmu.replay.memory.state import Array

BLOCK = 1 << 16
"""Accesses of a block."""
BYTES_PER_ACCESS = 12
"""On disk: a word, and later the position of its page's next use."""


class Spool:
    """The words of one trace, and their next uses, in files without names: they go when the replay does."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._words: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`close` closes it)
        self._nexts: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`close` closes it)
        self._limit = limit_bytes
        self.accesses = 0

    def append(self, words: Array) -> None:
        """Writes words (u32). REPLAY_TOO_BIG beyond the limit, or when the disk is full."""
        if (self.accesses + words.size) * BYTES_PER_ACCESS > self._limit:
            raise ResourceExhausted(
                f"The replay keeps its trace on disk, and {self._limit} bytes are not enough for it.",
                reason="REPLAY_TOO_BIG",
                next_step="Leave out `opt`, explanations and curves of other policies than `lru`, or sample the trace.",
                limit_bytes=self._limit,
            )
        self._write(self._words, words)
        self.accesses += words.size

    def blocks(self) -> int:
        """Returns how many blocks there are."""
        return -(-self.accesses // BLOCK)

    def words(self, block: int) -> Array:
        """Returns the words of a block."""
        return self._read(self._words, block, np.uint32)

    def nexts(self, block: int) -> Array:
        """Returns the next uses of a block, once they were put there."""
        return self._read(self._nexts, block, np.int64)

    def put_nexts(self, block: int, nexts: Array) -> None:
        """Writes the next uses of a block."""
        self._nexts.seek(block * BLOCK * 8)
        self._write(self._nexts, nexts)

    def forwards(self) -> Iterator[tuple[int, Array]]:
        """Yields the position and the words of each block."""
        for block in range(self.blocks()):
            yield block * BLOCK, self.words(block)

    def close(self) -> None:
        """Gives the disk back. Idempotent."""
        self._words.close()
        self._nexts.close()

    def _write(self, file: IO[bytes], array: Array) -> None:
        try:
            file.write(array.tobytes())
        except OSError as error:
            raise ResourceExhausted(
                f"The replay keeps its trace on disk, and that is full: {error.strerror}.",
                reason="REPLAY_TOO_BIG",
                next_step="Free room where the MMU keeps its state, or leave out what needs the future.",
            ) from error

    def _read(self, file: IO[bytes], block: int, kind: type) -> Array:
        width = np.dtype(kind).itemsize
        file.seek(block * BLOCK * width)
        return np.frombuffer(bytearray(file.read(BLOCK * width)), kind)
