"""Having the changes of shared mappings kept by the suppliers of their objects (msync)."""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_kit.errors import NotFound
from lamina_kit.paging import PAGE_SHIFT
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.objects.content import keep_pages


def sync_range(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Has what changed in a range's shared mappings kept; returns how many pages. A hole is told when the rest is done.

    Private mappings have nothing to keep, and what is mapped of a deleted object nobody will read again.
    """
    hole = m.spaces.get(handle).vmas.covers(start, end)
    kept, address = 0, start
    while address < end and (vma := _next_shared(m, m.spaces.get(handle), address, end)) is not None:
        low, high = max(address, vma.start), min(end, vma.end)
        entity = m.objects.slot(vma.object)
        first = vma.object_page(low >> PAGE_SHIFT)
        last = min(first + (high - low >> PAGE_SHIFT), entity.pages)
        if first < last:
            kept += yield from keep_pages(m, entity.handle, first, last)
        address = high
    if hole < end:
        raise NotFound(
            f"Nothing is mapped at {hole:#x}; what is mapped of the range is synchronized.",
            reason="RANGE_NOT_MAPPED",
            next_step="Name mapped ranges only (ListMappings).",
            address=f"{hole:#x}",
        )
    return kept


def _next_shared(m: Machine, space: Space, address: int, end: int) -> Vma | None:
    """Returns the next mapping of a range with changes to keep."""
    for vma in space.vmas.within(address, end):
        if vma.shared and vma.object and not m.objects.slot(vma.object).closing:
            return vma
    return None
