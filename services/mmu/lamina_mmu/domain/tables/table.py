"""What the MMU needs of a page table, be it bytes in RAM (`four_level.py`) or its own (`sparse.py`). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

PAGES_PER_LEAF = 512
"""Pages that one leaf table covers (2 MiB)."""


class PageTable(Protocol):
    """Entries by virtual page number (`vpn`, the address divided by 4096)."""

    def load(self, vpn: int) -> int:
        """Returns the entry of a page; 0 where there is no leaf table."""

    def cas(self, vpn: int, expected: int, new: int) -> int:
        """Stores `new` when `expected` is there; returns what was there. The leaf table must exist."""

    def is_huge(self, vpn: int) -> bool:
        """Returns whether one entry names the page and the 511 around it."""

    def clear_accessed(self, vpn: int) -> range:
        """Clears the A bit of a page; returns the pages whose bit it was."""

    def missing(self, vpn: int) -> int:
        """Returns how many table frames must be attached before the page can have an entry, 0 to 3."""

    def leaves(self, first: int, end: int) -> Iterator[tuple[int, Any]]:
        """Yields (leaf number, live array of its 512 entries) for each leaf table of pages `first` to `end` - 1."""


def leaf_numbers(present: Mapping[int, object], first: int, end: int) -> list[int]:
    """Returns, ascending, the keys of `present` (leaf numbers) that lie in pages `first` to `end` - 1."""
    low, high = first // PAGES_PER_LEAF, -(-end // PAGES_PER_LEAF)
    if high - low <= len(present):
        return [number for number in range(low, high) if number in present]
    return sorted(number for number in present if low <= number < high)


def entries(table: PageTable, first: int, end: int) -> Iterator[tuple[Any, Any]]:
    """Yields (page numbers, entries), both int arrays, of all pages in the range with an entry other than 0.

    One pair a leaf table, ascending. They are copies: a core may set A and D meanwhile.
    """
    for number, live in table.leaves(first, end):
        base = number * PAGES_PER_LEAF
        low, high = max(first - base, 0), min(end - base, PAGES_PER_LEAF)
        part = np.array(live[low:high], np.uint64)
        used = np.flatnonzero(part)
        if len(used):
            yield used + (base + low), part[used]


def update(table: PageTable, vpn: int, clear: int, put: int) -> int:
    """Clears and sets bits of an entry by compare-and-swap; returns the entry as it was."""
    entry = table.load(vpn)
    while True:
        found = table.cas(vpn, entry, entry & ~clear | put)
        if found == entry:
            return entry
        entry = found


def exchange(table: PageTable, vpn: int, new: int) -> int:
    """Replaces an entry by compare-and-swap, whatever A and D bits arrive meanwhile; returns the entry as it was."""
    entry = table.load(vpn)
    while (found := table.cas(vpn, entry, new)) != entry:
        entry = found
    return entry
