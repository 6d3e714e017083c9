"""CLOCK and second chance, compiled: first in, first out, but a page that was used goes round once more.

One algorithm under two names: a hand that passes a page over is a page that moves to the young end. A page comes with
its counter at 0; a use raises it, to 1 unless CLOCK has more `bits`; the hand lowers it by one.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import put_head, take, take_tail
from lamina_mmu.replay.memory.native import Word, compiled, get, i64, num, put, set_num, void
from lamina_mmu.replay.memory.state import ABOVE, LIMIT_A, OWN, REASON, VALUE
from lamina_mmu.replay.policies.eviction_reasons import NOT_REFERENCED


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Counts an access, up to LIMIT_A."""
    uses = get(block, node, OWN)
    if uses < num(block, LIMIT_A):
        put(block, node, OWN, uses + 1)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    put(block, node, OWN, 0)
    put_head(block, node, 0)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    node = get(block, 0, ABOVE)
    passed = 0
    while get(block, node, OWN) > 0:
        put(block, node, OWN, get(block, node, OWN) - 1)
        take(block, node)
        put_head(block, node, 0)
        node = get(block, 0, ABOVE)
        passed += 1
    set_num(block, REASON, NOT_REFERENCED)
    set_num(block, VALUE, passed)
    return take_tail(block, 0)
