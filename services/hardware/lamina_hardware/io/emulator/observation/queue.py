"""What is kept of an observed context: the TLB that is counted, and a queue of accesses, as words for compiled code.

A core writes while the context runs; this side reads when it has stopped, before it runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamina_hardware.io.emulator.observation import layout as words

CAPACITY = 1 << 16
SLICE_INSTRUCTIONS = 8192
"""Most instructions of an observed context in one go: few enough that the queue holds what they do."""

_NO_ROOT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Accesses:
    """Accesses in the order of execution. `kinds` are `ACCESS_…`; `instructions` were retired before each; `lost` fell
    out behind the last."""

    addresses: NDArray[np.uint64]
    kinds: NDArray[np.uint8]
    instructions: NDArray[np.uint64]
    lost: int


class Observation:
    """One observed context. `entries` is a multiple of `ways`."""

    slice_instructions = SLICE_INSTRUCTIONS

    def __init__(self, entries: int, ways: int) -> None:
        self.entries, self.ways = entries, ways
        self._head = np.zeros(words.HEAD_WORDS, dtype=np.uint64)
        self._table = np.zeros(entries * words.ENTRY_WORDS, dtype=np.uint64)
        self._queue = np.zeros((CAPACITY, words.QUEUE_WORDS), dtype=np.uint64)
        for index, value in (
            (words.SETS, entries // ways),
            (words.WAYS, ways),
            (words.TABLE, self._table.ctypes.data),
            (words.QUEUE, self._queue.ctypes.data),
            (words.CAPACITY, CAPACITY),
            (words.ROOT, _NO_ROOT),
        ):
            self._head[index] = value
        self.address = int(self._head.ctypes.data)
        self.receivers: list[Callable[[Accesses], None]] = []

    def begin(self, instructions: int) -> None:
        """Prepares for a slice of a run before which the context had retired `instructions` less those of the run."""
        self._head[words.BASE] = instructions % (1 << 64)

    def settle(self) -> None:
        """Hands what a slice did to whoever watches, and empties the queue."""
        count, lost = int(self._head[words.COUNT]), int(self._head[words.LOST])
        self._head[words.COUNT] = self._head[words.LOST] = 0
        if self.receivers and (count or lost):
            part = self._queue[:count]
            found = Accesses(part[:, 0].copy(), part[:, 1].astype(np.uint8), part[:, 2].copy(), lost)
            for receive in list(self.receivers):
                receive(found)
