"""Copying a space: private pages become shared copy-on-write, shared ones stay shared.

All table frames of the copy are taken first (that may yield); then parent and child change in one go, a leaf table at a
time; last the parent's translations are shot down, since its pages lost their right to write. Pages that are pinned
for DMA are copied for the child at once: the parent's next write must find them where they are. What advice keeps out
of forks has no entries in the child, and locks are not inherited. Nor has what an object alone can bring again: shared
mappings, and private ones without a page of their own; the child's faults find it.
Source: fork(2), madvise(2); Linux, mm/memory.c, copy_present_pte, vma_needs_copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.paging import ACCESSED, ADDR_MASK, COW, DIRTY, PAGE_SHIFT, PRESENT, RW, SWAPPED, USER_END
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.settings import LockFuture
from lamina_mmu.domain.spaces.space import Kind, Space
from lamina_mmu.domain.spaces.vma import DONT_FORK, LOCKED, ON_FAULT, WIPE_ON_FORK, Vma
from lamina_mmu.domain.tables.entry import GUARDED, frame_of, in_ram
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import PAGES_PER_LEAF, entries, update
from lamina_mmu.engines.model.faults.huge import share, split_for_fork
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.ranges.mapping import transit_within
from lamina_mmu.engines.model.spaces.lifecycle import delete_space, take_frames, take_tables

_KEEP = np.uint64(0xFFFF_FFFF_FFFF_FFFF & ~(ACCESSED | DIRTY))
_ADDRESS = np.uint64(ADDR_MASK)
_IN_RAM = np.uint64(PRESENT | GUARDED)


def fork_space(m: Machine, handle: Handle, label: str, group: Group | None, session: Session) -> Step[Space]:
    """Makes a copy of a process space, charged to `group` (None: the parent's)."""
    spare: list[int] = []
    copies: list[int] = []
    payer = group or m.groups.get(m.spaces.get(handle).group)
    payer.members += 1  # for the child; it also keeps the group while this waits
    child: Space | None = None
    try:
        while True:
            parent = m.spaces.get(handle)
            table = parent.table
            if not isinstance(table, FourLevelTable):
                raise FailedPrecondition(
                    f"Space s-{parent.number} is a VM's RAM.",
                    reason="SPACE_NOT_FORKABLE",
                    next_step="Create a new space, and copy what is needed.",
                )
            key = transit_within(parent, 0, USER_END)
            if key is not None:
                yield WaitFor(key)
                continue
            cause = f"a fork of s-{parent.number}"
            if len(spare) < table.frames:
                spare += yield from take_tables(m, payer, table.frames - len(spare), cause)
            elif (pinned := len(_pinned_pages(m, parent))) > len(copies):
                copies += yield from take_frames(m, payer, pinned - len(copies), cause, Use.ANONYMOUS)
            else:
                break
        split_for_fork(m, parent)
        child = _make_child(m, parent, payer, label, session, spare)
        changed = _copy_tables(m, parent, child, copies, spare)
    finally:
        for frame in (*spare, *copies):
            m.drop(frame)
        if child is None:
            payer.members -= 1
    yield from _shoot_parent(m, parent, child, changed)
    return child


def _make_child(m: Machine, parent: Space, payer: Group, label: str, session: Session, spare: list[int]) -> Space:
    """Returns a space with the parent's mappings and empty tables of the same shape; uses up `spare`."""
    assert isinstance(parent.table, FourLevelTable)
    table = FourLevelTable(m.ram, spare.pop())
    settings = replace(parent.settings, lock_future=LockFuture.NO)
    child = Space(Kind.PROCESS, payer.id, label, table, session, vmas=parent.vmas.copy(), settings=settings)
    child.heap_start, child.heap_end = parent.heap_start, parent.heap_end
    m.spaces.add(child)
    _inherit(child)
    m.frames.owner[table.root] = child.id
    for number, _ in parent.table.leaves(0, USER_END >> PAGE_SHIFT):
        own = parent.table.is_huge(number * PAGES_PER_LEAF)  # its leaf table comes with the huge page
        while table.missing(number * PAGES_PER_LEAF) > own:
            frame = spare.pop()
            m.frames.owner[frame] = child.id
            table.attach(number * PAGES_PER_LEAF, frame)
    for vma in child.vmas:
        if vma.object:
            m.objects.slot(vma.object).mappings += len(vma.pages)
    m.record(m.names.space(child.number), "space.forked", cause=m.names.space(parent.number), label=label)
    return child


def _inherit(child: Space) -> None:
    """Takes from a copy's mappings what a fork does not pass on."""
    for vma in child.vmas:
        if vma.flags & DONT_FORK:
            child.vmas.remove(vma.start, vma.end)
        elif vma.flags & LOCKED:
            child.vmas.change(vma.start, vma.end, lambda part: part.with_flags(0, LOCKED | ON_FAULT))


def _pinned_pages(m: Machine, parent: Space) -> list[int]:
    """Returns the private pages of a space that are pinned, by address: the child gets copies of them."""
    if not m.pinned_frames:
        return []
    found: list[int] = []
    for vma in parent.vmas:
        if vma.shared or vma.flags & (DONT_FORK | WIPE_ON_FORK):
            continue
        for vpns, some in entries(parent.table, vma.pages.start, vma.pages.stop):
            for vpn, entry in zip(vpns.tolist(), some.tolist(), strict=True):
                if in_ram(entry) and m.frames.use[frame_of(entry)] == Use.ANONYMOUS and m.ram.pins(frame_of(entry)):
                    found.append(vpn)
    return found


def _copy_tables(m: Machine, parent: Space, child: Space, copies: list[int], spare: list[int]) -> int:
    """Fills the child's leaf tables, and shares huge pages; returns how many pages lost their right to write."""
    pinned: dict[int, list[int]] = {}
    for vpn in _pinned_pages(m, parent):
        pinned.setdefault(vpn // PAGES_PER_LEAF, []).append(vpn)
    changed = 0
    left_out = frozenset(vma.start for vma in parent.vmas if _left_out(vma) or _comes_again(m, parent, vma))
    for number, _ in list(parent.table.leaves(0, USER_END >> PAGE_SHIFT)):
        if parent.table.is_huge(number * PAGES_PER_LEAF):
            changed += share(m, parent, child, number, spare.pop())
            continue
        changed += _copy_leaf(m, parent, child, number, left_out, pinned.get(number, []), copies)
    return changed


def _copy_leaf(
    m: Machine,
    parent: Space,
    child: Space,
    number: int,
    left_out: frozenset[int],
    pinned: list[int],
    copies: list[int],
) -> int:
    """Fills one leaf table of the child; returns how many pages of the parent lost their right to write.

    Mappings that start at `left_out` get no entries. Each of the `pinned` pages becomes one of the frames `copies`.
    """
    assert isinstance(parent.table, FourLevelTable) and isinstance(child.table, FourLevelTable)
    base = number * PAGES_PER_LEAF
    live = next(leaf for _, leaf in parent.table.leaves(base, base + PAGES_PER_LEAF))
    found: Any = np.array(live, np.uint64)
    found[_pages_with(parent, base, lambda vma: vma.start in left_out)] = 0
    in_ram = (found & np.uint64(PRESENT)) != 0
    in_ram |= (found & np.uint64(PRESENT | SWAPPED | GUARDED)) == np.uint64(GUARDED)
    protect = in_ram & ~_pages_with(parent, base, _is_shared) & ((found & np.uint64(RW | COW)) != np.uint64(COW))
    for vpn in pinned:
        found[vpn - base] = _copy_page(m, child, int(found[vpn - base]), copies)
        protect[vpn - base] = False
    changed = 0
    for place in np.flatnonzero(protect).tolist():
        old = update(parent.table, base + place, RW if found[place] & np.uint64(PRESENT) else 0, COW)
        changed += bool(old & PRESENT and old & RW)
        found[place] = old & ~RW | COW if old & PRESENT else old | COW
    child_entries = np.where(in_ram, found & _KEEP, found)
    child.table.fill(number, child_entries)
    _account(m, child, base, child_entries, in_ram)
    return changed


def _copy_page(m: Machine, child: Space, entry: int, copies: list[int]) -> int:
    """Returns the child's entry for a page that the parent keeps to itself: one of `copies`, with its content."""
    frame = copies.pop()
    m.ram.copy_frame(frame_of(entry), frame)
    m.soil(frame)
    m.policy.add(frame, child.group)
    m.frames.refs[frame] -= 1  # that of the list; the entry's is counted with all others
    return entry & ~ADDR_MASK | frame << PAGE_SHIFT


def _left_out(vma: Vma) -> bool:
    return bool(vma.flags & (DONT_FORK | WIPE_ON_FORK))


def _comes_again(m: Machine, parent: Space, vma: Vma) -> bool:
    """Returns whether all pages of a mapping are its object's, so that faults of the child can bring them."""
    if not vma.object or vma.shared:
        return bool(vma.object)
    for _, found in entries(parent.table, vma.pages.start, vma.pages.stop):
        in_ram = (found & _IN_RAM) != 0
        frames = ((found[in_ram] & _ADDRESS) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        if np.any(found[~in_ram]) or np.any(m.frames.uses[frames] != Use.OBJECT):
            return False
    return True


def _is_shared(vma: Vma) -> bool:
    return vma.shared


def _pages_with(space: Space, base: int, wanted: Callable[[Vma], bool]) -> Any:
    """Returns which of the 512 pages from `base` belong to mappings that are `wanted`."""
    mask = np.zeros(PAGES_PER_LEAF, np.bool_)
    for vma in space.vmas.within(base << PAGE_SHIFT, base + PAGES_PER_LEAF << PAGE_SHIFT):
        if wanted(vma):
            mask[max(vma.pages.start - base, 0) : vma.pages.stop - base] = True
    return mask


def _account(m: Machine, child: Space, base: int, child_entries: Any, in_ram: Any) -> None:
    """Counts the child's references to frames and swap slots."""
    places = np.flatnonzero(in_ram)
    frames = ((child_entries[places] & _ADDRESS) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    np.add.at(m.frames.refs_array, frames, 1)
    m.rmap.add_many(frames, child.id, places + base)
    child.resident += len(places)
    child.peak = max(child.peak, child.resident)
    swapped = np.flatnonzero(~in_ram & (child_entries != 0))
    slots = ((child_entries[swapped] & _ADDRESS) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    m.swap.add_references(slots)
    child.swapped += len(swapped)


def _shoot_parent(m: Machine, parent: Space, child: Space, changed: int) -> Step[None]:
    """Drops the parent's translations; when that fails the child is taken away again."""
    if not changed:
        return
    try:
        yield Shootdown(parent.root_address)
    except LaminaError:
        yield from delete_space(m, child)
        raise
