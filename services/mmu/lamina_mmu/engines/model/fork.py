"""Copying a space: private pages become shared copy-on-write, shared ones stay shared.

All table frames of the copy are taken first (that may yield); then parent and child change in one go, a leaf table at a
time; last the parent's translations are shot down, since its pages lost their right to write.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.paging import ACCESSED, ADDR_MASK, COW, DIRTY, PAGE_SHIFT, PRESENT, RW, SWAPPED, USER_END
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.entry import GUARDED
from lamina_mmu.domain.four_level import FourLevelTable
from lamina_mmu.domain.group import Group
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.space import Kind, Space
from lamina_mmu.domain.table import PAGES_PER_LEAF, update
from lamina_mmu.engines.model.machine import Machine
from lamina_mmu.engines.model.mapping import transit_within
from lamina_mmu.engines.model.spaces import delete_space, take_tables

_KEEP = np.uint64(0xFFFF_FFFF_FFFF_FFFF & ~(ACCESSED | DIRTY))
_ADDRESS = np.uint64(ADDR_MASK)


def fork_space(m: Machine, handle: Handle, label: str, group: Group | None, session: Session) -> Step[Space]:
    """Makes a copy of a process space, charged to `group` (None: the parent's)."""
    spare: list[int] = []
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
            if len(spare) >= table.frames:
                break
            more = table.frames - len(spare)
            spare += yield from take_tables(m, payer, more, f"a fork of s-{parent.number}")
        child = _make_child(m, parent, payer, label, session, spare)
    finally:
        for frame in spare:
            m.drop(frame)
        if child is None:
            payer.members -= 1
    changed = sum([_copy_leaf(m, parent, child, number) for number, _ in list(table.leaves(0, USER_END >> PAGE_SHIFT))])
    yield from _shoot_parent(m, parent, child, changed)
    return child


def _make_child(m: Machine, parent: Space, payer: Group, label: str, session: Session, spare: list[int]) -> Space:
    """Returns a space with the parent's mappings and empty tables of the same shape; uses up `spare`."""
    assert isinstance(parent.table, FourLevelTable)
    table = FourLevelTable(m.ram, spare.pop())
    child = m.spaces.add(Space(Kind.PROCESS, payer.id, label, table, session, vmas=parent.vmas.copy()))
    m.frames.owner[table.root] = child.id
    for number, _ in parent.table.leaves(0, USER_END >> PAGE_SHIFT):
        while table.missing(number * PAGES_PER_LEAF):
            frame = spare.pop()
            m.frames.owner[frame] = child.id
            table.attach(number * PAGES_PER_LEAF, frame)
    for vma in child.vmas:
        if vma.object:
            m.objects.slot(vma.object).mappings += len(vma.pages)
    m.record(m.names.space(child.number), "space.forked", cause=m.names.space(parent.number), label=label)
    return child


def _copy_leaf(m: Machine, parent: Space, child: Space, number: int) -> int:
    """Fills one leaf table of the child; returns how many pages of the parent lost their right to write."""
    assert isinstance(parent.table, FourLevelTable) and isinstance(child.table, FourLevelTable)
    base = number * PAGES_PER_LEAF
    live = next(leaf for _, leaf in parent.table.leaves(base, base + PAGES_PER_LEAF))
    found: Any = np.array(live, np.uint64)
    in_ram = (found & np.uint64(PRESENT)) != 0
    in_ram |= (found & np.uint64(PRESENT | SWAPPED | GUARDED)) == np.uint64(GUARDED)
    protect = in_ram & ~_shared_pages(parent, base) & ((found & np.uint64(RW | COW)) != np.uint64(COW))
    changed = 0
    for place in np.flatnonzero(protect).tolist():
        old = update(parent.table, base + place, RW if found[place] & np.uint64(PRESENT) else 0, COW)
        changed += bool(old & PRESENT and old & RW)
        found[place] = old & ~RW | COW if old & PRESENT else old | COW
    child_entries = np.where(in_ram, found & _KEEP, found)
    child.table.fill(number, child_entries)
    _account(m, child, base, child_entries, in_ram)
    return changed


def _shared_pages(space: Space, base: int) -> Any:
    """Returns which of the 512 pages from `base` belong to shared mappings."""
    shared = np.zeros(PAGES_PER_LEAF, np.bool_)
    for vma in space.vmas.within(base << PAGE_SHIFT, base + PAGES_PER_LEAF << PAGE_SHIFT):
        if vma.shared:
            shared[max(vma.pages.start - base, 0) : vma.pages.stop - base] = True
    return shared


def _account(m: Machine, child: Space, base: int, child_entries: Any, in_ram: Any) -> None:
    """Counts the child's references to frames and swap slots."""
    places = np.flatnonzero(in_ram)
    frames = ((child_entries[places] & _ADDRESS) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    np.add.at(m.frames.refs_array, frames, 1)
    m.rmap.add_many(frames, child.id, places + base)
    child.resident += len(places)
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
