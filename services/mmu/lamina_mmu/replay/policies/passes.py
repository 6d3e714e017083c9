"""One pass of accesses through one policy, compiled.

    access ─▶ resident? ─yes─▶ the policy's `hit` (or, sampled, its accessed bit)
                  └──no──▶ `missed` ─▶ frames left? ─no─▶ sample when due ─▶ `choose` a victim ─▶ `admit`

An access is a word: node · 2, + 1 for a write. Policies are numbers here, so that the loop is compiled once for all but
`lru`, which has its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.replay.memory.lists import clear_flags, set_flags
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
    num,
    set_num,
    set_word,
    void,
    word,
)
from lamina_mmu.replay.memory.state import (
    ACCESSED,
    DIRTY,
    EVICTIONS,
    FLAGS,
    FRAMES,
    FRESH,
    LOG_COUNT,
    MISSES,
    REASON,
    REFERENCED,
    RESIDENT,
    SAMPLE_EVERY,
    SINCE_SAMPLE,
    TOUCHED,
    TOUCHED_AT,
    USED,
    VALUE,
    WRITE_BACKS,
)
from lamina_mmu.replay.policies import arc, clock, fifo, lfu, lru, lru_sampled, mglru, s3fifo, sieve, two_q

LRU, FIFO, CLOCK, SIEVE, LFU, TWO_Q, ARC, S3FIFO, MGLRU = range(9)

FLUSH = -1
"""In a log, the page of a row that says: accessed bits were cleared, and all translations with them."""


@compiled(void(i64, i64, i64))
def hit(policy: Word, block: Word, node: Word) -> None:
    """Tells a policy of an access to a page in a frame."""
    if policy == CLOCK:
        clock.hit(block, node)
    elif policy == S3FIFO:
        s3fifo.hit(block, node)
    elif policy == SIEVE:
        sieve.hit(block, node)
    elif policy == LFU:
        lfu.hit(block, node)
    elif policy == TWO_Q:
        two_q.hit(block, node)
    elif policy == ARC:
        arc.hit(block, node)
    elif policy == MGLRU:
        set_flags(block, node, REFERENCED)


@compiled(void(i64, i64, i64))
def missed(policy: Word, block: Word, node: Word) -> None:
    """Tells a policy which page will come, before it gives a victim."""
    if policy == TWO_Q:
        two_q.missed(block, node)
    elif policy == ARC:
        arc.missed(block, node)
    elif policy == S3FIFO:
        s3fifo.missed(block, node)


@compiled(void(i64, i64, i64))
def admit(policy: Word, block: Word, node: Word) -> None:
    """Gives a policy a page that came into a frame."""
    if policy == FIFO:
        fifo.admit(block, node)
    elif policy == CLOCK:
        clock.admit(block, node)
    elif policy == SIEVE:
        sieve.admit(block, node)
    elif policy == LFU:
        lfu.admit(block, node)
    elif policy == TWO_Q:
        two_q.admit(block, node)
    elif policy == ARC:
        arc.admit(block, node)
    elif policy == S3FIFO:
        s3fifo.admit(block, node)
    elif policy == MGLRU:
        mglru.admit(block, node)


@compiled(i64(i64, i64))
def choose(policy: Word, block: Word) -> Word:
    """Takes a victim from a policy and returns it; why stands in REASON and VALUE."""
    set_num(block, VALUE, 0)
    if policy == FIFO:
        return fifo.choose(block)
    if policy == CLOCK:
        return clock.choose(block)
    if policy == SIEVE:
        return sieve.choose(block)
    if policy == LFU:
        return lfu.choose(block)
    if policy == TWO_Q:
        return two_q.choose(block)
    if policy == ARC:
        return arc.choose(block)
    if policy == S3FIFO:
        return s3fifo.choose(block)
    return mglru.choose(block)


@compiled(void(i64, i64))
def sample(policy: Word, block: Word) -> None:
    """Reads and clears all accessed bits, in the order of the pages, and tells the policy; `lru` does so by itself.

    The first look at a page finds the access that brought it in: only `lru` and `mglru` count that.
    """
    at_words, count = num(block, TOUCHED_AT), num(block, TOUCHED)
    seen = np.empty(count, np.int64)
    for at in range(count):
        seen[at] = word(at_words, at)
    if policy in (LFU, TWO_Q, ARC):
        seen.sort()  # for the others the order makes no difference
    for node in seen:
        flags = get(block, node, FLAGS)
        clear_flags(block, node, ACCESSED | FRESH)
        if flags & RESIDENT and (policy == MGLRU or flags & FRESH == 0):
            hit(policy, block, node)
    set_num(block, TOUCHED, 0)


@compiled(void(i64, i64))
def set_accessed(block: Word, node: Word) -> None:
    """Sets a page's accessed bit, as a walk does; those that are set are listed."""
    if get(block, node, FLAGS) & ACCESSED == 0:
        set_flags(block, node, ACCESSED)
        set_word(num(block, TOUCHED_AT), num(block, TOUCHED), node)
        add_num(block, TOUCHED, 1)


