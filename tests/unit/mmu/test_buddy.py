"""The buddy system and the blocks of the frame table, each for itself."""

from __future__ import annotations

import random

import pytest

from lamina_mmu.domain.frames.buddy import MAX_ORDER, Buddy
from lamina_mmu.domain.frames.table import HOT_MOST, FrameTable, Use


def test_blocks_split_and_join() -> None:
    """Taking splits the smallest block that is large enough; giving back joins buddies up to the whole."""
    buddy = Buddy()
    buddy.put_range(16, 32)
    assert buddy.take(0) == 16 and buddy.take(2) == 20 and buddy.take(0) == 17
    assert (buddy.frames, buddy.of_order(3), buddy.of_order(1), buddy.below(3)) == (10, 1, 5, 2)
    assert buddy.take(4) == 0
    for first, order in ((17, 0), (20, 2), (16, 0)):
        buddy.put(first, order)
    assert buddy.of_order(4) == 1 and buddy.take(4) == 16 and buddy.smallest() == -1


def test_no_block_is_larger_than_a_gibibyte() -> None:
    """Neighbours of the largest order stay apart."""
    buddy = Buddy()
    size = 1 << MAX_ORDER
    buddy.put_range(size, 4 * size)
    assert buddy.of_order(MAX_ORDER) == 3
    assert sorted(buddy.take(MAX_ORDER) for _ in range(3)) == [size, 2 * size, 3 * size]


@pytest.mark.parametrize("seed", range(6))
def test_frames_are_given_out_once_and_all_join_again(seed: int) -> None:
    """Random singles, blocks, isolations and pins against a set of numbers; in the end one run of memory is left."""
    rng = random.Random(seed)
    count = 1 << 12
    table = FrameTable(count)
    free = set(range(1, count))
    singles: list[int] = []
    blocks: list[tuple[int, int]] = []
    held: list[int] = []
    for _ in range(4000):
        choice = rng.random()
        if choice < 0.45:
            frame = table.take(Use.ANONYMOUS, 0)
            assert (frame in free) if frame else not free - _within(held)
            if frame:
                free.discard(frame)
                singles.append(frame)
        elif choice < 0.8 and singles:
            frame = singles.pop(rng.randrange(len(singles)))
            table.give_back(frame, False)
            free.add(frame)
        elif choice < 0.9:
            order = rng.choice([1, 3, 9])
            first = table.take_block(order, Use.ALLOCATED, 0)
            if first:
                assert first % (1 << order) == 0 and free >= set(range(first, first + (1 << order)))
                assert not _within(held) & set(range(first, first + (1 << order)))
                free -= set(range(first, first + (1 << order)))
                blocks.append((first, order))
        elif choice < 0.96 and blocks:
            first, order = blocks.pop(rng.randrange(len(blocks)))
            free |= set(range(first, first + (1 << order)))
            if first // 512 * 512 in held:  # an isolated range takes single frames only
                for frame in range(first, first + (1 << order)):
                    table.give_back(frame, False)
            else:
                table.give_back_block(first, order)
        elif len(held) < 2:
            first = rng.randrange(1, count // 512) * 512
            if first not in held:
                table.isolate(first, 512)
                held.append(first)
        else:
            table.rejoin(held.pop(0))
        assert table.free == len(free - _within(held))
    _end(table, singles, blocks, held)
    table.drain(everything=True)
    blocks_left = table.free_blocks()
    assert table.free == count - 1 and blocks_left[:12] == [1] * 12 and table.buddy.frames == count - 1
    assert table.by_use[Use.RESERVED] == 1


def _within(held: list[int]) -> set[int]:
    return {frame for first in held for frame in range(first, first + 512)}


def _end(table: FrameTable, singles: list[int], blocks: list[tuple[int, int]], held: list[int]) -> None:
    for first in held:
        table.rejoin(first)
    for frame in singles:
        table.give_back(frame, False)
    for first, order in blocks:
        table.give_back_block(first, order)


def test_the_hot_list_spills_into_blocks() -> None:
    """Frames that come free one by one make large blocks again, without anybody asking for one."""
    table = FrameTable(1 << 14)
    taken = [table.take(Use.ANONYMOUS, 0) for _ in range((1 << 14) - 1)]
    for frame in sorted(taken):
        table.give_back(frame, False)
    assert table.buddy.frames >= (1 << 14) - HOT_MOST - 1 and table.buddy.of_order(9) > 0


def test_free_blocks_count_each_frame_once() -> None:
    """Each free frame counts in its largest block, on whatever list it lies."""
    table = FrameTable(1024)
    assert table.free_blocks() == [1] * 10 + [0] * 9
    first = table.take(Use.OBJECT, 0)
    blocks = table.free_blocks()
    assert first == 1 and blocks == [0] + [1] * 9 + [0] * 9
    assert sum(number << order for order, number in enumerate(blocks)) == table.free == 1022


def test_what_never_moves_has_blocks_of_its_own() -> None:
    """Tables and allocations share huge blocks with each other, not with pages, while there are enough."""
    table = FrameTable(1 << 14)
    pages = {table.take(Use.ANONYMOUS, 0) >> 9 for _ in range(3000) if table.take(Use.TABLE, 0) or True}
    fixed = {int(frame) >> 9 for frame in table.used(Use.TABLE)}
    assert len(fixed) <= 7 and not pages & fixed


def test_a_retired_frame_is_never_given_out() -> None:
    """A frame that is out of use comes back from nowhere."""
    table = FrameTable(64)
    table.isolate(9, 1)
    assert table.is_isolated(9) and table.retire(9) and not table.is_isolated(9)
    taken = [table.take(Use.ANONYMOUS, 0) for _ in range(63)]
    assert 9 not in taken and taken[-1] == 0 and len(set(taken)) == 63
    assert table.by_use[Use.OFFLINE] == 1
    table.isolate(10, 1)
    assert not table.retire(10) and table.use[10] == Use.ANONYMOUS


def test_zeroed_frames_are_a_stock() -> None:
    """What is stocked is free, is taken by who wants zeros, and by others in need."""
    table = FrameTable(8)
    frame = table.unzeroed()
    table.stock(frame)
    assert table.zeroed == 1 and table.free == 7
    assert table.take_zeroed(Use.ANONYMOUS, 0) == frame and table.take_zeroed(Use.ANONYMOUS, 0) == 0
    table.stock(table.unzeroed())
    assert len({table.take(Use.ANONYMOUS, 0) for _ in range(6)} - {0}) == 6 and table.free == 0
    assert table.unzeroed() == 0
