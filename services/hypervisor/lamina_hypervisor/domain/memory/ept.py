"""The extended page table (EPT) of one VM: guest physical → host physical, four levels, in host RAM. Pure.

    entry:  63         52 51                     12 11 10 9 8 7  6  5   3 2 1 0
           ┌─────────────┬─────────────────────────┬─────┬─┬─┬──┬──┬─────┬─┬─┬─┐
           │ (ignored)   │ frame number            │     │D│A│PS│  │type │X│W│R│
           └─────────────┴─────────────────────────┴─────┴─┴─┴──┴──┴─────┴─┴─┴─┘

Cores read the table at any time and set A and D in its leaves, so every change is a compare-and-swap: a plain store
would bring back an entry that was just cleared. What compare-and-swap returns is also how the accessed and dirty bits
leave the table exactly once.

Table frames come from outside (`add_tables`) and are zeroed. `install` never allocates: it says how many tables it
lacks, so that it can run where nothing may be awaited. Source: Intel SDM vol. 3, 30.3.2 (EPT translation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Hpa, frame_address
from lamina_kit import paging
from lamina_kit.errors import Internal, Unavailable
from lamina_kit.paging import ADDR_MASK, EPT_A, EPT_D, EPT_R, EPT_W, EPT_X

EPT_WRITE_BACK = 6 << 3
"""Memory type of a leaf: write-back."""

_TABLE_RIGHTS = EPT_R | EPT_W | EPT_X
GPA_LIMIT = 1 << 48


class TableMemory(Protocol):
    """The host RAM that tables lie in; the kit's memory bus is one."""

    def load64(self, pa: int) -> int:
        """Returns the 8 bytes at `pa`."""

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Stores `new` at `pa` if `expected` is there; returns what was there."""


@dataclass(frozen=True)
class PageBits:
    """What the table said about a page: accessed since last taken, written since granted."""

    gpa: Gpa
    accessed: bool
    dirty: bool


@dataclass(frozen=True)
class EptVisit:
    """One entry that a walk read: `level` 4 is the root's."""

    level: int
    index: int
    address: Hpa
    entry: int


