"""Least recently used by accessed bits, compiled: what `lru` is where a walk sets a bit and nobody sees more.

The order is the ring of `ring.py`, its newest entries those of the pages that came since the last sample. An access to
another page sets its accessed bit and marks its entry. A sample clears the bits: marked pages move, in their order,
between the pages that were not used and those that are new. A page that came is not a victim before it was sampled:
there are at most a sixteenth as many evictions between two samples as there are frames, or a sample ahead of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.native import (
    AHEAD,
    ROWS,
    U32,
    Word,
    add_num,
    compiled,
    fetch,
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
from lamina_mmu.replay.memory.state import (
    ACCESSED,
    COUNT_A,
    DIRTY,
    EVICTIONS,
    FLAGS,
    FRAMES,
    FRESH,
    HEAD,
    LOG_COUNT,
    MARKS_AT,
    MISSES,
    OWN,
    RESIDENT,
    RING_AT,
    RING_SIZE,
    SAMPLE_EVERY,
    SAMPLED_AT_ONCE,
    SINCE_SAMPLE,
    TAIL,
    TOUCHED_AT,
    USED,
    WRITE_BACKS,
)
from lamina_mmu.replay.policies import marks
from lamina_mmu.replay.policies.eviction_reasons import LEAST_RECENT
from lamina_mmu.replay.policies.ring import pack

_NEW = COUNT_A
"""How many pages came since the last sample."""


@compiled(void(i64))
def sample(block: Word) -> None:
    """Reads and clears all accessed bits, in the order of the list, and takes each as an access."""
    ring, size, seen = num(block, RING_AT), num(block, RING_SIZE), num(block, TOUCHED_AT)
    mask, tail = size - 1, num(block, TAIL)
    found = marks.take(num(block, MARKS_AT), size, ring, tail & mask, seen)
    count, turn, new = found >> 32, found & 0xFFFFFFFF, num(block, _NEW)
    if num(block, HEAD) + count + SAMPLED_AT_ONCE - tail > size:
        pack(block, ring, size)
    head = num(block, HEAD)
    for at in range(head - 1, head - 1 - new, -1):
        node = word(ring, at & mask)
        set_word(ring, (at + count) & mask, node)
        put(block, node, OWN, at + count)
        put(block, node, FLAGS, get(block, node, FLAGS) & ~(ACCESSED | FRESH))
    for at in range(count):
        turn = turn if turn < count else 0
        node = word(seen, turn)
        turn += 1
        set_word(ring, (head - new + at) & mask, node)
        put(block, node, OWN, head - new + at)
        put(block, node, FLAGS, get(block, node, FLAGS) & ~ACCESSED)
    set_num(block, HEAD, head + count)
    set_num(block, _NEW, 0)


@compiled(void(i64, U32, i64, i64, ROWS))
def run(block: Word, accesses: Any, position: Word, flush: Word, log: Any) -> None:
    """Runs accesses: `passes.run` for this policy, with its numbers at hand.

    `flush` is the page of a row that says that bits were cleared.
    """
    ring, size, at_marks = num(block, RING_AT), num(block, RING_SIZE), num(block, MARKS_AT)
    mask, last = size - 1, accesses.size - 1
    head, tail, new = num(block, HEAD), num(block, TAIL), num(block, _NEW)
    frames, used = num(block, FRAMES), num(block, USED)
    every, since = num(block, SAMPLE_EVERY), num(block, SINCE_SAMPLE)
    misses = evictions = written = rows = 0
    for at in range(accesses.size):
        fetch(block, np.int64(accesses[min(at + AHEAD, last)]) >> 1)
        access = np.int64(accesses[at])
        node = access >> 1
        flags = get(block, node, FLAGS)
        if flags & RESIDENT:
            place = get(block, node, OWN) & mask
            put(block, node, FLAGS, flags | ACCESSED | DIRTY * (access & 1))
            marks.mark(at_marks, size, place, np.uint64(flags & FRESH == 0))
            continue
        misses += 1
        if used < frames:
            used += 1
        else:
            if since == 0:
                set_num(block, HEAD, head)
                set_num(block, TAIL, tail)
                set_num(block, _NEW, new)
                sample(block)
                head, tail, new = num(block, HEAD), num(block, TAIL), 0
                if rows < log.shape[0]:
                    log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = position + at, flush, 0, 0
                    rows += 1
            since = since + 1 if since + 1 < every else 0
            victim = word(ring, tail & mask)
            while get(block, victim, OWN) != low32(tail):
                tail += 1
                victim = word(ring, tail & mask)
            marks.unmark(at_marks, tail & mask)
            tail += 1
            fetch(block, word(ring, (tail + AHEAD) & mask))
            left = get(block, victim, FLAGS)
            put(block, victim, FLAGS, left & ~(RESIDENT | DIRTY | ACCESSED))
            written += (left & DIRTY) >> 1
            evictions += 1
            if rows < log.shape[0]:
                log[rows, 0], log[rows, 1], log[rows, 2], log[rows, 3] = position + at, victim, LEAST_RECENT, 0
                rows += 1
        set_word(ring, head & mask, node)
        put(block, node, OWN, head)
        put(block, node, FLAGS, RESIDENT | ACCESSED | FRESH | DIRTY * (access & 1))
        head += 1
        new += 1
    for place, value in ((HEAD, head), (TAIL, tail), (_NEW, new), (USED, used), (SINCE_SAMPLE, since)):
        set_num(block, place, value)
    set_num(block, LOG_COUNT, rows)
    add_num(block, MISSES, misses)
    add_num(block, EVICTIONS, evictions)
    add_num(block, WRITE_BACKS, written)
