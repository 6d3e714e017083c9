"""Explaining an address: its split, every entry on the way, the mapping, and where the page is. No side effects."""

from __future__ import annotations

import numpy as np

from lamina_kit.paging import COW, PAGE_SHIFT, PRESENT, SWAPPED, USER_END
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.swap.areas import LOST
from lamina_mmu.domain.tables.entry import frame_of, in_ram, is_swap, is_transit, slot_of
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import entries
from lamina_mmu.domain.views import MappingView, Translation
from lamina_mmu.engines.model.machine.state import Machine

_KIND = np.uint64(PRESENT | SWAPPED)
_IN_SWAP = np.uint64(SWAPPED)


def translate(m: Machine, space: Space, address: int) -> Translation:
    """Returns where an address leads. A page in transit counts as in RAM: its bytes still are."""
    if address >= USER_END:
        return Translation(address, None)
    vma = space.vmas.at(address)
    mapping = None if vma is None else mapping_view(m, space, vma)
    vpn = address >> PAGE_SHIFT
    visits = tuple(space.table.walk(vpn)) if isinstance(space.table, FourLevelTable) else ()
    entry = space.table.load(vpn)
    if in_ram(entry) or is_transit(entry):
        return Translation(address, mapping, visits, frame_of(entry), cow=bool(entry & COW))
    if is_swap(entry):
        slot = slot_of(entry)
        if slot == LOST:
            return Translation(address, mapping, visits)
        return Translation(address, mapping, visits, slot=slot, cow=m.swap.refs[slot] > 1)
    return Translation(address, mapping, visits)


def mapping_view(m: Machine, space: Space, vma: Vma) -> MappingView:
    """Returns a mapping with its pages counted."""
    resident = swapped = 0
    for _, found in entries(space.table, vma.pages.start, vma.pages.stop):
        in_swap = int(np.count_nonzero((found & _KIND) == _IN_SWAP))
        swapped += in_swap
        resident += len(found) - in_swap
    return MappingView(vma, m.objects.slot(vma.object).number if vma.object else 0, resident, swapped)
