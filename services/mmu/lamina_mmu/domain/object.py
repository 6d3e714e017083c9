"""A memory object: content that several spaces map, a page cache's file or shared memory. Pure.

Its pages are entries by page number, as a space's are: 0 (zeros, nothing stored), a frame, or a swap slot. A private
mapping of it shows its frames read-only with COW; a shared one writes to them. It lives until it is deleted *and* no
mapping refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.paging import PAGE_SHIFT, page_up
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.domain.tables.sparse import SparseTable


@dataclass(slots=True)
class MemoryObject:
    """One object of `size` bytes; `mappings` counts the mapped pages that refer to it, and operations that need it.

    `supplier` is the stream that has its bytes (0: none); `supplied`: pages that are not here are somebody's to bring,
    now or when there is a supplier again. `keeps_writes`, `readahead`: as that stream said. `resized`: it was longer.
    """

    size: int
    group: int
    label: str
    session: Session = NOBODY
    id: int = 0
    generation: int = 0
    number: int = 0
    closing: bool = False
    table: SparseTable = field(default_factory=SparseTable)
    mappings: int = 0
    resident: int = 0
    swapped: int = 0
    supplier: int = 0
    supplied: bool = False
    keeps_writes: bool = False
    readahead: int = 1
    resized: bool = False

    @property
    def handle(self) -> Handle:
        """Returns the handle of this life of the object."""
        return Handle(self.id, self.generation)

    @property
    def pages(self) -> int:
        """Returns how many pages it has."""
        return page_up(self.size) >> PAGE_SHIFT
