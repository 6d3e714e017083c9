"""Page tables of four levels, as bytes in RAM that a core walks. Pure.

    root (level 4, CR3) ──▶ level 3 ──▶ level 2 ──▶ leaf (level 1) ──▶ page
      key: 0                vpn >> 27    vpn >> 18    vpn >> 9
                                          ╰─▶ huge page: 512 frames in a row, one entry with PS, no leaf table

A huge page is 512 pages that one entry names. It looks like 512 entries to whoever asks for one; whoever changes one
splits it: the frame that was put aside for its leaf table is filled with the bits of the one entry, and takes its
place. Bits that cores set (A, D) are set in the one entry. Whoever changes a page shoots it down, and so drops the
huge translation too. Source: Intel SDM vol. 3, 5.10.4.2 (INVLPG drops translations of the page whatever their size).

`lamina_kit.paging` shows the address split. The tables of a space are known here by (level, key), so that an entry is
found in one step; the entries themselves are in RAM alone, change by compare-and-swap alone, and are read from there.
The upper levels always carry P, RW and US: what a page allows is decided in its leaf.
Source: Intel SDM vol. 3, 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina_kit.errors import Internal
from lamina_kit.paging import ACCESSED, DIRTY, ENTRIES, LEVELS, PAGE_SHIFT, PAGE_SIZE, PRESENT, PS, index
from lamina_mmu.domain.frames.ram import Ram
from lamina_mmu.domain.tables.entry import TABLE, frame_of
from lamina_mmu.domain.tables.table import leaf_numbers, update


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
        self._huge: dict[int, int] = {}

    @property
    def root_address(self) -> int:
        """Returns the physical address of the root table."""
        return self.root << PAGE_SHIFT

    @property
    def frames(self) -> int:
        """Returns how many frames the tables take, the root included."""
        return 1 + len(self._tables) + len(self._huge)

    def table_frames(self) -> list[int]:
        """Returns the frames of all tables, the root last."""
        return [*self._tables.values(), *self._huge.values(), self.root]

    def load(self, vpn: int) -> int:
        """Returns the entry of a page from RAM; 0 where there is no leaf table."""
        leaf = self._leaves.get(vpn >> 9)
        if leaf is None:
            return _part(self._huge_entry(vpn >> 9), vpn) if vpn >> 9 in self._huge else 0
        entry: int = leaf[1][vpn & 511]
        return entry

    def cas(self, vpn: int, expected: int, new: int) -> int:
        """Stores `new` when `expected` is there; returns what was there. A huge page is split if it must be."""
        if self._huge and vpn >> 9 in self._huge:
            return self._cas_huge(vpn, expected, new)
        return self._ram.cas64(self._leaves[vpn >> 9][0] + 8 * (vpn & 511), expected, new)

    def missing(self, vpn: int) -> int:
        """Returns how many table frames must be attached before the page can have an entry, 0 to 3."""
        if vpn >> 9 in self._leaves or vpn >> 9 in self._huge:
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
        """Yields (leaf number, read-only array of its 512 entries), ascending; live but for huge pages."""
        known: Mapping[int, object] = {**self._leaves, **self._huge} if self._huge else self._leaves
        for number in leaf_numbers(known, first, end):
            if number in self._huge:
                yield number, _parts(self._huge_entry(number))
            else:
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
            if not entry & PRESENT or (level > 1 and entry & PS):
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

    # ── huge pages ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def huge_pages(self) -> int:
        """Returns how many huge pages there are."""
        return len(self._huge)

    def is_huge(self, vpn: int) -> bool:
        """Returns whether a page is part of a huge page."""
        return vpn >> 9 in self._huge

    def huge_numbers(self, first: int, end: int) -> list[int]:
        """Returns the leaf numbers of the huge pages that pages `first` to `end` - 1 touch, ascending."""
        return leaf_numbers(self._huge, first, end)

    def map_huge(self, number: int, entry: int, spare: int) -> None:
        """Names 512 frames from that of `entry` on by one entry; `spare` is the frame of the table for its split.

        Only the leaf table may be missing.
        """
        if self._ram.cas64(self._parent(1, number), 0, entry | PS):
            raise Internal(f"The 2 MiB at page {number << 9:#x} are in use.", reason="TABLE_CORRUPT")
        self._huge[number] = spare
        self._children[2, number >> 9] = self._children.get((2, number >> 9), 0) + 1

    def change_huge(self, number: int, clear: int, put: int) -> int:
        """Clears and sets bits of a huge page's entry; returns the entry as it was."""
        address = self._parent(1, number)
        entry = self._ram.load64(address)
        while (found := self._ram.cas64(address, entry, entry & ~clear | put)) != entry:
            entry = found
        return entry

    def split(self, number: int) -> None:
        """Makes 512 pages of a huge page, with its bits and rights."""
        spare, address = self._huge[number], self._parent(1, number)
        base = spare << PAGE_SHIFT
        entry = self._ram.load64(address)
        while True:
            self._ram.write(base, _parts(entry).tobytes())
            found = self._ram.cas64(address, entry, base | TABLE)
            if found == entry:
                break
            entry = found  # a core set A or D meanwhile
        del self._huge[number]
        self._tables[1, number] = spare
        self._leaves[number] = (base, self._ram.view(base, PAGE_SIZE).cast("Q"))

    def join(self, number: int, entry: int) -> None:
        """Names 512 frames from that of `entry` on by one entry, in the place of a leaf table, which is put aside.

        Nobody uses the leaf table's entries: they are shot down and in transit.
        """
        base, view = self._leaves.pop(number)
        address = self._parent(1, number)
        old = self._ram.load64(address)
        while (found := self._ram.cas64(address, old, entry | PS)) != old:
            old = found  # a core set A of the entry that names the table
        view.release()
        del self._tables[1, number]
        self._huge[number] = base >> PAGE_SHIFT

    def clear_accessed(self, vpn: int) -> range:
        """Clears the A bit of a page, or of the huge page that it is part of; returns the pages whose bit it was."""
        if self.is_huge(vpn):
            self.change_huge(vpn >> 9, ACCESSED, 0)
            return range(vpn & ~511, (vpn & ~511) + ENTRIES)
        update(self, vpn, ACCESSED, 0)
        return range(vpn, vpn + 1)

    def _huge_entry(self, number: int) -> int:
        return self._ram.load64(self._parent(1, number))

    def _cas_huge(self, vpn: int, expected: int, new: int) -> int:
        """Is `cas` of a page of a huge page: sets A and D in the one entry; anything else splits it."""
        address = self._parent(1, vpn >> 9)
        gained = new & ~expected
        while True:
            entry = self._ram.load64(address)
            if (found := _part(entry, vpn)) != expected:
                return found
            if expected & ~new or gained & ~(ACCESSED | DIRTY):
                self.split(vpn >> 9)
                return self.cas(vpn, expected, new)
            if self._ram.cas64(address, entry, entry | gained) == entry:
                return expected

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

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


def _part(entry: int, vpn: int) -> int:
    """Returns the entry that page `vpn` would have if the huge page of `entry` were split."""
    return (entry & ~PS) + ((vpn & (ENTRIES - 1)) << PAGE_SHIFT)


def _parts(entry: int) -> Any:
    """Returns the 512 entries that a huge page's entry stands for."""
    return np.uint64(entry & ~PS) + (np.arange(ENTRIES, dtype=np.uint64) << np.uint64(PAGE_SHIFT))
