"""What /proc tells of the machine's memory: implements `domain.kernel.port.KernelMemory`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORD = 8


class ProcMemory:
    """Reads /proc. What a kernel, or a container, does not have reads as empty."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def text(self, name: str) -> str:
        """Returns a file of /proc; empty when there is none, or it may not be read."""
        try:
            return (self._proc / name).read_text()
        except OSError:
            return ""

    def words(self, name: str, first: int, count: int) -> Sequence[int] | int:
        """Returns words of a file of numbers, from number `first`."""
        try:
            with (self._proc / name).open("rb", buffering=0) as file:
                found = os.pread(file.fileno(), count * WORD, first * WORD)
        except OverflowError:
            return []
        except OSError as error:
            return -(error.errno or errno.EIO)
        words: list[int] = np.frombuffer(found[: len(found) // WORD * WORD], "<u8").tolist()
        return words

    def compact(self) -> int:
        """Has the kernel compact all zones."""
        try:
            (self._proc / "sys/vm/compact_memory").write_text("1")
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0
