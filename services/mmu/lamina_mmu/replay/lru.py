"""Least recently used, compiled, and exact.

No list: each access is written into a ring (the page, by sequence number), and each page keeps the number of its last
entry. The oldest entry that is still its page's last is the victim. So a hit costs two writes, one of them in order;
entries that are out of date are passed over once. A full ring is packed, which costs as much as the entries before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.native import (
    ROWS,
    U32,
    Word,
    add_num,
    compiled,
    get,
    i64,
    low32,
    num,
    put,
    set_num,
    set_word,
    void,
    word,
)
from lamina_mmu.replay.reasons import LEAST_RECENT
from lamina_mmu.replay.state import (
    DIRTY,
    EVICTIONS,
    FLAGS,
    FRAMES,
    HEAD,
    LOG_COUNT,
    MISSES,
    OWN,
    REASON,
    RESIDENT,
    RING_AT,
    RING_SIZE,
    TAIL,
    USED,
    WRITE_BACKS,
    PolicyState,
)


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


@compiled(void(i64, U32, i64, ROWS))
def run(block: Word, accesses: Any, position: Word, log: Any) -> None:
    """Runs accesses that the policy sees one by one: `passes.run` for this policy, with its numbers at hand.

    A page that went keeps the number of an entry that is gone, so no entry counts but a resident page's last.
    """
    ring, size = num(block, RING_AT), num(block, RING_SIZE)
    mask = size - 1
    head, tail = num(block, HEAD), num(block, TAIL)
    frames, used = num(block, FRAMES), num(block, USED)
    misses = evictions = written = rows = 0
    for at in range(accesses.size):
        access = np.int64(accesses[at])
        node = access >> 1
        flags = get(block, node, FLAGS)
        if flags & RESIDENT:
            if access & 1:
                put(block, node, FLAGS, flags | DIRTY)
        else:
            misses += 1
            if used < frames:
                used += 1
            else:
                victim = word(ring, tail & mask)
                while get(block, victim, OWN) != low32(tail):
                    tail += 1
                    victim = word(ring, tail & mask)
                tail += 1
                left = get(block, victim, FLAGS)
                put(block, victim, FLAGS, left & ~(RESIDENT | DIRTY))
                written += (left & DIRTY) >> 1
                evictions += 1
                if rows < log.shape[0]:
                    log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = position + at, victim, LEAST_RECENT, 0
                    rows += 1
            put(block, node, FLAGS, flags | RESIDENT | (DIRTY * (access & 1)))
        if head - tail == size:
            set_num(block, HEAD, head)
            set_num(block, TAIL, tail)
            pack(block, ring, size)
            head, tail = num(block, HEAD), num(block, TAIL)
        set_word(ring, head & mask, node)
        put(block, node, OWN, head)
        head += 1
    set_num(block, HEAD, head)
    set_num(block, TAIL, tail)
    set_num(block, USED, used)
    add_num(block, MISSES, misses)
    add_num(block, EVICTIONS, evictions)
    add_num(block, WRITE_BACKS, written)
    set_num(block, LOG_COUNT, rows)


def make_room(state: PolicyState, nodes: int, frames: int) -> None:
    """Sees to a ring of at least twice as many words as pages may be resident."""
    wanted = 1 << (2 * min(frames, nodes) + 1024).bit_length()
    if wanted > state.ring.size:
        ring = np.zeros(wanted, np.int32)
        pack(state.address, ring.ctypes.data, wanted)
        state.replace_ring(ring)
