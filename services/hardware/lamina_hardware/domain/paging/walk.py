"""Page-table walks that keep every entry they visit, for people and as a second opinion. Pure.

The cores have a compiled walker (`walks/walker.py`); this one is written on its own, changes nothing, and says of each
entry what the access would leave in it. With an EPT, each guest physical address on the way (of every guest table and
of the page itself) takes a walk of its own through the second stage, up to 24 entries in all.

Order of the checks in an entry: present, reserved bits, and in the leaf the rights that all levels together leave. An
address beyond RAM counts as a reserved bit: this machine's physical addresses end where its RAM does. Guest physical
addresses have 52 bits, of which an EPT of four levels translates 48.

Sources: Intel SDM vol. 3, 5.3 (32-bit), 5.4 (PAE), 5.5 (four levels), 5.6 (rights), 5.7 (error codes), 5.8 (accessed
and dirty), 30.3.3 (EPT misconfigurations and violations), 30.3.5 (accessed and dirty flags of the EPT).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_hardware.domain.paging.mode import Controls, PagingMode
from lamina_kit.paging import (
    ACCESSED,
    ADDR_MASK,
    DIRTY,
    EPT_A,
    EPT_D,
    EPT_PS,
    EPT_R,
    EPT_W,
    EPT_X,
    NX,
    PAGE_SIZE,
    PRESENT,
    PS,
    RW,
    TABLE_NAMES,
    US,
    bit_names,
    ept_bit_names,
    index,
    is_canonical,
    span,
)

CODE_PRESENT, CODE_WRITE, CODE_USER, CODE_RESERVED, CODE_FETCH = (1 << bit for bit in range(5))
"""Bits of a page fault's error code: P, W/R, U/S, RSVD, I/D."""

_PAT_LARGE = 1 << 12
_PAE_HIGH = 0x7FF << 52
_PAE_PDPT_RESERVED = 0x1E6 | _PAE_HIGH | NX
_PSE36_RESERVED = 1 << 21
_EPT_TABLE_RESERVED = 0x78
_EPT_TYPES_RESERVED = (2, 3, 7)
_ALL_RIGHTS = EPT_R | EPT_W | EPT_X


