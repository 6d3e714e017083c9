"""Doubly linked lists of nodes, compiled. A page is in one list at most; the node of a list closes its ring.

The node below a list's own is its head, the one above is its tail.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.native import Word, compiled, get, i64, put, void
from lamina_mmu.replay.memory.state import ABOVE, BELOW, FLAGS, LOW_FLAGS, QUEUE_SHIFT


@compiled(void(i64, i64, i64))
def put_above(block: Word, node: Word, place: Word) -> None:
    """Puts `node` next to `place`, on its head's side; above the list itself is the tail."""
    above = get(block, place, ABOVE)
    put(block, node, BELOW, place)
    put(block, node, ABOVE, above)
    put(block, above, BELOW, node)
    put(block, place, ABOVE, node)


@compiled(void(i64, i64, i64))
def put_head(block: Word, node: Word, queue: Word) -> None:
    """Puts `node` at the head of a list."""
    first = get(block, queue, BELOW)
    put(block, node, BELOW, first)
    put(block, node, ABOVE, queue)
    put(block, first, ABOVE, node)
    put(block, queue, BELOW, node)


@compiled(void(i64, i64))
def take(block: Word, node: Word) -> None:
    """Takes `node` out of its list."""
    below = get(block, node, BELOW)
    above = get(block, node, ABOVE)
    put(block, above, BELOW, below)
    put(block, below, ABOVE, above)


@compiled(i64(i64, i64))
def take_tail(block: Word, queue: Word) -> Word:
    """Takes the tail out of a list and returns it."""
    node = get(block, queue, ABOVE)
    take(block, node)
    return node


@compiled(i64(i64, i64))
def queue_of(block: Word, node: Word) -> Word:
    """Returns the list that a page's flags name; 0 for none."""
    return get(block, node, FLAGS) >> QUEUE_SHIFT


@compiled(void(i64, i64, i64))
def mark(block: Word, node: Word, queue: Word) -> None:
    """Writes into a page's flags which list it is in, or will be; 0 for none."""
    put(block, node, FLAGS, (get(block, node, FLAGS) & LOW_FLAGS) | (queue << QUEUE_SHIFT))


@compiled(void(i64, i64, i64))
def enter(block: Word, node: Word, queue: Word) -> None:
    """Puts a page at the head of a list, and says so in its flags."""
    put_head(block, node, queue)
    mark(block, node, queue)


@compiled(void(i64, i64, i64))
def set_flags(block: Word, node: Word, flags: Word) -> None:
    """Sets flags of a page."""
    put(block, node, FLAGS, get(block, node, FLAGS) | flags)


@compiled(void(i64, i64, i64))
def clear_flags(block: Word, node: Word, flags: Word) -> None:
    """Clears flags of a page."""
    put(block, node, FLAGS, get(block, node, FLAGS) & ~flags)
