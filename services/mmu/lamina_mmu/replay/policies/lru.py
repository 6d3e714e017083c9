"""Least recently used, compiled, and exact.

No list but a ring of accesses (`ring.py`): the oldest entry that is still its page's last is the victim. So a hit costs
two writes, one of them in order; entries that are out of date are passed over once.
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
    DIRTY,
    EVICTIONS,
    FLAGS,
    FRAMES,
    HEAD,
    LOG_COUNT,
    MISSES,
    OWN,
    RESIDENT,
    RING_AT,
    RING_SIZE,
    TAIL,
    USED,
    WRITE_BACKS,
)
from lamina_mmu.replay.policies.eviction_reasons import LEAST_RECENT
from lamina_mmu.replay.policies.ring import pack


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
    last = accesses.size - 1
    for at in range(accesses.size):
        fetch(block, np.int64(accesses[min(at + AHEAD, last)]) >> 1)
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
                fetch(block, word(ring, (tail + AHEAD) & mask))
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
