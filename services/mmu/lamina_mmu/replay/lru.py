"""Least recently used, compiled, and exact.

No list: each access is written into a ring (the page, by sequence number), and each page keeps the number of its last
entry. The oldest entry that is still its page's last is the victim. So a hit costs two writes, one of them in order;
entries that are out of date are passed over once. A full ring is packed, which costs as much as the entries before.
"""

from __future__ import annotations

import numpy as np

from lamina_mmu.replay.native import Word, compiled, get, i64, low32, num, put, set_num, set_word, void, word
from lamina_mmu.replay.reasons import LEAST_RECENT
from lamina_mmu.replay.state import FLAGS, HEAD, OWN, REASON, RESIDENT, RING_AT, RING_SIZE, TAIL, PolicyState


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


@compiled(void(i64, i64))
def touch(block: Word, node: Word) -> None:
    """Makes a page the last to go, whether it comes or was there."""
    head = num(block, HEAD)
    size = num(block, RING_SIZE)
    if head - num(block, TAIL) == size:
        pack(block, num(block, RING_AT), size)
        head = num(block, HEAD)
    set_word(num(block, RING_AT), head & (size - 1), node)
    put(block, node, OWN, head)
    set_num(block, HEAD, head + 1)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    ring, mask = num(block, RING_AT), num(block, RING_SIZE) - 1
    tail = num(block, TAIL)
    while True:
        node = word(ring, tail & mask)
        if get(block, node, FLAGS) & RESIDENT and get(block, node, OWN) == low32(tail):
            break
        tail += 1
    set_num(block, TAIL, tail + 1)
    set_num(block, REASON, LEAST_RECENT)
    return node


def make_room(state: PolicyState, nodes: int, frames: int) -> None:
    """Sees to a ring of at least twice as many words as pages may be resident."""
    wanted = 1 << (2 * min(frames, nodes) + 1024).bit_length()
    if wanted > state.ring.size:
        ring = np.zeros(wanted, np.int32)
        pack(state.address, ring.ctypes.data, wanted)
        state.replace_ring(ring)