class Access(enum.Enum):
    """What the access wants to do."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


class Outcome(enum.Enum):
    """How a walk ends."""

    TRANSLATED = "translated"
    PAGE_FAULT = "page fault"
    EPT_VIOLATION = "EPT violation"
    NOT_CANONICAL = "not canonical"
    EPT_MISCONFIGURATION = "EPT misconfiguration"


@dataclass(frozen=True, slots=True)
class Step:
    """One entry visited. `table` is its table's name; `input_address` what was looked up in that table.

    `after` is what the entry holds once the access has been made (A, and in the leaf of a write D); 0: nobody said.
    """

    table: str
    level: int
    index: int
    entry_address: int
    entry: int
    bits: tuple[str, ...]
    input_address: int
    after: int = 0


@dataclass(slots=True)
class Walk:
    """A finished walk. `page_size` is the smaller of the two stages' pages; `is_global` that of the first stage."""

    outcome: Outcome = Outcome.TRANSLATED
    gpa: int = 0
    pa: int = 0
    error_code: int = 0
    page_size: int = 0
    is_global: bool = False
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where entries are read: `load64` of an aligned physical address below `size`."""

    load64: Callable[[int], int]
    size: int


FOUR_LEVEL = Controls()
_NEED = {Access.READ: EPT_R, Access.WRITE: EPT_W, Access.EXECUTE: EPT_X}


def translate(
    memory: Memory, root: int, eptp: int, va: int, access: Access, user: bool, controls: Controls = FOUR_LEVEL
) -> Walk:
    """Walks both stages (one when `eptp` is 0, only the second when `root` is).

    The default controls are four levels with CR0.WP and EFER.NXE set.
    """
    walk = Walk()
    if not root and eptp:
        _second_stage(memory, eptp, va, access, walk)
        walk.gpa = va
        return walk
    if controls.mode is PagingMode.FOUR_LEVEL and not is_canonical(va):
        walk.outcome = Outcome.NOT_CANONICAL
        return walk
    gpa = _FirstStage(memory, eptp, va, access, user, controls, walk).run(root)
    if gpa is None:
        return walk
    walk.gpa = walk.pa = gpa
    if eptp:
        _second_stage(memory, eptp, gpa, access, walk)
    return walk


@dataclass(slots=True)
class _FirstStage:
    """A walk through the tables that CR3 names."""

    memory: Memory
    eptp: int
    va: int
    access: Access
    user: bool
    controls: Controls
    walk: Walk

    def run(self, root: int) -> int | None:
        """Returns the guest physical address, or None with the outcome set."""
        mode = self.controls.mode
        pae = mode is PagingMode.PAE
        table = root & (ADDR_MASK | 0xFE0 if pae else ADDR_MASK)
        table &= ADDR_MASK if mode is PagingMode.FOUR_LEVEL else 0xFFFF_FFFF
        rights = RW | US
        for level in range(self.controls.top_level, 0, -1):
            found = self._load(table, level)
            if found is None:
                return None
            place, position, entry = found
            large = level > 1 and bool(entry & PS) and self.controls.pse and not (pae and level == 3)
            page = self._page(entry, level) if large or level == 1 else None
            refused = self._refusal(entry, level, page, large, rights)
            rights = rights & (entry | (RW | US if pae and level == 3 else 0)) | (rights | entry) & NX
            self._keep(place, position, entry, level, page is not None, refused is None)
            if refused is not None:
                return self._fault(refused)
            if page is not None:
                self.walk.page_size = self._span(level)
                self.walk.is_global = bool(entry & 1 << 8)
                return page
            table = entry & ADDR_MASK
        raise AssertionError("level 1 is always a leaf")

    def _load(self, table: int, level: int) -> tuple[int, int, int] | None:
        """Returns (physical address of the entry, its index, the entry), or None with the outcome set."""
        two_level = self.controls.mode is PagingMode.TWO_LEVEL
        position = self.va >> (2 + 10 * level) & 1023 if two_level else index(self.va, level)
        place = table + position * (4 if two_level else 8)
        if self.eptp:
            reached = _second_stage(self.memory, self.eptp, place, Access.WRITE, self.walk)
            if reached is None:
                return None
            place = reached
        elif (place & ~0xFFF) + PAGE_SIZE > self.memory.size:
            self._fault(CODE_PRESENT | CODE_RESERVED)
            return None
        word = self.memory.load64(place & ~7)
        return place, position, word >> 8 * (place & 4) & 0xFFFF_FFFF if two_level else word

    def _span(self, level: int) -> int:
        return 4 << 20 if level == 2 and self.controls.mode is PagingMode.TWO_LEVEL else span(level)

    def _page(self, entry: int, level: int) -> int:
        """Returns the address that a leaf gives."""
        size = self._span(level)
        base = entry & ADDR_MASK & ~(size - 1)
        if size == 4 << 20:
            base |= (entry & 0x1F_E000) << 19  # PSE-36: bits 39 to 32
        return base | (self.va & (size - 1))

    def _refusal(self, entry: int, level: int, page: int | None, large: bool, rights: int) -> int | None:
        """Returns the bits that a refusal adds to the error code; None when the walk goes on or succeeds."""
        if not entry & PRESENT:
            return 0
        if self._reserved(entry, level, large) or self._beyond(entry & ADDR_MASK if page is None else page):
            return CODE_PRESENT | CODE_RESERVED
        if page is not None and self._denied(rights & entry, (rights | entry) & NX):
            return CODE_PRESENT
        return None

    def _reserved(self, entry: int, level: int, large: bool) -> bool:
        """Returns whether an entry has a bit set that its format reserves."""
        mode = self.controls.mode
        if mode is PagingMode.TWO_LEVEL:
            return large and bool(entry & _PSE36_RESERVED)
        if mode is PagingMode.PAE and level == 3:
            return bool(entry & _PAE_PDPT_RESERVED)
        if (entry & NX and not self.controls.nxe) or (mode is PagingMode.PAE and entry & _PAE_HIGH):
            return True
        return large and (level == 4 or bool(entry & ADDR_MASK & (span(level) - 1) & ~_PAT_LARGE))

    def _beyond(self, address: int) -> bool:
        return not self.eptp and (address & ~0xFFF) + PAGE_SIZE > self.memory.size

    def _denied(self, rights: int, no_execute: int) -> bool:
        """Returns whether the rights that all levels leave refuse the access. Source: Intel SDM vol. 3, 5.6.1."""
        controls, for_user = self.controls, bool(rights & US)
        if self.user and not for_user:
            return True
        if self.access is Access.EXECUTE:
            return (bool(no_execute) and controls.has_nx) or (not self.user and for_user and controls.smep)
        if not self.user and for_user and controls.smap:
            return True
        return self.access is Access.WRITE and not rights & RW and (self.user or controls.wp)

    def _keep(self, place: int, position: int, entry: int, level: int, leaf: bool, used: bool) -> None:
        after = entry
        if used and not (level == 3 and self.controls.mode is PagingMode.PAE):
            after |= ACCESSED | (DIRTY if leaf and self.access is Access.WRITE else 0)
        names = bit_names(entry, level)
        self.walk.steps.append(Step(TABLE_NAMES[level], level, position, place, entry, names, self.va, after))

    def _fault(self, code: int) -> int | None:
        """Ends the walk in a page fault; returns None."""
        code |= CODE_WRITE if self.access is Access.WRITE else 0
        code |= CODE_USER if self.user else 0
        code |= CODE_FETCH if self.access is Access.EXECUTE and self.controls.tells_fetches else 0
        self.walk.outcome = Outcome.PAGE_FAULT
        self.walk.error_code = code
        return None


def _second_stage(memory: Memory, eptp: int, gpa: int, access: Access, walk: Walk) -> int | None:
    """Returns the physical address of a guest physical one, or None with the outcome set.

    Guest table entries are reached with `Access.WRITE`, for accessed and dirty flags are kept in the EPT.
    """
    table = eptp & ADDR_MASK
    rights = _ALL_RIGHTS
    for level in (4, 3, 2, 1):
        if gpa >> 48 or table + PAGE_SIZE > memory.size:
            return _refuse(walk, gpa, Outcome.EPT_VIOLATION)
        place = table + 8 * index(gpa, level)
        entry = memory.load64(place)
        leaf = level == 1 or (level < 4 and bool(entry & EPT_PS))
        size = span(level)
        pa = (entry & ADDR_MASK & ~(size - 1)) | (gpa & (size - 1))
        refusal = _second_refusal(entry, level, leaf, rights, access)
        if refusal is None and leaf and (pa & ~0xFFF) + PAGE_SIZE > memory.size:
            refusal = Outcome.EPT_VIOLATION
        after = entry if refusal is not None else entry | EPT_A | (EPT_D if leaf and access is Access.WRITE else 0)
        name, names = f"EPT {TABLE_NAMES[level]}", ept_bit_names(entry)
        walk.steps.append(Step(name, level, index(gpa, level), place, entry, names, gpa, after))
        if refusal is not None:
            return _refuse(walk, gpa, refusal)
        if leaf:
            walk.page_size = min(walk.page_size or size, size)
            walk.pa = pa
            return pa
        rights &= entry
        table = entry & ADDR_MASK
    raise AssertionError("level 1 is always a leaf")


def _second_refusal(entry: int, level: int, leaf: bool, rights: int, access: Access) -> Outcome | None:
    """Returns how an EPT entry refuses; None when it does not. Misconfigured entries come before rights."""
    if not entry & _ALL_RIGHTS:
        return Outcome.EPT_VIOLATION
    if entry & EPT_W and not entry & EPT_R:
        return Outcome.EPT_MISCONFIGURATION
    if leaf:
        reserved = bool(entry & ADDR_MASK & (span(level) - 1)) or entry >> 3 & 7 in _EPT_TYPES_RESERVED
    else:
        reserved = bool(entry & (_EPT_TABLE_RESERVED | (EPT_PS if level == 4 else 0)))
    if reserved:
        return Outcome.EPT_MISCONFIGURATION
    return Outcome.EPT_VIOLATION if leaf and not rights & entry & _NEED[access] else None


def _refuse(walk: Walk, gpa: int, outcome: Outcome) -> int | None:
    """Ends a walk in an exit of the second stage; returns None."""
    walk.outcome = outcome
    walk.gpa = gpa
    return None
