"""Fault-around: a read fault on a page of an object maps its neighbours that are in RAM too.

The window is aligned, so it never leaves the leaf table that the fault is in. The neighbours' A bits are clear: only a
core that uses them sets them. Source: Linux, mm/memory.c, do_fault_around.
"""

from __future__ import annotations

from lamina_kit.paging import PAGE_SHIFT, PRESENT
from lamina_mmu.domain.frames.table import BUSY
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import RANDOM, Vma
from lamina_mmu.domain.tables.entry import frame_of, leaf
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.engines.model.machine.state import Machine


def map_around(m: Machine, space: Space, vma: Vma, vpn: int) -> int:
    """Maps what is in RAM of the object around page `vpn`, whose leaf table is there; returns how many pages."""
    window = space.settings.fault_around_bytes >> PAGE_SHIFT
    table = space.table
    if window < 2 or vma.flags & RANDOM or not isinstance(table, FourLevelTable):
        return 0
    entity = m.objects.slot(vma.object)
    first = vpn // window * window
    mapped = 0
    for other in range(max(first, vma.pages.start), min(first + window, vma.pages.stop)):
        page = vma.object_page(other)
        if other == vpn or page >= entity.pages or table.load(other):
            continue
        content = entity.table.load(page)
        frame = frame_of(content)
        if content & PRESENT and not m.frames.flags[frame] & BUSY:
            table.cas(other, 0, leaf(frame, vma.rights, not vma.shared))
            m.note_mapped(space, other, frame)
            mapped += 1
    space.around += mapped
    return mapped
