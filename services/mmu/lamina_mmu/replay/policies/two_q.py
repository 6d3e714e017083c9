"""2Q, compiled: new pages wait in A1in; only those that are wanted again after it live in Am, which is LRU.

Kin is a quarter of the frames and Kout, pages that are remembered after they left A1in, a half. A use in A1in changes
nothing. The victim is A1in's oldest when A1in has more than Kin or Am is empty, else Am's least recently used.
Source: Johnson and Shasha, 2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm, VLDB 1994.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import enter, mark, put_head, queue_of, take, take_tail
from lamina_mmu.replay.memory.native import Word, add_num, compiled, get, i64, num, set_num, void
from lamina_mmu.replay.memory.state import ABOVE, COUNT_A, COUNT_C, LIMIT_A, LIMIT_C, REASON, VALUE
from lamina_mmu.replay.policies.eviction_reasons import A1IN_FULL, AM_OLDEST

IN, MAIN, OUT = 1, 2, 3


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Notes an access to a page in a frame."""
    if queue_of(block, node) == MAIN:
        take(block, node)
        put_head(block, node, MAIN)


@compiled(void(i64, i64))
def missed(block: Word, node: Word) -> None:
    """Before a victim is chosen: a page that is remembered will go to Am."""
    if queue_of(block, node) == OUT:
        take(block, node)
        add_num(block, COUNT_C, -1)
        mark(block, node, MAIN)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    if queue_of(block, node) == MAIN:
        put_head(block, node, MAIN)
    else:
        enter(block, node, IN)
        add_num(block, COUNT_A, 1)


@compiled(void(i64, i64, i64))
def remember(block: Word, node: Word, queue: Word) -> None:
    """Puts a page that leaves into a list of at most LIMIT_C; the oldest there is forgotten when it is full."""
    if num(block, LIMIT_C) == 0:
        mark(block, node, 0)
        return
    if num(block, COUNT_C) == num(block, LIMIT_C):
        mark(block, take_tail(block, queue), 0)
        add_num(block, COUNT_C, -1)
    enter(block, node, queue)
    add_num(block, COUNT_C, 1)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    waiting = num(block, COUNT_A)
    set_num(block, VALUE, waiting)
    if waiting > num(block, LIMIT_A) or get(block, MAIN, ABOVE) == MAIN:
        node = take_tail(block, IN)
        set_num(block, REASON, A1IN_FULL)
        set_num(block, COUNT_A, waiting - 1)
        remember(block, node, OUT)
        return node
    node = take_tail(block, MAIN)
    mark(block, node, 0)
    set_num(block, REASON, AM_OLDEST)
    return node
