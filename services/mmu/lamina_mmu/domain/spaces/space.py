"""An address space: its mappings, its table, its counters. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.domain.spaces.settings import SpaceSettings
from lamina_mmu.domain.spaces.vma import LOCKED, Vma
from lamina_mmu.domain.spaces.vmas import VmaList
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.sparse import SparseTable


class Kind(IntEnum):
    """What a space is for; the numbers are those of the contract's `Space.Kind`."""

    PROCESS = 1
    GUEST_RAM = 2


@dataclass(slots=True)
class Space:
    """One space. `group` is the id of the group that is charged; `closing` spaces take no new work.

    `holder` is the hold that has pages of it in a table of its own (0: none). `session` is what it belongs to. The heap
    lies from `heap_start` (0: there is none) to `heap_end` - 1, a byte address. Counters are in pages and faults.
    """

    kind: Kind
    group: int
    label: str
    table: FourLevelTable | SparseTable
    session: Session = NOBODY
    id: int = 0
    generation: int = 0
    number: int = 0
    closing: bool = False
    holder: int = 0
    vmas: VmaList = field(default_factory=VmaList)
    resident: int = 0
    swapped: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    cow_faults: int = 0
    refused_faults: int = 0
    settings: SpaceSettings = field(default_factory=SpaceSettings)
    heap_start: int = 0
    heap_end: int = 0
    around: int = 0
    read_ahead: int = 0
    peak: int = 0

    @property
    def handle(self) -> Handle:
        """Returns the handle of this life of the space."""
        return Handle(self.id, self.generation)

    @property
    def root_address(self) -> int:
        """Returns what CR3 holds; 0 for a VM's RAM."""
        return self.table.root_address if isinstance(self.table, FourLevelTable) else 0

    @property
    def table_frames(self) -> int:
        """Returns how many frames the page tables take."""
        return self.table.frames if isinstance(self.table, FourLevelTable) else 0

    @property
    def huge_pages(self) -> int:
        """Returns how many huge pages of 2 MiB its tables have."""
        return self.table.huge_pages if isinstance(self.table, FourLevelTable) else 0

    @property
    def weight(self) -> int:
        """Returns the pages that its end would set free, RAM, swap and tables: what an OOM victim is chosen by."""
        return self.resident + self.swapped + self.table_frames

    def may_grow(self, grown: Vma) -> bool:
        """Returns whether the limits let a mapping be as it is `grown`, down from where it begins now."""
        more = grown.size - sum(vma.size for vma in self.vmas.within(grown.start, grown.end))
        mapped, locked = self.settings.mapped_max_bytes, self.settings.locked_max_bytes
        if mapped is not None and self.vmas.mapped_bytes + more > mapped:
            return False
        return not grown.flags & LOCKED or locked is None or self.vmas.locked_bytes + more <= locked

    def badness(self, total: int) -> int | None:
        """Returns its weight with its adjustment, each 1000th worth that part of `total` pages; None: never a victim.

        Source: Linux, mm/oom_kill.c, oom_badness.
        """
        adjust = self.settings.oom_score_adjust
        return None if adjust == -1000 else self.weight + adjust * total // 1000
