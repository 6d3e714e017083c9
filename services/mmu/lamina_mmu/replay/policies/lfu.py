"""Least frequently used, compiled; of equals the one that reached its count first goes.

All pages lie in one list in the order of their going. Pages of one count are a *bucket*, which knows its youngest page:
a page that is used moves above the youngest of the next count. Counts are forgotten when a page leaves.
"""

from __future__ import annotations

from lamina_mmu.replay.memory.lists import put_above, take
from lamina_mmu.replay.memory.native import Word, add_num, compiled, get, i64, num, put, set_num, set_word, void, word
from lamina_mmu.replay.memory.state import (
    ABOVE,
    BELOW,
    COUNT_A,
    COUNT_B,
    OWN,
    REASON,
    RING_AT,
    VALUE,
    PolicyState,
    longer,
)
from lamina_mmu.replay.policies.eviction_reasons import LEAST_FREQUENT

# The ring has three words a bucket: its count of uses, its youngest page, how many pages it has. Bucket 0 is none; free
# buckets form a chain by their first word from COUNT_B on; COUNT_A are those that were ever used.
USES, YOUNGEST, PAGES = range(3)


@compiled(i64(i64, i64, i64))
def _open(block: Word, uses: Word, youngest: Word) -> Word:
    """Returns a new bucket."""
    ring = num(block, RING_AT)
    bucket = num(block, COUNT_B)
    if bucket:
        set_num(block, COUNT_B, word(ring, 3 * bucket))
    else:
        add_num(block, COUNT_A, 1)
        bucket = num(block, COUNT_A)
    set_word(ring, 3 * bucket + USES, uses)
    set_word(ring, 3 * bucket + YOUNGEST, youngest)
    set_word(ring, 3 * bucket + PAGES, 0)
    return bucket


@compiled(void(i64, i64))
def _leave(block: Word, node: Word) -> None:
    """Takes a page out of its bucket and of the list; a bucket without pages is free."""
    ring = num(block, RING_AT)
    bucket = get(block, node, OWN)
    below = get(block, node, BELOW)
    take(block, node)
    left = word(ring, 3 * bucket + PAGES) - 1
    set_word(ring, 3 * bucket + PAGES, left)
    if left == 0:
        set_word(ring, 3 * bucket, num(block, COUNT_B))
        set_num(block, COUNT_B, bucket)
    elif word(ring, 3 * bucket + YOUNGEST) == node:
        set_word(ring, 3 * bucket + YOUNGEST, below)


@compiled(void(i64, i64, i64, i64))
def _join(block: Word, node: Word, uses: Word, place: Word) -> None:
    """Puts a page into the bucket of `uses`, which begins above `place`."""
    ring = num(block, RING_AT)
    above = get(block, place, ABOVE)
    bucket = get(block, above, OWN) if above else 0
    if bucket == 0 or word(ring, 3 * bucket + USES) != uses:
        bucket = _open(block, uses, place)
    put_above(block, node, word(ring, 3 * bucket + YOUNGEST))
    set_word(ring, 3 * bucket + YOUNGEST, node)
    set_word(ring, 3 * bucket + PAGES, word(ring, 3 * bucket + PAGES) + 1)
    put(block, node, OWN, bucket)


@compiled(void(i64, i64))
def hit(block: Word, node: Word) -> None:
    """Counts an access; counts end at 2^31 - 1."""
    ring = num(block, RING_AT)
    bucket = get(block, node, OWN)
    uses = word(ring, 3 * bucket + USES)
    youngest = word(ring, 3 * bucket + YOUNGEST)
    if uses == 0x7FFFFFFF:
        return
    if youngest == node:
        youngest = get(block, node, BELOW)
    _leave(block, node)
    _join(block, node, uses + 1, youngest)


@compiled(void(i64, i64))
def admit(block: Word, node: Word) -> None:
    """Takes a page in."""
    _join(block, node, 1, 0)


@compiled(i64(i64))
def choose(block: Word) -> Word:
    """Takes the victim out and returns it."""
    node = get(block, 0, ABOVE)
    set_num(block, VALUE, word(num(block, RING_AT), 3 * get(block, node, OWN) + USES))
    set_num(block, REASON, LEAST_FREQUENT)
    _leave(block, node)
    return node


def make_room(state: PolicyState, nodes: int, frames: int) -> None:
    """Sees to as many buckets as pages may be resident, and one more while a page moves."""
    wanted = 3 * (min(frames, nodes) + 3)
    if wanted > state.ring.size:
        state.replace_ring(longer(state.ring, max(wanted, min(2 * state.ring.size, 3 * (frames + 3)))))
