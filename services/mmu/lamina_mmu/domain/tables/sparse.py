"""Page entries kept by the MMU itself: a VM's RAM, whose tables are its holder's, and the pages of an object. Pure.

One array of 512 entries for each 2 MiB that has any: a VM of a GiB that touched 100 MiB costs 400 KiB here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lamina_kit.paging import ACCESSED
from lamina_mmu.domain.frames.table import column
from lamina_mmu.domain.tables.table import PAGES_PER_LEAF, leaf_numbers, update


class SparseTable:
    """Entries by page number, in arrays of the MMU's own. Nobody else writes them, so `cas` need not be atomic."""

    def __init__(self) -> None:
        self._leaves: dict[int, tuple[Any, memoryview]] = {}

    def load(self, vpn: int) -> int:
        """Returns the entry of a page; 0 when it never had one."""
        leaf = self._leaves.get(vpn // PAGES_PER_LEAF)
        entry: int = leaf[1][vpn % PAGES_PER_LEAF] if leaf else 0
        return entry

    def cas(self, vpn: int, expected: int, new: int) -> int:
        """Stores `new` when `expected` is there; returns what was there."""
        leaf = self._leaves.get(vpn // PAGES_PER_LEAF)
        if leaf is None:
            leaf = self._leaves[vpn // PAGES_PER_LEAF] = column(PAGES_PER_LEAF, np.uint64)
        found: int = leaf[1][vpn % PAGES_PER_LEAF]
        if found == expected:
            leaf[1][vpn % PAGES_PER_LEAF] = new
        return found

    def missing(self, vpn: int) -> int:
        """Returns 0: no frame is needed for the tables."""
        del vpn
        return 0

    def leaves(self, first: int, end: int) -> Iterator[tuple[int, Any]]:
        """Yields (leaf number, array of its entries), ascending."""
        for number in leaf_numbers(self._leaves, first, end):
            yield number, self._leaves[number][0]

    def block(self, pages: range) -> Any:
        """Returns a copy of the entries of whole aligned blocks of 512 pages, as an array."""
        empty = np.zeros(PAGES_PER_LEAF, np.uint64)
        numbers = range(pages.start // PAGES_PER_LEAF, pages.stop // PAGES_PER_LEAF)
        return np.concatenate([self._leaves[number][0] if number in self._leaves else empty for number in numbers])

    def put(self, pages: range, entries: Any) -> None:
        """Stores the entries of whole aligned blocks of 512 pages."""
        for offset in range(0, len(pages), PAGES_PER_LEAF):
            number = (pages.start + offset) // PAGES_PER_LEAF
            if number not in self._leaves:
                self._leaves[number] = column(PAGES_PER_LEAF, np.uint64)
            self._leaves[number][0][:] = entries[offset : offset + PAGES_PER_LEAF]

    def is_huge(self, vpn: int) -> bool:
        """Returns False: each page has an entry of its own."""
        del vpn
        return False

    def clear_accessed(self, vpn: int) -> range:
        """Clears the A bit of a page; returns it."""
        update(self, vpn, ACCESSED, 0)
        return range(vpn, vpn + 1)

    def prune(self, first: int, end: int) -> list[int]:
        """Drops the arrays in the range that hold nothing any more; no frames were used for them."""
        for number in leaf_numbers(self._leaves, first, end):
            if not np.any(self._leaves[number][0]):
                del self._leaves[number]
        return []

    def close(self) -> None:
        """Does nothing: it holds no view into RAM."""
