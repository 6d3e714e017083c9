"""The memory of one replayed policy: records, numbers, and how it grows with the pages seen.

    bytes 0…1151     records of lists 0 to 71: their heads and tails
    bytes 1152…1535  48 numbers of 64 bits
    from 1536 on     records of pages: nodes `FIRST`, `FIRST` + 1, …

A record has four words of 32 bits: the node below (towards the tail), the node above (towards the head), a word of the
policy's own, and flags.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from lamina_mmu.replay.memory.native import NUMBERS_AT

Array: TypeAlias = Any
"""A numpy array: of what, the text beside it says."""

LISTS = 72
"""Most lists of a policy; they are nodes 0 to 71."""
FIRST = 96
"""The first node that is a page."""
MAX_NODES = 1 << 31
"""Nodes are below this: an access is one word of 32 bits, with a bit for writes."""
BELOW, ABOVE, OWN, FLAGS = range(4)
"""Fields of a record."""
RECORD_BYTES = 16

RESIDENT, DIRTY, ACCESSED, REFERENCED, FRESH = 1, 2, 4, 8, 16
"""Flags: in a frame; written since it came; accessed since that was sampled; the policy's reference bit;
not sampled since it came."""
QUEUE_SHIFT = 5
"""The flags above hold the list that a page is in, for policies with several."""
LOW_FLAGS = (1 << QUEUE_SHIFT) - 1

FRAMES, USED, MISSES, EVICTIONS, WRITE_BACKS, TOUCHED, SINCE_SAMPLE, SAMPLE_EVERY, REASON, VALUE, LOG_COUNT = range(11)
"""Numbers that the pass keeps."""
TOUCHED_AT, RING_AT, RING_SIZE, MARKS_AT = 11, 12, 13, 14
"""Addresses of arrays beside the block, and the size of one."""
HEAD, TAIL, HAND, COUNT_A, COUNT_B, COUNT_C, COUNT_D, LIMIT_A, LIMIT_B, LIMIT_C, LIMIT_D, LIMIT_E, COMING, TARGET = (
    range(16, 30)
)
"""Numbers that are each policy's own."""

SAMPLED_AT_ONCE = 32
"""Most evictions between two samples of accessed bits: as many as the running MMU reclaims at once."""


class PolicyState:
    """The block of one policy, and the arrays beside it. `sampled`: it learns of accesses by accessed bits alone."""

    def __init__(self, frames: int, sampled: bool) -> None:
        self.block: Array = np.zeros(FIRST * RECORD_BYTES // 8, np.int64)
        self.touched: Array = np.zeros(1, np.int32)
        self.ring: Array = np.zeros(2, np.int32)
        self.marks: Array = np.zeros(1, np.uint64)
        self.sampled = sampled
        records = self.block.view(np.int32).reshape(-1, 4)
        for queue in range(LISTS):
            records[queue, BELOW] = records[queue, ABOVE] = queue
        self.set(FRAMES, frames)
        self.set(SAMPLE_EVERY, max(1, min(SAMPLED_AT_ONCE, frames // 16)) if sampled else 0)
        self._note_addresses()

    @property
    def address(self) -> int:
        """Returns the block's address, which compiled code takes. It changes when the state grows."""
        return int(self.block.ctypes.data)

    @property
    def size_bytes(self) -> int:
        """Returns the memory that this takes."""
        return int(self.block.nbytes + self.touched.nbytes + self.ring.nbytes + self.marks.nbytes)

    @property
    def nodes(self) -> int:
        """Returns how many nodes there is room for."""
        return int(self.block.size) * 8 // RECORD_BYTES

    def get(self, index: int) -> int:
        """Returns a number."""
        return int(self.block[NUMBERS_AT // 8 + index])

    def set(self, index: int, value: int) -> None:
        """Sets a number."""
        self.block[NUMBERS_AT // 8 + index] = value

    def grow(self, nodes: int) -> None:
        """Makes room for `nodes` nodes; what there was stays."""
        if nodes > self.nodes:
            self.block = longer(self.block, nodes * RECORD_BYTES // 8)
            if self.sampled:
                self.touched = longer(self.touched, nodes)
            self._note_addresses()

    def replace_ring(self, ring: Array) -> None:
        """Takes another array for the policy's own use (32-bit words)."""
        self.ring = ring
        self._note_addresses()

    def replace_marks(self, marks: Array) -> None:
        """Takes other marks of places in the ring (`marks.py`)."""
        self.marks = marks
        self._note_addresses()

    def _note_addresses(self) -> None:
        self.set(TOUCHED_AT, self.touched.ctypes.data)
        self.set(RING_AT, self.ring.ctypes.data)
        self.set(RING_SIZE, self.ring.size)
        self.set(MARKS_AT, self.marks.ctypes.data)


def longer(array: Array, size: int) -> Array:
    """Returns `array` with zeros behind it, `size` long in all."""
    result = np.zeros(size, array.dtype)
    result[: array.size] = array
    return result
