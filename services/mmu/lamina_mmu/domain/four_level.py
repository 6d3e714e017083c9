"""Page tables of four levels, as bytes in RAM that a core walks. Pure.

    root (level 4, CR3) ──▶ level 3 ──▶ level 2 ──▶ leaf (level 1) ──▶ page
      key: 0                vpn >> 27    vpn >> 18    vpn >> 9

`lamina_kit.paging` shows the address split. The tables of a space are known here by (level, key), so that an entry is
found in one step; the entries themselves are in RAM alone, change by compare-and-swap alone, and are read from there.
The upper levels always carry P, RW and US: what a page allows is decided in its leaf.
Source: Intel SDM vol. 3, 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina_kit.errors import Internal
from lamina_kit.paging import ENTRIES, LEVELS, PAGE_SHIFT, PAGE_SIZE, PRESENT, index
from lamina_mmu.domain.entry import TABLE, frame_of
from lamina_mmu.domain.ram import Ram
from lamina_mmu.domain.table import leaf_numbers


@dataclass(frozen=True, slots=True)
class Visit:
    """One entry on the way of a walk: level of the table, index in it, where the entry is and what it holds."""

    level: int
    index: int
    entry_address: int
    entry: int


class FourLevelTable:
    """The page tables under one root frame. Frames for tables come from the caller, zeroed."""

    def __init__(self, ram: Ram, root: int) -> None:
        self._ram = ram
        self.root = root
        self._tables: dict[tuple[int, int], int] = {}
        self._children: dict[tuple[int, int], int] = {}
        self._leaves: dict[int, tuple[int, memoryview]] = {}

    @property
    def root_address(self) -> int:
        """Returns the physical address of the root table."""
        return self.root << PAGE_SHIFT

    @property
    def frames(self) -> int:
        """Returns how many frames the tables take, the root included."""
        return 1 + len(self._tables)

    def table_frames(self) -> list[int]:
        """Returns the frames of all tables, the root last."""
        return [*self._tables.values(), self.root]

    def load(self, vpn: int) -> int:
        """Returns the entry of a page from RAM; 0 where there is no leaf table."""
        leaf = self._leaves.get(vpn >> 9)
        entry: int = leaf[1][vpn & 511] if leaf else 0
        return entry

    def cas(self, vpn: int, expected: int, new: int) -> int:
        """Stores `new` when `expected` is there; returns what was there."""
        return self._ram.cas64(self._leaves[vpn >> 9][0] + 8 * (vpn & 511), expected, new)

    def missing(self, vpn: int) -> int:
        """Returns how many table frames must be attached before the page can have an entry, 0 to 3."""
        if vpn >> 9 in self._leaves:
            return 0
        return sum((level, vpn >> 9 * level) not in self._tables for level in range(1, LEVELS))

    def attach(self, vpn: int, frame: int) -> None:
        """Puts a zeroed frame into the highest missing level on the way to the page."""
        for level in range(LEVELS - 1, 0, -1):
            key = (level, vpn >> 9 * level)
            if key not in self._tables:
                self._link(vpn, level, frame)
                self._tables[key] = frame
                if level == 1:
                    base = frame << PAGE_SHIFT
                    self._leaves[vpn >> 9] = (base, self._ram.view(base, PAGE_SIZE).cast("Q"))
                return
        raise Internal(f"Page {vpn:#x} has all its tables.", reason="TABLE_EXISTS")

    def leaves(self, first: int, end: int) -> Iterator[tuple[int, Any]]:
        """Yields (leaf number, live read-only array of its 512 entries), ascending."""
        for number in leaf_numbers(self._leaves, first, end):
            yield number, np.frombuffer(self._leaves[number][1], np.uint64)

    def prune(self, first: int, end: int) -> list[int]:
        """Detaches the tables of the range that hold nothing any more; returns their frames.

        They may be used again once the translations of the range are shot down.
        """
        freed: list[int] = []
        for number in leaf_numbers(self._leaves, first, end):
            if not np.any(np.frombuffer(self._leaves[number][1], np.uint64)):
                self._leaves.pop(number)
                freed += self._detach(1, number)
        return freed

    def walk(self, vpn: int) -> list[Visit]:
        """Returns every entry that a core would visit for the page, root first, up to the first without P."""
        visits: list[Visit] = []
        table = self.root_address
        for level in range(LEVELS, 0, -1):
            position = index(vpn << PAGE_SHIFT, level)
            entry = self._ram.load64(table + 8 * position)
            visits.append(Visit(level, position, table + 8 * position, entry))
            if not entry & PRESENT:
                break
            table = frame_of(entry) << PAGE_SHIFT
        return visits

    def fill(self, number: int, entries: Sequence[int] | Any) -> None:
        """Writes all 512 entries of a leaf table at once: allowed while no core can know the space."""
        self._ram.write(self._leaves[number][0], np.ascontiguousarray(entries, np.uint64).tobytes())

    def close(self) -> None:
        """Lets go of the views into RAM."""
        for _, view in self._leaves.values():
            view.release()
        self._leaves.clear()

    def _parent(self, level: int, key: int) -> int:
        """Returns the physical address of the entry that names table (level, key)."""
        above = self.root if level == LEVELS - 1 else self._tables[level + 1, key >> 9]
        return (above << PAGE_SHIFT) + 8 * (key % ENTRIES)

    def _link(self, vpn: int, level: int, frame: int) -> None:
        key = vpn >> 9 * level
        address = self._parent(level, key)
        if self._ram.cas64(address, 0, frame << PAGE_SHIFT | TABLE):
            raise Internal(f"The entry at {address:#x} is in use.", reason="TABLE_CORRUPT")
        if level < LEVELS - 1:
            self._children[level + 1, key >> 9] = self._children.get((level + 1, key >> 9), 0) + 1

    def _detach(self, level: int, key: int) -> list[int]:
        address = self._parent(level, key)
        entry = self._ram.load64(address)
        while (found := self._ram.cas64(address, entry, 0)) != entry:
            entry = found  # a core set A meanwhile
        freed = [self._tables.pop((level, key))]
        if level == LEVELS - 1:
            return freed
        above = (level + 1, key >> 9)
        self._children[above] -= 1
        if not self._children[above]:
            del self._children[above]
            freed += self._detach(*above)
        return freed
