"""A ring of accesses, which is the order of `lru`, compiled.

Each access is written into the ring (the page, by sequence number), and each page keeps the number of its last entry.
An entry counts while it is its resident page's last; a full ring is packed, which costs as much as the entries before.
Where the policy sees accessed bits alone, the entries of pages whose bit is set are marked.
"""

from __future__ import annotations

import numpy as np

from lamina_mmu.replay.memory.native import Word, compiled, get, i64, low32, num, put, set_num, set_word, void, word
from lamina_mmu.replay.memory.state import (
    ACCESSED,
    FLAGS,
    FRESH,
    HEAD,
    MARKS_AT,
    OWN,
    RESIDENT,
    RING_AT,
    RING_SIZE,
    TAIL,
    PolicyState,
)
from lamina_mmu.replay.policies import marks


@compiled(void(i64, i64, i64))
def pack(block: Word, into: Word, size: Word) -> None:
    """Moves the entries that count into a ring of `size` words (this one, or a larger one), where they begin at 0."""
    ring, mask = num(block, RING_AT), num(block, RING_SIZE) - 1
    tail, head = num(block, TAIL), num(block, HEAD)
    kept = 0
    for at in range(tail, head):
        node = word(ring, at & mask)
        if get(block, node, FLAGS) & RESIDENT and get(block, node, OWN) == low32(at):
            set_word(ring, (tail + kept) & mask, node)
            kept += 1
    first = tail & mask
    if into != ring:
        for at in range(kept):
            set_word(into, at, word(ring, (tail + at) & mask))
        first = 0
    for at in range(kept):
        put(block, word(into, (first + at) & (size - 1)), OWN, first + at)
    set_num(block, TAIL, first)
    set_num(block, HEAD, first + kept)


@compiled(void(i64))
def mark_all(block: Word) -> None:
    """Marks the entries of pages whose accessed bit is set, in a ring that was packed; no mark is set."""
    ring, size, at_marks = num(block, RING_AT), num(block, RING_SIZE), num(block, MARKS_AT)
    for at in range(num(block, TAIL), num(block, HEAD)):
        place = at & (size - 1)
        flags = get(block, word(ring, place), FLAGS)
        marks.mark(at_marks, size, place, np.uint64(flags & (ACCESSED | FRESH) == ACCESSED))


def make_room(state: PolicyState, nodes: int, frames: int) -> None:
    """Sees to a ring of at least twice as many words as pages may be resident."""
    wanted = 1 << (2 * min(frames, nodes) + 1024).bit_length()
    if wanted > state.ring.size:
        ring = np.zeros(wanted, np.int32)
        pack(state.address, ring.ctypes.data, wanted)
        state.replace_ring(ring)
        if state.sampled:
            state.replace_marks(marks.words_of(wanted))
            mark_all(state.address)
