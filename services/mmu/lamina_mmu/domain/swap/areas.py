"""Swap: areas of slots, who refers to them, and which frames still hold a copy. Pure.

    entry SWAP(slot) ──▶ slot ◀── frame that was read from it and not written since (the swap cache)

A slot lives while an entry names it or a frame caches it. A clean page keeps its slot and leaves RAM again without a
write. When slots run short, those that only a cache holds are taken back: the page itself is in RAM.

Several areas share one number space: slot number = area's index · 2^32 + slot in the area, 40 bits, as an entry holds
them. The first area has index 0. Slots are taken from the area of highest priority that has some, turn by turn among
equals. One slot lies in no area: LOST, which entries of pages name whose memory failed with the only copy in it.

The bytes lie behind the `SwapStore` port. Each slot has a checksum, so that bytes which rotted are reported
(SWAP_CORRUPT) and never mapped. Source: Linux mm/swapfile.c, swapon(8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, cast

import numpy as np

from lamina_kit.errors import DataLoss, LaminaError
from lamina_mmu.domain.frames.table import column
from lamina_mmu.domain.swap.crc32c import crc32c
from lamina_mmu.domain.swap.transfers import DiskStore

AREA_SHIFT = 32
MOST_AREAS = 32
LOST = 255 << AREA_SHIFT
"""The slot of pages that are lost: it cannot be read, is charged to nobody and never freed."""
_IN_AREA = (1 << AREA_SHIFT) - 1
FIRST = "swap"
"""Name of the area that the configuration asks for."""


class SwapStore(Protocol):
    """Keeps pages of 4096 bytes by slot number. Errors of the device are `DataLoss` or `ResourceExhausted`."""

    slots: int
    """How many slots there are."""

    def write(self, slot: int, data: bytes | memoryview, /) -> None:
        """Stores 4096 bytes."""

    def read(self, slot: int, /) -> bytes:
        """Returns the 4096 bytes stored last."""


class State(IntEnum):
    """What an area does; the numbers are those of the contract's `SwapArea.State`."""

    ACTIVE = 1
    DRAINING = 2
    FAILED = 3


