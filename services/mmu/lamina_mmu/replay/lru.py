"""Least recently used, compiled, and exact.

No list: each access is written into a ring (the page, by sequence number), and each page keeps the number of its last
entry. The oldest entry that is still its page's last is the victim. So a hit costs two writes, one of them in order;
entries that are out of date are passed over once. A full ring is packed, which costs as much as the entries before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.native import (
    I64,
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
    ACCESSED,
    DIRTY,
    EVICTIONS,
    FLAGS,
    FRAMES,
    FRESH,
    HEAD,
    LOG_COUNT,
    MISSES,
    OWN,
    REASON,
    RESIDENT,
    RING_AT,
    RING_SIZE,
    SAMPLE_EVERY,
    SINCE_SAMPLE,
    TAIL,
    TOUCHED,
    TOUCHED_AT,
    USED,
    WRITE_BACKS,
    PolicyState,
)

_FEW = 64
"""Fewer keys than these are sorted by insertion."""


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


@compiled(void(I64))
def _sort(keys: Any) -> None:
    """Sorts by insertion: a few keys, or keys that are almost in order."""
    for at in range(1, keys.size):
        key, place = keys[at], at
        while place and keys[place - 1] > key:
            keys[place] = keys[place - 1]
            place -= 1
        keys[place] = key


@compiled(void(i64))
def sample(block: Word) -> None:
    """Reads and clears all accessed bits, in the order of the list, and takes each as an access.

    Pages that came since the last sample were noted in the order of their coming, and stand behind all others (one that
    went and came again was noted too early): only the others have to be sorted in full.
    """
    noted, count, head = num(block, TOUCHED_AT), num(block, TOUCHED), num(block, HEAD)
    keys = np.empty(count, np.int64)
    old, new = 0, count
    for at in range(count - 1, -1, -1):
        node = word(noted, at)
        flags = get(block, node, FLAGS)
        put(block, node, FLAGS, flags & ~(ACCESSED | FRESH))
        if flags & RESIDENT:
            key = node - (((head - get(block, node, OWN)) & 0xFFFFFFFF) << 31)
            if flags & FRESH:
                new -= 1
                keys[new] = key
            else:
                keys[old] = key
                old += 1
    if old < _FEW:
        _sort(keys[:old])
    else:
        keys[:old].sort()
    _sort(keys[new:])
    set_num(block, TOUCHED, 0)
    for at in range(count):
        if at < old or at >= new:
            touch(block, keys[at] & 0x7FFFFFFF)


@compiled(i64(i64))
def _evict(block: Word) -> Word:
    """Takes the victim's frame; returns node · 2, + 1 when it is to be written back."""
    victim = choose(block)
    flags = get(block, victim, FLAGS)
    put(block, victim, FLAGS, flags & ~(RESIDENT | DIRTY))
    return victim << 1 | (flags & DIRTY) >> 1


@compiled(void(i64, U32, i64, i64, ROWS))
def run_sampled(block: Word, accesses: Any, position: Word, flush: Word, log: Any) -> None:
    """Runs accesses that the policy sees by accessed bits: `passes.run` for this policy, with its numbers at hand.

    `flush` is the page of a row that says that bits were cleared.
    """
    frames, used, touched = num(block, FRAMES), num(block, USED), num(block, TOUCHED)
    every, since, noted = num(block, SAMPLE_EVERY), num(block, SINCE_SAMPLE), num(block, TOUCHED_AT)
    misses = evictions = written = rows = 0
    for at in range(accesses.size):
        access = np.int64(accesses[at])
        node = access >> 1
        seen = ACCESSED | (DIRTY * (access & 1))
        if get(block, node, FLAGS) & RESIDENT == 0:
            misses += 1
            seen |= RESIDENT | FRESH
            if used < frames:
                used += 1
            else:
                if since == 0:
                    set_num(block, TOUCHED, touched)
                    sample(block)
                    touched = 0
                    if rows < log.shape[0]:
                        log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = position + at, flush, 0, 0
                        rows += 1
                since = since + 1 if since + 1 < every else 0
                gone = _evict(block)
                written += gone & 1
                evictions += 1
                if rows < log.shape[0]:
                    log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = position + at, gone >> 1, LEAST_RECENT, 0
                    rows += 1
            touch(block, node)
        flags = get(block, node, FLAGS)
        if flags & ACCESSED == 0:
            set_word(noted, touched, node)
            touched += 1
        if flags & seen != seen:
            put(block, node, FLAGS, flags | seen)
    for place, value in ((USED, used), (TOUCHED, touched), (SINCE_SAMPLE, since), (LOG_COUNT, rows)):
        set_num(block, place, value)
    add_num(block, MISSES, misses)
    add_num(block, EVICTIONS, evictions)
    add_num(block, WRITE_BACKS, written)


def make_room(state: PolicyState, nodes: int, frames: int) -> None:
    """Sees to a ring of at least twice as many words as pages may be resident."""
    wanted = 1 << (2 * min(frames, nodes) + 1024).bit_length()
    if wanted > state.ring.size:
        ring = np.zeros(wanted, np.int32)
        pack(state.address, ring.ctypes.data, wanted)
        state.replace_ring(ring)
