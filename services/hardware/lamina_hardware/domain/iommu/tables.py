"""Filling and clearing the table of a DMA domain that `MapDma` owns. Pure.

A mapping becomes runs of the largest pages that fit its alignment:

    iova  0x1ff000              0x200000                  0x40000000        0x40200000   end
          ├── 4 KiB entries ──┤├── 2 MiB entries ───────┤├── 1 GiB … ─────┤├── 2 MiB ──┤├─ 4 KiB ─┤

Which tables exist and what is mapped is kept here as well as in RAM: nobody else changes the structure, and bytes that
somebody scribbles into a table confuse only that domain's devices. A call counts the frames that it needs first, so it
does everything or nothing. An empty table's frame is spare again; a page that is unmapped in part is split.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lamina_hardware.domain.devices.dma import Physical
from lamina_kit.errors import AlreadyExists, ResourceExhausted
from lamina_kit.paging import ADDR_MASK, ENTRIES, EPT_D, EPT_PS, EPT_R, EPT_W, PAGE_SIZE, index, span

MAX_DIRTY = 262_144
_TABLE = EPT_R | EPT_W
_MOST_COUNTED = 1 << 20
"""How far the frames that are missing are counted: nobody gives more in one sitting."""

Key = tuple[int, int]
"""Level of a table, and the number of the range that it covers."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """`size` bytes of DMA addresses from `iova`, which lead to `pa`. All are multiples of 4096."""

    iova: int
    pa: int
    size: int
    read: bool
    write: bool

    @property
    def end(self) -> int:
        """First DMA address behind it."""
        return self.iova + self.size

    def part(self, start: int, end: int) -> Mapping:
        """Returns the piece from `start` up to `end`."""
        return Mapping(start, self.pa + start - self.iova, end - start, self.read, self.write)

    def continues(self, other: Mapping) -> bool:
        """Returns whether it says of its addresses what `other` says of them."""
        same = self.iova - self.pa == other.iova - other.pa
        return same and (self.read, self.write) == (other.read, other.write)


@dataclass(slots=True)
class Unmapped:
    """What unmapping found: bytes that were mapped, 4 KiB pages that were written, or that they are too many."""

    size: int = 0
    dirty: list[int] = field(default_factory=list)
    all_dirty: bool = False

    def note(self, iova: int, size: int) -> None:
        """Adds the pages of a leaf that was written."""
        if len(self.dirty) + size // PAGE_SIZE > MAX_DIRTY:
            self.all_dirty = True
            self.dirty.clear()
        if not self.all_dirty:
            self.dirty.extend(range(iova, iova + size, PAGE_SIZE))


def runs(mapping: Mapping) -> Iterator[tuple[Mapping, int]]:
    """Yields pieces of a mapping with the level of their leaves: 3 for 1 GiB, 2 for 2 MiB, 1 for 4 KiB."""
    at, skew = mapping.iova, mapping.iova - mapping.pa
    while at < mapping.end:
        level = next((n for n in (3, 2) if not at % span(n) and not skew % span(n) and mapping.end - at >= span(n)), 1)
        larger = span(level + 1)
        limit = mapping.end
        if level < 3 and not skew % larger:
            limit = min(limit, (at // larger + 1) * larger)
        end = at + (limit - at) // span(level) * span(level)
        yield mapping.part(at, end), level
        at = end


class DmaTables:
    """The table of one domain, from its root on. Frames are physical addresses."""

    def __init__(self, memory: Physical, root: int) -> None:
        self._memory = memory
        self._tables: dict[Key, int] = {(4, 0): root}
        self._counts: dict[Key, int] = {(4, 0): 0}
        self._starts: list[int] = []
        self._mappings: dict[int, Mapping] = {}
        self.spare: deque[int] = deque()
        self.mapped_bytes = 0

    @property
    def frames(self) -> list[int]:
        """Every frame that is a table, the root first."""
        return list(self._tables.values())

    def mappings(self) -> list[Mapping]:
        """Returns what is mapped, in the order of addresses."""
        return [self._mappings[start] for start in self._starts]

    def map(self, wanted: Sequence[Mapping]) -> None:
        """Maps all of `wanted`, which do not overlap; what is mapped just so already is passed over.

        Raises `AlreadyExists` `IOVA_IN_USE` or `ResourceExhausted` `TABLE_FRAMES_EXHAUSTED`; nothing is mapped then.
        """
        fresh = [mapping for mapping in wanted if not self._is_mapped(mapping)]
        self._take_frames(self._missing(fresh))
        for mapping in fresh:
            for piece, level in runs(mapping):
                self._fill(piece, level)
            self._book(mapping)

    def unmap(self, ranges: Sequence[tuple[int, int]]) -> Unmapped:
        """Unmaps ranges (start, end) and returns what was there.

        Raises `ResourceExhausted` `TABLE_FRAMES_EXHAUSTED` when pages must be split and no frame is left for the
        smaller ones; nothing is unmapped then.
        """
        splits = [key for start, end in ranges for edge in (start, end) for key in self._splits(edge)]
        self._check_frames(dict.fromkeys(splits))
        found = Unmapped()
        for key in dict.fromkeys(splits):
            self._split(key)
        for start, end in ranges:
            for mapping in self._overlapping(start, end):
                low, high = max(start, mapping.iova), min(end, mapping.end)
                self._clear(low, high, found)
                self._unbook(mapping, low, high)
        return found

    # ── what is mapped ───────────────────────────────────────────────────────────────────────────────────────────

    def _overlapping(self, start: int, end: int) -> list[Mapping]:
        first = max(bisect_right(self._starts, start) - 1, 0)
        near = (self._mappings[at] for at in self._starts[first : bisect_left(self._starts, end)])
        return [mapping for mapping in near if mapping.end > start]

    def _is_mapped(self, wanted: Mapping) -> bool:
        """Returns whether all of a mapping is there already; raises when other mappings are in its way."""
        at = wanted.iova
        found = self._overlapping(wanted.iova, wanted.end)
        for mapping in found:
            if mapping.iova > at or not mapping.continues(wanted):
                break
            at = mapping.end
        if found and at < wanted.end:
            raise AlreadyExists(
                f"DMA addresses from {wanted.iova:#x} up to {wanted.end:#x} are mapped otherwise already.",
                reason="IOVA_IN_USE",
                next_step="Unmap them first, or take others.",
                iova=f"{found[0].iova:#x}",
            )
        return bool(found)

    def _book(self, mapping: Mapping) -> None:
        insort(self._starts, mapping.iova)
        self._mappings[mapping.iova] = mapping
        self.mapped_bytes += mapping.size

    def _unbook(self, mapping: Mapping, low: int, high: int) -> None:
        del self._mappings[mapping.iova]
        del self._starts[bisect_left(self._starts, mapping.iova)]
        self.mapped_bytes -= mapping.size
        for start, end in ((mapping.iova, low), (high, mapping.end)):
            if start < end:
                self._book(mapping.part(start, end))

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _missing(self, wanted: Sequence[Mapping]) -> dict[Key, None]:
        """Returns the tables that mappings need and that do not exist, those of higher levels first."""
        missing: dict[Key, None] = {}
        for mapping in wanted:
            for piece, leaf in runs(mapping):
                for level in range(3, leaf - 1, -1):
                    for number in range(piece.iova // span(level + 1), (piece.end - 1) // span(level + 1) + 1):
                        if (level, number) not in self._tables:
                            missing[level, number] = None
                    if len(missing) > len(self.spare) + _MOST_COUNTED:
                        return missing
        return missing

    def _check_frames(self, keys: dict[Key, None]) -> None:
        missing = len(keys) - len(self.spare)
        if missing > 0:
            raise ResourceExhausted(
                f"The domain's table needs {len(keys)} more frames and has {len(self.spare)} to spare.",
                reason="TABLE_FRAMES_EXHAUSTED",
                next_step="Give it as many as are missing with AddTableFrames, and repeat the call.",
                missing=missing,
            )

    def _take_frames(self, keys: dict[Key, None]) -> None:
        """Makes empty tables and links them: a device that walks them finds nothing yet."""
        self._check_frames(keys)
        for key in sorted(keys, reverse=True):
            frame = self.spare.popleft()
            self._memory.write(frame, bytes(PAGE_SIZE))
            self._tables[key] = frame
            self._counts[key] = 0
            place = self._parent_place(key)
            self._memory.cas64(place, self._memory.load64(place), frame | _TABLE)
            self._counts[self._parent(key)] += 1

    @staticmethod
    def _parent(key: Key) -> Key:
        return key[0] + 1, key[1] // ENTRIES

    def _parent_place(self, key: Key) -> int:
        """Returns the address of the entry that names a table."""
        return self._tables[self._parent(key)] + 8 * (key[1] % ENTRIES)

    def _leaf_level(self, iova: int) -> int:
        """Returns the level of the leaf of a mapped address."""
        return next((level for level in (1, 2) if (level, iova // span(level + 1)) in self._tables), 3)

    # ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, piece: Mapping, level: int) -> None:
        bits = (EPT_R if piece.read else 0) | (EPT_W if piece.write else 0) | (EPT_PS if level > 1 else 0)
        at, step, reach = piece.iova, span(level), span(level + 1)
        while at < piece.end:
            key = (level, at // reach)
            count = (min(piece.end, (key[1] + 1) * reach) - at) // step
            first = piece.pa + at - piece.iova | bits
            words = struct.pack(f"<{count}Q", *range(first, first + count * step, step))
            self._memory.write(self._tables[key] + 8 * index(at, level), words)
            self._counts[key] += count
            at += count * step

    def _splits(self, edge: int) -> list[Key]:
        """Returns the tables that must be made so that no page lies on both sides of `edge`."""
        if not self._overlapping(edge, edge + 1):
            return []
        level = self._leaf_level(edge)
        return [(smaller, edge // span(smaller + 1)) for smaller in range(level - 1, 0, -1) if edge % span(smaller + 1)]

    def _split(self, key: Key) -> None:
        """Replaces a large leaf by a table of smaller ones with the same bits."""
        frame = self.spare.popleft()
        level, place = key[0], self._parent_place(key)
        while True:
            entry = self._memory.load64(place)
            bits = entry & ~ADDR_MASK & (~EPT_PS if level == 1 else ~0)
            first = entry & ADDR_MASK | bits
            words = range(first, first + ENTRIES * span(level), span(level))
            self._memory.write(frame, struct.pack(f"<{ENTRIES}Q", *words))
            if self._memory.cas64(place, entry, frame | _TABLE) == entry:
                break
        self._tables[key] = frame
        self._counts[key] = ENTRIES

    def _clear(self, at: int, end: int, found: Unmapped) -> None:
        """Takes the entries of a mapped range away, with the bits that they have."""
        while at < end:
            level = self._leaf_level(at)
            step, key = span(level), (level, at // span(level + 1))
            most = (min(end, (key[1] + 1) * span(level + 1)) - at) // step
            count = 1 if level > 1 else most
            while count < most and (level - 1, at // step + count) not in self._tables:
                count += 1
            old = self._memory.take64(self._tables[key] + 8 * index(at, level), count)
            for number, entry in enumerate(old):
                if entry & EPT_D:
                    found.note(at + number * step, step)
            found.size += count * step
            self._counts[key] -= count
            self._release(key)
            at += count * step

    def _release(self, key: Key) -> None:
        """Gives back the frames of a table that is empty, and of those above that are so then."""
        while key[0] < 4 and not self._counts[key]:
            self._memory.take64(self._parent_place(key), 1)
            self.spare.append(self._tables.pop(key))
            del self._counts[key]
            key = self._parent(key)
            self._counts[key] -= 1
