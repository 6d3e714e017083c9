"""S3-FIFO, compiled: a small queue that new pages must pass, a main queue, and the ghosts of the small one.

The small queue has a tenth of the frames, ghosts nine tenths. A page that leaves the small queue goes to the main one
when it was used at least twice there, else it is the victim and becomes a ghost; a ghost that is wanted again comes
straight to the main queue. The main queue is a clock whose counter goes to 3. The small queue gives the victim unless
the main one has more than its share. Until the first eviction pages that find the small queue full fill the main one.
Source: Yang et al., FIFO Queues are All You Need for Cache Eviction, SOSP 2023.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import enter, mark, put_head, queue_of, take, take_tail
from lamina_mmu.replay.memory.native import Word, add_num, compiled, get, i64, num, put, set_num, void
from lamina_mmu.replay.memory.state import (
    ABOVE,
    COUNT_A,
    COUNT_B,
    COUNT_C,
    EVICTIONS,
    LIMIT_A,
    LIMIT_B,
    LIMIT_D,
    LIMIT_E,
    OWN,
    REASON,
    VALUE,
)
from lamina_mmu.replay.policies.eviction_reasons import MAIN_UNUSED, SMALL_UNUSED
from lamina_mmu.replay.policies.two_q import remember

SMALL, MAIN, GHOST = 1, 2, 3
# LIMIT_B, LIMIT_C, LIMIT_D: pages of main, ghosts, small. LIMIT_E: uses to main.


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Counts an access to a page in a frame, up to what either queue asks for."""
    uses = get(block, node, OWN)
    if uses < num(block, LIMIT_A):
        put(block, node, OWN, uses + 1)


@compiled(void(i64, i64))
def missed(block: Word, node: Word) -> None:
    """Before a victim is chosen: a ghost will go to the main queue."""
    if queue_of(block, node) == GHOST:
        take(block, node)
        add_num(block, COUNT_C, -1)
        mark(block, node, MAIN)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    put(block, node, OWN, 0)
    fills = num(block, EVICTIONS) == 0 and num(block, COUNT_A) >= num(block, LIMIT_D)
    if fills or queue_of(block, node) == MAIN:
        enter(block, node, MAIN)
        add_num(block, COUNT_B, 1)
    else:
        enter(block, node, SMALL)
        add_num(block, COUNT_A, 1)


@compiled(i64(i64))
def _from_main(block: Word) -> Word:
    """Returns the first page of the main queue whose counter is 0, counting down those before it."""
    node = get(block, MAIN, ABOVE)
    passed = 0
    while get(block, node, OWN) > 0:
        put(block, node, OWN, min(get(block, node, OWN), 3) - 1)
        take(block, node)
        put_head(block, node, MAIN)
        node = get(block, MAIN, ABOVE)
        passed += 1
    take(block, node)
    mark(block, node, 0)
    add_num(block, COUNT_B, -1)
    set_num(block, REASON, MAIN_UNUSED)
    set_num(block, VALUE, passed)
    return node


@compiled(i64(i64))
def _from_small(block: Word) -> Word:
    """Returns the first page of the small queue that was not used enough; 0 when all went to the main queue."""
    while num(block, COUNT_A) > 0:
        node = take_tail(block, SMALL)
        add_num(block, COUNT_A, -1)
        uses = get(block, node, OWN)
        if uses < num(block, LIMIT_E):
            set_num(block, REASON, SMALL_UNUSED)
            set_num(block, VALUE, uses)
            remember(block, node, GHOST)
            return node
        put(block, node, OWN, 0)
        enter(block, node, MAIN)
        add_num(block, COUNT_B, 1)
    return 0


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    if num(block, COUNT_B) <= num(block, LIMIT_B):
        node = _from_small(block)
        if node:
            return node
    return _from_main(block)
