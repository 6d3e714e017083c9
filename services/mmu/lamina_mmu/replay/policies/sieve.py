"""SIEVE, compiled: a hand goes from the old end to the young one and removes the first page that was not visited.

Pages stay where they are: a visited page keeps its place, and new ones come at the young end.
Source: Zhang et al., SIEVE is Simpler than LRU, NSDI 2024.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import put_head, take
from lamina_mmu.replay.memory.native import Word, compiled, get, i64, num, put, set_num, void
from lamina_mmu.replay.memory.state import ABOVE, HAND, OWN, REASON, VALUE
from lamina_mmu.replay.policies.eviction_reasons import NOT_VISITED


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Notes an access."""
    put(block, node, OWN, 1)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    put(block, node, OWN, 0)
    put_head(block, node, 0)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    node = num(block, HAND)
    if node == 0:
        node = get(block, 0, ABOVE)
    passed = 0
    while get(block, node, OWN) > 0:
        put(block, node, OWN, 0)
        node = get(block, node, ABOVE)
        if node == 0:
            node = get(block, 0, ABOVE)
        passed += 1
    set_num(block, HAND, get(block, node, ABOVE))
    take(block, node)
    set_num(block, REASON, NOT_VISITED)
    set_num(block, VALUE, passed)
    return node
