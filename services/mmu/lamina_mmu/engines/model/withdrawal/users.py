"""Taking pages away from those who use them: cores by shootdown, holders by revocation.

The caller changed the entries first. When `withdraw` returns, nobody can reach the pages through the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lamina_kit.effects import Step
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, PRESENT
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.tables.entry import HELD, frame_of
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.withdrawal.holders import revoke

MOST_RANGES = 4096
"""Most ranges of one shootdown; more drop all translations of the root."""


class Taken(NamedTuple):
    """A page whose entry was changed: which, what the entry was, and whether only the right to write went."""

    space: int
    vpn: int
    entry: int
    write_only: bool = False


def ranges_of(vpns: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Returns ascending page numbers as (address, bytes) ranges; none, meaning all, when there are too many."""
    found: list[tuple[int, int]] = []
    for vpn in vpns:
        address = vpn << PAGE_SHIFT
        if found and found[-1][0] + found[-1][1] == address:
            found[-1] = (found[-1][0], found[-1][1] + PAGE_SIZE)
        else:
            found.append((address, PAGE_SIZE))
    return tuple(found) if len(found) <= MOST_RANGES else ()


def withdraw(m: Machine, taken: Iterable[Taken]) -> Step[None]:
    """Shoots down and revokes; one shootdown a root, one revocation a holder and kind, in the order of the spaces.

    The roots and holders are looked up before the first yield: a space may be gone after it.
    """
    roots: dict[int, list[int]] = {}
    held: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for page in taken:
        space = m.spaces.slot(page.space)
        if not page.entry & PRESENT:
            continue
        if isinstance(space.table, FourLevelTable):
            roots.setdefault(space.root_address, []).append(page.vpn)
        elif page.entry & HELD and space.holder:
            pages = held.setdefault((space.holder, page.write_only), [])
            pages.append((page.vpn << PAGE_SHIFT, frame_of(page.entry)))
    for root, vpns in roots.items():
        yield Shootdown(root, ranges_of(sorted(vpns)))
    for (hold_id, write_only), pages in held.items():
        hold = m.holds.get(hold_id)
        if hold is not None:
            yield from revoke(m, hold, sorted(pages), write_only)
        else:  # it ended while a root was shot down; its bits of these pages are lost
            for _, frame in pages:
                m.soil(frame)
