"""First in, first out, compiled: pages leave in the order in which they came."""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import put_head, take_tail
from lamina_mmu.replay.memory.native import Word, compiled, i64, set_num, void
from lamina_mmu.replay.memory.state import REASON
from lamina_mmu.replay.policies.eviction_reasons import OLDEST_ARRIVAL


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    put_head(block, node, 0)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    set_num(block, REASON, OLDEST_ARRIVAL)
    return take_tail(block, 0)
