"""ARC, compiled: pages seen once (T1) and more often (T2), the ghosts of both (B1, B2), and a target p for T1.

A use of a ghost of B1 makes p larger by max(1, |B2| / |B1|), one of B2 smaller by max(1, |B1| / |B2|); p is a real
number from 0 to the number of frames. T1 gives the victim when it has more than p, or as many and a ghost of B2 comes.
Source: Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import enter, mark, queue_of, take, take_tail
from lamina_mmu.replay.memory.native import Word, add_num, compiled, i64, num, real, set_num, set_real, void
from lamina_mmu.replay.memory.state import COMING, COUNT_A, COUNT_B, COUNT_C, COUNT_D, FRAMES, REASON, TARGET, VALUE
from lamina_mmu.replay.policies.eviction_reasons import T1_ABOVE_TARGET, T1_WITHOUT_GHOSTS, T2_OLDEST

T1, T2, B1, B2 = 1, 2, 3, 4
ONCE, OFTEN, GHOST_ONCE, GHOST_OFTEN = COUNT_A, COUNT_B, COUNT_C, COUNT_D


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Notes an access to a page in a frame: it is in T2 from now on."""
    take(block, node)
    if queue_of(block, node) == T1:
        add_num(block, ONCE, -1)
        add_num(block, OFTEN, 1)
    enter(block, node, T2)


@compiled(void(i64, i64))
def missed(block: Word, node: Word) -> None:
    """Before a victim is chosen: moves the target when the page is a ghost. COMING says of which list."""
    queue = queue_of(block, node)
    set_num(block, COMING, queue)
    once, often = num(block, GHOST_ONCE), num(block, GHOST_OFTEN)
    if queue == B1:
        larger = real(block, TARGET) + max(often / once, 1.0)
        set_real(block, TARGET, min(larger, float(num(block, FRAMES))))
        add_num(block, GHOST_ONCE, -1)
        take(block, node)
    elif queue == B2:
        set_real(block, TARGET, max(real(block, TARGET) - max(once / often, 1.0), 0.0))
        add_num(block, GHOST_OFTEN, -1)
        take(block, node)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in: a ghost to T2, another to T1."""
    if num(block, COMING) == 0:
        enter(block, node, T1)
        add_num(block, ONCE, 1)
    else:
        enter(block, node, T2)
        add_num(block, OFTEN, 1)


@compiled(i64(i64))
def _replace(block: Word) -> Word:
    """The paper's REPLACE."""
    once, target = num(block, ONCE), real(block, TARGET)
    above = once > target or (once == target and num(block, COMING) == B2)
    set_num(block, VALUE, int(target))
    if (once > 0 and above) or num(block, OFTEN) == 0:
        node = take_tail(block, T1)
        enter(block, node, B1)
        add_num(block, ONCE, -1)
        add_num(block, GHOST_ONCE, 1)
        set_num(block, REASON, T1_ABOVE_TARGET)
        return node
    node = take_tail(block, T2)
    enter(block, node, B2)
    add_num(block, OFTEN, -1)
    add_num(block, GHOST_OFTEN, 1)
    set_num(block, REASON, T2_OLDEST)
    return node


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it: the paper's cases II to IV."""
    if num(block, COMING) == 0:
        first = num(block, ONCE) + num(block, GHOST_ONCE)
        frames = num(block, FRAMES)
        if first >= frames:
            if num(block, GHOST_ONCE) == 0:
                node = take_tail(block, T1)
                mark(block, node, 0)
                add_num(block, ONCE, -1)
                set_num(block, REASON, T1_WITHOUT_GHOSTS)
                return node
            mark(block, take_tail(block, B1), 0)
            add_num(block, GHOST_ONCE, -1)
        elif first + num(block, OFTEN) + num(block, GHOST_OFTEN) >= 2 * frames and num(block, GHOST_OFTEN) > 0:
            mark(block, take_tail(block, B2), 0)
            add_num(block, GHOST_OFTEN, -1)
    return _replace(block)
