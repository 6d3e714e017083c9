"""Attaching the page tables on the way to a page."""

from __future__ import annotations

from lamina_mmu.domain.four_level import FourLevelTable
from lamina_mmu.domain.frames import Use
from lamina_mmu.domain.space import Space
from lamina_mmu.engines.model.machine import Machine


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
