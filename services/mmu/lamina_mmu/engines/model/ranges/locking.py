"""Locking ranges in RAM (mlock, munlock).

A lock is a flag of the mapping. A page that an entry of a locked mapping names leaves the policy's order until the last
such entry is gone (`Machine.lock_frame`); it may still be moved, since only its entries know where it is.
"""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_kit.errors import NotFound, ResourceExhausted
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED, ON_FAULT, Vma
from lamina_mmu.engines.model.faults.populate import populate
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.ranges.mapping import check_locked, frames_within, settled, unlock_pages


def lock_range(m: Machine, handle: Handle, start: int, end: int, on_fault: bool) -> Step[int]:
    """Locks a range, and faults it in unless `on_fault`; returns how many bytes of the space are locked then.

    When memory does not suffice nothing is locked that was not before.
    """
    space = yield from settled(m, handle, start, end)
    check_covered(space, start, end)
    new = [vma for vma in space.vmas.within(start, end) if not vma.flags & LOCKED]
    check_locked(space, sum(min(end, vma.end) - max(start, vma.start) for vma in new))
    before = set_locked(m, space, start, end, on_fault)
    if not on_fault:
        try:
            yield from populate(m, handle, start, end, limit_reason="GROUP_LIMIT")
        except ResourceExhausted:
            yield from _take_back(m, handle, before)
            raise
    return m.spaces.get(handle).vmas.locked_bytes


def set_locked(m: Machine, space: Space, start: int, end: int, on_fault: bool) -> list[Vma]:
    """Gives the mappings of a range the flag, and locks their pages in RAM; returns the mappings as they were."""
    put, clear = (LOCKED | ON_FAULT, 0) if on_fault else (LOCKED, ON_FAULT)
    before = space.vmas.change(start, end, lambda vma: vma.with_flags(put, clear))
    for vma in before:
        if not vma.flags & LOCKED:
            for frame in frames_within(space, vma):
                m.lock_frame(frame)
    return before


def _take_back(m: Machine, handle: Handle, before: list[Vma]) -> Step[None]:
    """Unlocks what was not locked before; mappings that are gone by now took their locks with them."""
    for vma in before:
        if not vma.flags & LOCKED:
            space = yield from settled(m, handle, vma.start, vma.end)
            unlock_pages(m, space, vma.start, vma.end)


def unlock_range(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Unlocks a range; returns how many bytes of the space are still locked."""
    space = yield from settled(m, handle, start, end)
    check_covered(space, start, end)
    unlock_pages(m, space, start, end)
    return space.vmas.locked_bytes


def check_covered(space: Space, start: int, end: int) -> None:
    """Refuses a range with a page that is not mapped."""
    hole = space.vmas.covers(start, end)
    if hole < end:
        raise NotFound(
            f"Nothing is mapped at {hole:#x}.",
            reason="RANGE_NOT_MAPPED",
            next_step="Name mapped ranges only (ListMappings).",
            address=f"{hole:#x}",
        )
