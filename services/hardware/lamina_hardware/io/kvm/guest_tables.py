"""A guest's own page tables that are gone from its memory, found before KVM meets them. Pure but for the bus.

Where KVM walks by software, a table of the guest that the EPT took away becomes a page fault of the guest, which knows
nothing of it. So when pages are gone that were there once, the tables of the present address space are looked through
before the context runs, and one that is among them is an EPT violation right away: the holder brings it back. Those of
other address spaces are looked at when the context next runs with one of them.

Source: Intel SDM vol. 3, 5.5 (4-level paging).
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator

from lamina_hardware.domain.paging.walk import Access, Outcome
from lamina_hardware.io.kvm.ept_violation import refused
from lamina_hardware.io.kvm.slots import GuestMemory
from lamina_kit.bus.run_page import ExitRecord, RunPage
from lamina_kit.paging import ADDR_MASK, PAGE_SIZE, PRESENT, PS

_TABLE = struct.Struct("<512Q")
_PAGE_SHIFT = 12
_PG, _LMA = 1 << 31, 1 << 10
_MOST_TABLES = 1024
"""Tables that are read; what lies beyond may still become a fault of the guest."""


def table_that_is_gone(memory: GuestMemory, page: RunPage) -> ExitRecord | None:
    """Returns the exit for a table of the present address space that is gone; None when all are there."""
    if not memory.gone or not page.cr0 & _PG or not page.efer & _LMA:
        return None
    found = _absent(memory, page.cr3 & ADDR_MASK, memory.gone)
    return None if found is None else refused(memory.walk(found, Access.WRITE), found, Access.WRITE, 0)


def _absent(memory: GuestMemory, root: int, gone: Container[int]) -> int | None:
    """Returns the guest physical address of the first table under `root` that is gone."""
    above, seen = [root], {root}
    for level in (4, 3, 2, 1):
        absent = next((table for table in above if table >> _PAGE_SHIFT in gone), None)
        if absent is not None or level == 1:
            return absent
        below: list[int] = []
        for table in above:
            below += (found for found in _tables_below(memory, table, level) if found not in seen)
            seen.update(below)
            if len(seen) > _MOST_TABLES and level > 2:
                return None
        above = below
    return None


def _tables_below(memory: GuestMemory, table: int, level: int) -> Iterator[int]:
    """Yields the addresses of the tables that the entries of a table point to, each once."""
    walk = memory.walk(table, Access.READ)
    if walk.outcome is not Outcome.TRANSLATED:
        return
    entries = dict.fromkeys(_TABLE.unpack(memory.bus.read(walk.pa & -PAGE_SIZE, PAGE_SIZE)))
    for entry in entries:
        if entry & PRESENT and not (entry & PS and level < 4):
            yield entry & ADDR_MASK