@dataclass(slots=True)
class SwapArea:
    """Slots of one area, numbered from 0.

    Columns, one element a slot: `refs` (entries that name it), `frame` (that caches it; 0 none), `group` (that pays),
    `sum` (CRC-32C). On a `disk` slots are `writing` while a write is under way, `fetched` when a read brought the page
    that somebody waits for, and in `failed_reads` when it did not.
    """

    store: SwapStore | DiskStore
    name: str = FIRST
    index: int = 0
    priority: int = 0
    state: State = State.ACTIVE
    disk: DiskStore | None = None
    refusing: bool = False
    written: int = 0
    read_back: int = 0
    corrupt: dict[int, None] = field(default_factory=dict)
    writing: dict[int, None] = field(default_factory=dict)
    failed_reads: dict[int, LaminaError] = field(default_factory=dict)
    fetched: dict[int, None] = field(default_factory=dict)
    count: int = field(init=False)
    refs_array: Any = field(init=False)
    refs: memoryview = field(init=False)
    frame_array: Any = field(init=False)
    frame: memoryview = field(init=False)
    group: memoryview = field(init=False)
    sum: memoryview = field(init=False)
    used_array: Any = field(init=False)
    _used: memoryview = field(init=False)
    _freed: list[int] = field(default_factory=list)
    _late: dict[int, None] = field(default_factory=dict)
    _fresh: int = 0
    _free: int = 0

    def __post_init__(self) -> None:
        self.count = self._free = self.store.slots
        self.refs_array, self.refs = column(self.count, np.int32)
        self.frame_array, self.frame = column(self.count, np.int32)
        _, self.group = column(self.count, np.int32)
        _, self.sum = column(self.count, np.uint32)
        self.used_array, self._used = column(self.count, np.uint8)

    @property
    def base(self) -> int:
        """Returns the number of slot 0 among the slots of all areas."""
        return self.index << AREA_SHIFT

    @property
    def used(self) -> int:
        """Returns how many slots are in use."""
        return self.count - self._free

    @property
    def free(self) -> int:
        """How many slots can be taken; 0 while the area is `refusing`, as if something else had taken them."""
        return 0 if self.refusing or self.state == State.DRAINING else self._free

    @property
    def writable(self) -> bool:
        """Returns whether pages go to the area: it is not drained, and its medium does not fail."""
        return self.state == State.ACTIVE

    def take(self, group: int) -> int:
        """Takes a free slot for `group`; -1 when there is none."""
        if self.refusing or self.state == State.DRAINING:
            return -1
        if self._freed:
            slot = self._freed.pop()
        elif self._fresh < self.count:
            slot = self._fresh
            self._fresh += 1
        else:
            return -1
        self._used[slot] = 1
        self.group[slot] = group
        self._free -= 1
        return slot

    def give_back(self, slot: int) -> None:
        """Frees a slot that nobody refers to."""
        self._used[slot] = 0
        self.frame[slot] = 0
        self.refs[slot] = 0
        self.corrupt.pop(slot, None)
        self.failed_reads.pop(slot, None)
        self.fetched.pop(slot, None)
        if slot in self.writing:
            self._late[slot] = None
            return
        self._freed.append(slot)
        self._free += 1

    def write_ended(self, slot: int) -> None:
        """Notes that no write to a slot is under way; one that was given back meanwhile is free from now on."""
        self.writing.pop(slot, None)
        if self._late.pop(slot, 0) is None:
            self._freed.append(slot)
            self._free += 1

    def note_written(self, slot: int) -> None:
        """Notes that a page is in its slot: the medium works."""
        if self.state == State.FAILED:
            self.state = State.ACTIVE
        self.corrupt.pop(slot, None)
        self.written += 1

    def is_used(self, slot: int) -> bool:
        """Returns whether a slot is in use."""
        return bool(self._used[slot])

    def in_use(self, after: int, count: int) -> list[int]:
        """Returns up to `count` slots in use with numbers above `after`, ascending."""
        start = after + 1
        found: list[int] = (np.flatnonzero(self.used_array[start : self._fresh])[:count] + start).tolist()
        return found

    def cached_only(self, limit: int) -> list[int]:
        """Returns up to `limit` slots, ascending, that no entry names: a frame in RAM holds the same bytes."""
        used = self.used_array[: self._fresh]
        found: list[int] = np.flatnonzero((used != 0) & (self.refs_array[: self._fresh] == 0))[:limit].tolist()
        return found

    @property
    def cached(self) -> int:
        """Returns how many slots have their bytes in a frame too."""
        return int(np.count_nonzero(self.frame_array[: self._fresh]))

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Stores a page and its checksum. An area whose medium fails to write is FAILED until a write succeeds."""
        assert self.disk is None
        try:
            cast(SwapStore, self.store).write(slot, data)
        except DataLoss:
            self.state = State.FAILED if self.state == State.ACTIVE else self.state
            raise
        self.sum[slot] = crc32c(data)
        self.note_written(slot)

    def read(self, slot: int) -> bytes:
        """Returns the page in a slot; SWAP_CORRUPT when it is not what was written."""
        assert self.disk is None
        data = cast(SwapStore, self.store).read(slot)
        wrong = self.compare(slot, data)
        if wrong is not None:
            raise wrong
        self.read_back += 1
        return data

    def compare(self, slot: int, data: bytes | memoryview) -> LaminaError | None:
        """Returns SWAP_CORRUPT when the bytes of a slot are not what was written."""
        if len(data) == 4096 and crc32c(data) == self.sum[slot]:
            return None
        self.corrupt[slot] = None
        return DataLoss(
            f"The page in slot {slot} of swap area {self.name} is not what was written there.",
            reason="SWAP_CORRUPT",
            next_step="The page is lost: end the process or VM that owns it, and check the disk of the swap file.",
            slot=slot,
            area=self.name,
        )


class PageLost(Exception):
    """The page was in memory that failed, and there is no other copy."""


class SlotColumn:
    """One column of all areas, by slot number."""

    def __init__(self, lost: memoryview) -> None:
        self.parts: dict[int, memoryview] = {LOST >> AREA_SHIFT: lost}

    def __getitem__(self, slot: int) -> int:
        value: int = self.parts[slot >> AREA_SHIFT][slot & _IN_AREA]
        return value

    def __setitem__(self, slot: int, value: int) -> None:
        self.parts[slot >> AREA_SHIFT][slot & _IN_AREA] = value


class SwapSpace:
    """All areas. Slot numbers here are those of all areas."""

    def __init__(self) -> None:
        lost_array, lost = column(1, np.int32)
        self._lost_refs = lost_array
        self.refs = SlotColumn(lost)
        self.frame = SlotColumn(column(1, np.int32)[1])
        self.group = SlotColumn(column(1, np.int32)[1])
        self._areas: dict[int, SwapArea] = {}
        self._turn = 0
        self.written = 0
        self.read_back = 0

    # ── areas ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def areas(self) -> list[SwapArea]:
        """Returns the areas by priority, the highest first, then by name."""
        return sorted(self._areas.values(), key=lambda area: (-area.priority, area.name))

    def add(self, store: SwapStore | DiskStore, name: str, priority: int) -> SwapArea:
        """Takes an area into use. There are fewer than MOST_AREAS, and none of that name."""
        index = next(number for number in range(MOST_AREAS) if number not in self._areas)
        area = SwapArea(store, name, index, priority, disk=cast(DiskStore, store) if hasattr(store, "begin") else None)
        self._areas[index] = area
        self.refs.parts[index], self.frame.parts[index], self.group.parts[index] = area.refs, area.frame, area.group
        return area

    def remove(self, area: SwapArea) -> None:
        """Takes an area out of use that has no slot in use."""
        for part in (self.refs.parts, self.frame.parts, self.group.parts):
            del part[area.index]
        del self._areas[area.index]

    @property
    def has_disks(self) -> bool:
        """Returns whether an area lies on a disk of the machine."""
        return any(area.disk is not None for area in self._areas.values())

    def by_index(self, index: int) -> SwapArea:
        """Returns the area with an index."""
        return self._areas[index]

    def was_fetched(self, slot: int) -> bool:
        """Returns whether a page was read from its slot for who asks now, and not before."""
        area = self.area_of(slot)
        return area.fetched.pop(slot & _IN_AREA, 0) is None

    def named(self, name: str) -> SwapArea | None:
        """Returns an area by name; None when there is none."""
        return next((area for area in self._areas.values() if area.name == name), None)

    def area_of(self, slot: int) -> SwapArea:
        """Returns the area that a slot lies in."""
        return self._areas[slot >> AREA_SHIFT]

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def count(self) -> int:
        """Returns how many slots there are."""
        return sum(area.count for area in self._areas.values())

    @property
    def free(self) -> int:
        """Returns how many slots can be taken."""
        return sum([area.free for area in self._areas.values()])

    @property
    def has_room(self) -> bool:
        """Returns whether a slot can be taken."""
        areas = self._areas
        return bool(areas[0].free if 0 in areas else 0) or self.free > 0  # mostly the first: reclaim asks for each page

    def take(self, group: int, avoid: int = -1) -> int:
        """Takes a slot for `group`; -1 when there is none.

        It lies in the area of highest priority that has one; areas whose medium failed come last, and the area with
        index `avoid` not at all.
        """
        able = [area for area in self._areas.values() if area.free and area.index != avoid]
        if not able:
            return -1
        rank = min((area.state == State.FAILED, -area.priority) for area in able)
        equals = [area for area in able if (area.state == State.FAILED, -area.priority) == rank]
        area = equals[self._turn % len(equals)]
        self._turn += 1
        return area.base + area.take(group)

    def give_back(self, slot: int) -> None:
        """Frees a slot that nobody refers to."""
        self.area_of(slot).give_back(slot & _IN_AREA)

    def cached_only(self) -> list[int]:
        """Returns the slots, ascending, that no entry names: a frame in RAM holds the same bytes."""
        return [slot + area.base for area in self._areas.values() for slot in area.cached_only(area.count)]

    def add_references(self, slots: Any) -> None:
        """Adds an entry's reference to each of an array of slots, which may name one several times."""
        areas = slots >> AREA_SHIFT
        for index in np.unique(areas).tolist():
            refs = self._lost_refs if index == LOST >> AREA_SHIFT else self._areas[index].refs_array
            np.add.at(refs, slots[areas == index] & _IN_AREA, 1)

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Stores a page and its checksum."""
        self.area_of(slot).write(slot & _IN_AREA, data)
        self.written += 1

    def read(self, slot: int) -> bytes:
        """Returns the page in a slot; SWAP_CORRUPT when it is not what was written, PageLost for LOST."""
        if slot == LOST:
            raise PageLost
        data = self.area_of(slot).read(slot & _IN_AREA)
        self.read_back += 1
        return data

    def readable(self, slot: int) -> LaminaError | None:
        """Reads a slot in use and compares it with its checksum; returns what is wrong with it."""
        area = self.area_of(slot)
        try:
            area.read(slot & _IN_AREA)
        except LaminaError as error:
            return error
        area.read_back -= 1  # nobody got the page
        return None