class Ept:
    """One VM's table. Not thread-safe against itself; safe against cores that set A and D."""

    def __init__(self, memory: TableMemory, root: Frame) -> None:
        self._memory = memory
        self.root = root
        self.tables: list[Frame] = [root]
        self._spare: list[Frame] = []
        self._held: dict[Gpa, Frame] = {}

    @property
    def mapped(self) -> int:
        """Number of guest pages that are mapped."""
        return len(self._held)

    @property
    def spare(self) -> int:
        """Number of table frames that are not in use yet."""
        return len(self._spare)

    def add_tables(self, frames: Iterable[Frame]) -> None:
        """Takes zeroed frames for tables to come."""
        self._spare.extend(frames)

    def all_table_frames(self) -> list[Frame]:
        """Returns every frame this table owns, used or spare, ascending: what its owner frees at the end."""
        return sorted([*self.tables, *self._spare])

    def tables_lacking(self, gpa: Gpa) -> int:
        """Returns how many spare tables `install(gpa)` needs beyond those there are, 0 to 3."""
        return max(0, paging.LEVELS - len(self.walk(gpa)) - len(self._spare))

    def install(self, gpa: Gpa, frame: Frame, *, writable: bool, executable: bool) -> int:
        """Maps one page, or widens the rights of one that is mapped; returns the entry as written.

        Needs `tables_lacking(gpa) == 0`. Another frame where one is mapped already is a defect of the granter:
        `Internal` `GRANT_CONFLICT`.
        """
        rights = EPT_R | (EPT_W if writable else 0) | (EPT_X if executable else 0)
        new = frame_address(frame) | EPT_WRITE_BACK | rights
        slot = self._slot(gpa)
        while True:
            old = self._memory.load64(slot)
            if old & EPT_R and old & ADDR_MASK != new & ADDR_MASK:
                raise Internal(
                    f"Frame {frame} was granted for guest page {gpa:#x}, which is mapped to frame {old >> 12:#x}.",
                    reason="GRANT_CONFLICT",
                    next_step="The memory layer must revoke a page before it grants another frame for it.",
                )
            entry = new | old
            if self._memory.cas64(slot, old, entry) == old:
                self._held[gpa] = frame
                return entry

    def revoke(self, gpa: Gpa, *, write_only: bool) -> PageBits | None:
        """Takes a page, or only the right to write it; returns its bits, None when it was not mapped.

        The dirty bit is handed over: after a `write_only` revocation the entry has neither W nor D.
        """
        slot = self._find(gpa)
        if slot is None:
            return None
        keep = ~(EPT_W | EPT_D | EPT_A) if write_only else 0
        old = self._exchange(slot, keep)
        if not write_only:
            del self._held[gpa]
        return PageBits(gpa, bool(old & EPT_A), bool(old & EPT_D))

    def take_ages(self, pages: Iterable[Gpa]) -> list[PageBits]:
        """Returns the bits of those pages that are mapped, by address; clears the accessed bits, dirty bits stay."""
        ages = []
        for gpa in sorted(set(pages)):
            slot = self._find(gpa)
            if slot is not None:
                old = self._exchange(slot, ~EPT_A)
                ages.append(PageBits(gpa, bool(old & EPT_A), bool(old & EPT_D)))
        return ages

    def entry(self, gpa: Gpa) -> int:
        """Returns the leaf entry of a page, 0 when it is not mapped."""
        slot = self._find(gpa)
        return 0 if slot is None else self._memory.load64(slot)

    def walk(self, gpa: Gpa) -> list[EptVisit]:
        """Returns the entries that a core reads for `gpa`, root first; it ends at the first that is not present."""
        visits: list[EptVisit] = []
        if not 0 <= gpa < GPA_LIMIT:
            return visits
        table = frame_address(self.root)
        for level in range(paging.LEVELS, 0, -1):
            index = paging.index(gpa, level)
            address = Hpa(table + 8 * index)
            entry = self._memory.load64(address)
            visits.append(EptVisit(level, index, address, entry))
            if not entry & EPT_R:
                break
            table = Hpa(entry & ADDR_MASK)
        return visits

    def translate(self, gpa: Gpa, *, write: bool = False) -> Hpa | None:
        """Returns where `gpa` lies in host RAM, None when it is not mapped or, for a write, not writable."""
        entry = self.entry(Gpa(paging.page_down(gpa)))
        if not entry & EPT_R or (write and not entry & EPT_W):
            return None
        return Hpa((entry & ADDR_MASK) | (gpa & paging.PAGE_MASK))

    def pages(self, start: Gpa) -> Iterator[tuple[Gpa, int]]:
        """Yields (gpa, entry) of every mapped page from `start` on, by address."""
        for gpa in sorted(page for page in self._held if page >= start):
            yield gpa, self.entry(gpa)

    def _find(self, gpa: Gpa) -> Hpa | None:
        """Returns the address of the leaf entry of a mapped page."""
        visits = self.walk(gpa)
        if len(visits) < paging.LEVELS or not visits[-1].entry & EPT_R:
            return None
        return visits[-1].address

    def _slot(self, gpa: Gpa) -> Hpa:
        """Returns the address of the leaf entry of any page, with tables made on the way."""
        table = frame_address(self.root)
        for level in range(paging.LEVELS, 1, -1):
            address = Hpa(table + 8 * paging.index(gpa, level))
            entry = self._memory.load64(address)
            if not entry & EPT_R:
                entry = frame_address(self._spare[0]) | _TABLE_RIGHTS
                if self._memory.cas64(address, 0, entry) != 0:
                    raise _taken_away(self.root)
                self.tables.append(self._spare.pop(0))
            table = Hpa(entry & ADDR_MASK)
        return Hpa(table + 8 * paging.index(gpa, 1))

    def _exchange(self, slot: Hpa, keep: int) -> int:
        """Clears all bits but `keep` of an entry against cores that set bits meanwhile; returns what it was."""
        while True:
            old = self._memory.load64(slot)
            if self._memory.cas64(slot, old, old & keep) == old:
                return old


def _taken_away(root: Frame) -> Unavailable:
    """Returns the error for a table whose free entries are not 0: the MMU has closed it to a holder that was silent."""
    return Unavailable(
        f"The EPT with its root in frame {root} was closed by the memory layer.",
        reason="EPT_CLOSED",
        next_step="Start the VM again; the service was too slow to answer a revocation.",
    )