@compiled(void(i64, i64, i64, ROWS))
def _note(block: Word, position: Word, node: Word, log: Any) -> None:
    """Writes a row of the log while there is room."""
    row = num(block, LOG_COUNT)
    if row < log.shape[0]:
        log[row, 0], log[row, 1] = position, node
        log[row, 2], log[row, 3] = num(block, REASON), num(block, VALUE)
        set_num(block, LOG_COUNT, row + 1)


@compiled(void(i64, i64, i64, ROWS))
def make_room(policy: Word, block: Word, position: Word, log: Any) -> None:
    """Evicts one page; a sample of accessed bits comes before it when one is due."""
    if num(block, SAMPLE_EVERY):
        if num(block, SINCE_SAMPLE) == 0:
            sample(policy, block)
            _note(block, position, FLUSH, log)
        set_num(block, SINCE_SAMPLE, (num(block, SINCE_SAMPLE) + 1) % num(block, SAMPLE_EVERY))
    victim = choose(policy, block)
    if get(block, victim, FLAGS) & DIRTY:
        add_num(block, WRITE_BACKS, 1)
    clear_flags(block, victim, RESIDENT | DIRTY | REFERENCED)
    add_num(block, EVICTIONS, 1)
    _note(block, position, victim, log)


@compiled(void(i64, i64, i64, i64, i64, ROWS))
def miss(policy: Word, block: Word, node: Word, write: Word, position: Word, log: Any) -> None:
    """Brings a page in."""
    add_num(block, MISSES, 1)
    missed(policy, block, node)
    if num(block, USED) < num(block, FRAMES):
        add_num(block, USED, 1)
    else:
        make_room(policy, block, position, log)
    set_flags(block, node, RESIDENT | FRESH | (DIRTY * write))
    admit(policy, block, node)
    if num(block, SAMPLE_EVERY):
        set_accessed(block, node)


@compiled(void(i64, i64, U32, i64, ROWS))
def run(policy: Word, block: Word, accesses: Any, position: Word, log: Any) -> None:
    """Runs accesses, the first of which is number `position` of the trace, through a policy."""
    sampled = num(block, SAMPLE_EVERY) != 0
    if policy == LRU:
        if sampled:
            lru_sampled.run(block, accesses, position, FLUSH, log)
        else:
            lru.run(block, accesses, position, log)
        return
    last = accesses.size - 1
    for at in range(accesses.size):
        fetch(block, np.int64(accesses[min(at + AHEAD, last)]) >> 1)
        access = np.int64(accesses[at])
        node = access >> 1
        if get(block, node, FLAGS) & RESIDENT == 0:
            miss(policy, block, node, access & 1, position + at, log)
            continue
        if access & 1:
            set_flags(block, node, DIRTY)
        if sampled:
            if get(block, node, FLAGS) & ACCESSED == 0:
                set_accessed(block, node)
        else:
            hit(policy, block, node)
