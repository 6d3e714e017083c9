"""A multi-generation LRU, compiled, after Linux's: pages in generations, of which the oldest goes first.

A use sets the reference bit, and moves nothing. When a page must go there are at least `generations` of them (LIMIT_A,
3 unless chosen): ageing begins a new one, which every page with the bit joins. The victim is the first page of the
oldest generation without the bit; those with it that lie before join the youngest.
Source: Linux, Documentation/mm/multigen_lru.rst; mm/vmscan.c (should_run_aging, sort_folio).
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import clear_flags, put_head, take, take_tail
from lamina_mmu.replay.memory.native import Word, compiled, get, i64, num, set_num, void
from lamina_mmu.replay.memory.state import ABOVE, COUNT_A, COUNT_B, FLAGS, LIMIT_A, LISTS, REASON, REFERENCED, VALUE
from lamina_mmu.replay.policies.eviction_reasons import OLDEST_GENERATION

OLDEST, YOUNGEST = COUNT_A, COUNT_B
"""Numbers of generations, from 0; generation g is list g modulo `LISTS`."""


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    put_head(block, node, num(block, YOUNGEST) % LISTS)


@compiled(void(i64, i64))
def _promote(block: Word, node: Word) -> None:
    """Moves a page to the youngest generation and clears its bit."""
    clear_flags(block, node, REFERENCED)
    take(block, node)
    admit(block, node)


@compiled(void(i64))
def _age(block: Word) -> None:
    """Begins a new youngest generation, with every page whose bit is set."""
    youngest = num(block, YOUNGEST) + 1
    set_num(block, YOUNGEST, youngest)
    for generation in range(num(block, OLDEST), youngest):
        queue = generation % LISTS
        node = get(block, queue, ABOVE)
        while node != queue:
            above = get(block, node, ABOVE)
            if get(block, node, FLAGS) & REFERENCED:
                _promote(block, node)
            node = above


@compiled(i64(i64))
def _settle(block: Word) -> Word:
    """Drops empty generations at the old end and ages until there are enough; returns the list of the oldest."""
    while True:
        oldest = num(block, OLDEST)
        while oldest < num(block, YOUNGEST) and get(block, oldest % LISTS, ABOVE) == oldest % LISTS:
            oldest += 1
        set_num(block, OLDEST, oldest)
        if num(block, YOUNGEST) - oldest + 1 >= num(block, LIMIT_A):
            return oldest % LISTS
        _age(block)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    promoted = 0
    while True:
        queue = _settle(block)
        node = get(block, queue, ABOVE)
        if get(block, node, FLAGS) & REFERENCED == 0:
            break
        _promote(block, node)
        promoted += 1
    set_num(block, REASON, OLDEST_GENERATION)
    set_num(block, VALUE, promoted)
    return take_tail(block, queue)
