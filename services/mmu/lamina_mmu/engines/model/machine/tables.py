"""Attaching the page tables on the way to a page; entries that lag behind the rights of their mappings."""

from __future__ import annotations

from lamina_kit.paging import COW, NX
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import frame_of, leaf, permits
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import PageTable, update
from lamina_mmu.engines.model.machine.state import Machine


def build_tables(m: Machine, space: Space, vpn: int) -> list[int]:
    """Attaches the tables that are missing on the way to a page; returns their frames. Raises Short."""
    attached: list[int] = []
    table = space.table
    while table.missing(vpn):
        assert isinstance(table, FourLevelTable)
        frame = m.take_zeroed(Use.TABLE, space.group, space.id)
        m.keep(frame)
        table.attach(vpn, frame)
        attached.append(frame)
    return attached


def brought_up(table: PageTable, vpn: int, rights: int, access: int) -> int:
    """Returns the entry of a page in RAM, with all that its mapping allows by now if it does not permit `access`.

    Access 0 asks for nothing.
    """
    entry = table.load(vpn)
    if access and not permits(entry, access):
        update(table, vpn, NX, leaf(frame_of(entry), rights, bool(entry & COW)))
        entry = table.load(vpn)
    return entry
