"""The frame table, memory groups, and swap slots, each for itself."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from tests.property.mmu.world import PAGE, DictSwap

from lamina_kit.errors import AlreadyExists, DataLoss, FailedPrecondition, OutOfRange
from lamina_mmu.domain.frames.rmap import ReverseMap
from lamina_mmu.domain.frames.table import FrameTable, Use
from lamina_mmu.domain.groups.group import GroupTree
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.policies.replacement import Replacement
from lamina_mmu.domain.swap.areas import SwapArea


def test_a_table_for_8_gib_costs_next_to_nothing() -> None:
    """Tables for 2 million frames take no step for each frame, and little memory until frames are used."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps, traced = 0, sys.gettrace()

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal steps
        steps += event == "line"
        return count

    sys.settrace(count)
    try:
        frames, rmap = FrameTable(1 << 21), ReverseMap(1 << 21)
        policy = Replacement(frames.use, lambda group: Lru(1 << 21), lambda frame: 0)
    finally:
        sys.settrace(traced)
    assert 0 < steps < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024
    assert frames.free == (1 << 21) - 1 and not list(rmap.of(5)) and policy.population([0]) == 0


def test_frame_0_is_never_given_out_and_freed_frames_come_first() -> None:
    """All frames but 0 can be taken; the one that was given back last is taken next; then there is none."""
    frames = FrameTable(8)
    assert [frames.take(Use.ANONYMOUS, 0) for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert frames.take(Use.ANONYMOUS, 0) == 0 and frames.free == 0
    frames.give_back(2, False)
    frames.give_back(3, False)
    assert [frames.take(Use.TABLE, 0) for _ in range(3)] == [3, 2, 0]
    assert frames.by_use == [0, 5, 0, 2, 0, 1, 0]


def test_a_pinned_frame_waits_in_limbo() -> None:
    """A frame given back while pinned is reserved until it is settled."""
    frames = FrameTable(3)
    frame = frames.take(Use.ANONYMOUS, 0)
    frames.give_back(frame, True)
    assert frames.limbo == [frame] and frames.use[frame] == Use.RESERVED
    assert frames.take(Use.ANONYMOUS, 0) != frame
    frames.settle(frame)
    assert frames.take(Use.ANONYMOUS, 0) == frame and not frames.limbo


@pytest.mark.parametrize("frame", [-1, 5, 1 << 63])
def test_frames_outside_ram_are_refused(frame: int) -> None:
    """A number that is no frame is named in the refusal."""
    with pytest.raises(OutOfRange, match=str(frame)):
        FrameTable(5).check(frame)


def test_the_nearest_group_at_its_limit_is_named() -> None:
    """A charge is refused by the lowest group that it would lift over its limit; limits are whole pages."""
    tree = GroupTree()
    top = tree.create("top", tree.root, 10 * PAGE + 4095, None)
    leaf = tree.create("leaf", top, 4 * PAGE, 2 * PAGE)
    tree.charge(leaf.id, 4)
    assert tree.over(leaf.id) is leaf and tree.over(top.id) is None
    tree.charge(top.id, 6)
    assert tree.over(top.id) is top and tree.over(0) is None
    tree.charge(leaf.id, -1)
    assert tree.over(leaf.id) is None
    assert (tree.root.usage, top.usage, leaf.usage, leaf.peak) == (9, 9, 3, 4)
    assert top.limit == 10
    tree.charge_swap(leaf.id, 2)
    assert tree.swap_over(leaf.id) is leaf and tree.swap_over(top.id) is None


def test_groups_are_created_once_and_deleted_empty() -> None:
    """Names are unique; what is in use stays."""
    tree = GroupTree()
    leaf = tree.create("a", tree.root, None, None)
    with pytest.raises(AlreadyExists):
        tree.create("a", tree.root, None, None)
    tree.charge(leaf.id, 1)
    for group in (leaf, tree.root):
        with pytest.raises(FailedPrecondition) as refused:
            tree.delete(group)
        assert refused.value.reason == "GROUP_IN_USE"
    tree.charge(leaf.id, -1)
    tree.delete(leaf)
    assert tree.ordered() == [tree.root]


def test_slots_are_reused_and_checked() -> None:
    """Slots come from 0 up, freed ones first; a page that is not what was written is reported."""
    store = DictSwap(2)
    area = SwapArea(store)
    assert [area.take(0), area.take(0), area.take(0)] == [0, 1, -1]
    area.write(1, b"a" * PAGE)
    assert area.read(1) == b"a" * PAGE
    store.pages[1] = b"a" * (PAGE - 1) + b"b"
    with pytest.raises(DataLoss) as rotten:
        area.read(1)
    assert rotten.value.reason == "SWAP_CORRUPT" and rotten.value.metadata["slot"] == "1"
    store.pages[1] = b""
    with pytest.raises(DataLoss):
        area.read(1)
    area.give_back(0)
    assert area.take(0) == 0


def test_a_swap_area_may_be_empty() -> None:
    """Without slots there is nothing to take."""
    area = SwapArea(DictSwap(0))
    assert area.take(0) == -1 and area.free == 0 and area.cached_only(10) == [] and area.cached == 0
