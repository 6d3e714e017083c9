"""Extents of huge pages for whoever maps RAM in large pieces: aligned, contiguous, never moved, never reclaimed."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.session import Session
from lamina_mmu.engines.model.frames.compaction import compact
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.victims import make_room

ZEROED_AT_ONCE = 4096
"""Frames that are zeroed before others get their turn (16 MiB, some milliseconds)."""


def allocate_extents(
    m: Machine, count: int, order: int, owner: str, group: Group, session: Session
) -> Step[tuple[int, ...]]:
    """Returns the first frames of `count` zeroed extents of 2^order frames, ascending; all or none."""
    size, taken = 1 << order, list[int]()
    group.members += 1  # keeps the group while this waits
    try:
        yield from _fit(m, group, count * size, owner)
        m.groups.charge(group.id, count * size)
    finally:
        group.members -= 1
    done = False
    try:
        while len(taken) < count:
            first = m.frames.take_block(order, Use.ALLOCATED, group.id)
            if first:
                m.frames.refs_array[first : first + size] = 1
                taken.append(first)
                yield from _zero(m, first, size)
            elif not (yield from _clear_block(m, order, owner)):
                raise _no_extent(size, len(taken), count)
        done = True
    finally:
        if not done:
            m.groups.charge(group.id, -count * size)
            for first in taken:
                m.frames.give_back_block(first, order)
    number = m.add_allocation(owner, session, count * size, size)
    for first in taken:
        m.frames.owner_array[first : first + size] = number
    m.record(m.names.frame(min(taken)), "extents.allocated", owner=owner, count=count, frames_each=size)
    return tuple(sorted(taken))


def _fit(m: Machine, group: Group, frames: int, cause: str) -> Step[None]:
    """Reclaims within groups that `frames` more would lift over their limit; GROUP_LIMIT when that is not enough."""
    while (over := m.groups.over(group.id, frames)) is not None:
        hopeless = over.limit is not None and frames > over.limit
        if hopeless or not (yield from make_room(m, over, cause)):
            over.oom_events += 1
            raise ResourceExhausted(
                f"{frames} frames more do not fit under the limit of memory group {over.name}.",
                reason="GROUP_LIMIT",
                next_step="Raise the group's limit, or ask for fewer extents.",
                group=over.name,
            )


def _clear_block(m: Machine, order: int, cause: str) -> Step[bool]:
    """Makes a block free by moving pages, then by pushing pages out; returns whether it is worth trying again."""
    yield from compact(m, order, 1, cause)
    if m.frames.buddy.of_order(order):
        return True
    free = m.frames.free
    progress = yield from make_room(m, m.groups.root, cause)
    return progress and m.frames.free > free


def _zero(m: Machine, first: int, size: int) -> Step[None]:
    for frame in range(first, first + size):
        m.ram.zero(frame)
        if frame % ZEROED_AT_ONCE == ZEROED_AT_ONCE - 1:
            yield Sleep(0)


def free_extents(m: Machine, firsts: Sequence[int], owner: str) -> None:
    """Frees extents that `allocate_extents` gave to `owner`; all or none."""
    found: dict[int, int] = {}
    for first in firsts:
        allocation = m.allocation_of(first)
        size = allocation.extent if allocation is not None else 0
        if not size or first % size or allocation is None or allocation.owner != owner or first in found:
            raise _not_allocated(first, owner)
        found[first] = size
    for first, size in found.items():
        _free(m, first, size)
    m.record(m.names.frame(min(found)), "extents.freed", owner=owner, count=len(found))


def _free(m: Machine, first: int, size: int) -> None:
    """Frees one extent: at once, or, while frames of it are pinned, one by one."""
    if m.ram.pinned_frames(first, size):
        for frame in range(first, first + size):
            m.drop_allocated(frame)
        return
    m.groups.charge(m.frames.group[first], -size)
    m.forget_allocated(first, size)
    m.frames.give_back_block(first, size.bit_length() - 1)


def _no_extent(size: int, found: int, count: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"Only {found} of {count} extents of {size * 4096:,} bytes could be had; nothing was allocated.",
        reason="NO_FREE_EXTENT",
        next_step="Free memory, or ask for fewer or smaller extents; GetFragmentation tells what is in the way.",
    )


def _not_allocated(first: int, owner: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"No extent of {owner} begins at frame {first}, or it is named twice; nothing was freed.",
        reason="EXTENT_NOT_ALLOCATED",
        next_step="Free each extent once, by its first frame, under the owner given at its allocation.",
        frame=first,
    )
