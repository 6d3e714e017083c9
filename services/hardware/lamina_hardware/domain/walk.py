"""Translation as the manual describes it, one entry after another, for people and as a second opinion. Pure.

The cores have a compiled walker (`io/walker.py`); this one is written on its own, changes nothing, and keeps every
entry that it visits. With an EPT, each guest physical address on the way (of every guest table and of the page itself)
takes a walk of its own through the second stage, up to 24 entries in all.

Sources: Intel SDM vol. 3, 5.5, 5.6, 5.7, 30.3.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_kit.paging import (
    ADDR_MASK,
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

_PAT_LARGE = 1 << 12


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


@dataclass(frozen=True, slots=True)
class Step:
    """One entry visited. `table` is its table's name; `input_address` what was looked up in that table."""

    table: str
    level: int
    index: int
    entry_address: int
    entry: int
    bits: tuple[str, ...]
    input_address: int


@dataclass(slots=True)
class Walk:
    """A finished walk. `page_size` is the smaller of the two stages' pages."""

    outcome: Outcome = Outcome.TRANSLATED
    gpa: int = 0
    pa: int = 0
    error_code: int = 0
    page_size: int = 0
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where entries are read: `load64` of a physical address below `size`."""

    load64: Callable[[int], int]
    size: int


_NEED = {Access.READ: EPT_R, Access.WRITE: EPT_W, Access.EXECUTE: EPT_X}


def translate(memory: Memory, root: int, eptp: int, va: int, access: Access, user: bool) -> Walk:
    """Walks both stages (one when `eptp` is 0, only the second when `root` is) with CR0.WP and EFER.NXE set."""
    walk = Walk()
    if not root and eptp:
        _through_ept(memory, eptp, va, access, walk)
        walk.gpa = va
        return walk
    if not is_canonical(va):
        walk.outcome = Outcome.NOT_CANONICAL
        return walk
    code = (access is Access.WRITE) << 1 | user << 2 | (access is Access.EXECUTE) << 4
    gpa = _first_stage(memory, root & ADDR_MASK, eptp, va, access, user, code, walk)
    if gpa is None:
        return walk
    walk.gpa = gpa
    if eptp:
        _through_ept(memory, eptp, gpa, access, walk)
    elif gpa >= memory.size:
        _fault(walk, code | 0b1001)
    else:
        walk.pa = gpa
    return walk


def _first_stage(
    memory: Memory, table: int, eptp: int, va: int, access: Access, user: bool, code: int, walk: Walk
) -> int | None:
    """Returns the guest physical address, or None with the outcome set."""
    writable, for_user, executable = True, True, True
    for level in (4, 3, 2, 1):
        entry_gpa = table + 8 * index(va, level)
        entry_pa = _through_ept(memory, eptp, entry_gpa, Access.READ, walk) if eptp else entry_gpa
        if entry_pa is None:
            return None
        if entry_pa + 8 > memory.size:
            return _fault(walk, code | 0b1001)
        entry = memory.load64(entry_pa)
        walk.steps.append(
            Step(TABLE_NAMES[level], level, index(va, level), entry_pa, entry, bit_names(entry, level), va)
        )
        if not entry & PRESENT:
            return _fault(walk, code)
        writable &= bool(entry & RW)
        for_user &= bool(entry & US)
        executable &= not entry & NX
        large = level > 1 and bool(entry & PS)
        if large and (level == 4 or entry & ADDR_MASK & (span(level) - 1) & ~_PAT_LARGE):
            return _fault(walk, code | 0b1001)
        if large or level == 1:
            refused = user and not for_user
            refused |= access is Access.WRITE and not writable
            refused |= access is Access.EXECUTE and not executable
            if refused:
                return _fault(walk, code | 1)
            walk.page_size = span(level)
            return (entry & ADDR_MASK & ~(span(level) - 1)) | (va & (span(level) - 1))
        table = entry & ADDR_MASK
    raise AssertionError("level 1 is always a leaf")


def _through_ept(memory: Memory, eptp: int, gpa: int, access: Access, walk: Walk) -> int | None:
    """Returns the physical address of a guest physical one, or None with the outcome set."""
    table = eptp & ADDR_MASK
    rights = EPT_R | EPT_W | EPT_X
    for level in (4, 3, 2, 1):
        entry_pa = table + 8 * index(gpa, level)
        if gpa >> 48 or table + PAGE_SIZE > memory.size:
            return _violation(walk, gpa)
        entry = memory.load64(entry_pa)
        name = f"EPT {TABLE_NAMES[level]}"
        walk.steps.append(Step(name, level, index(gpa, level), entry_pa, entry, ept_bit_names(entry), gpa))
        rights &= entry
        if not entry & (EPT_R | EPT_W | EPT_X) or not rights & _NEED[access]:
            return _violation(walk, gpa)
        if level == 1 or (level < 4 and entry & EPT_PS):
            size = span(level)
            pa = (entry & ADDR_MASK & ~(size - 1)) | (gpa & (size - 1))
            if pa >= memory.size:
                return _violation(walk, gpa)
            walk.page_size = min(walk.page_size or size, size)
            walk.pa = pa
            return pa
        table = entry & ADDR_MASK
    raise AssertionError("level 1 is always a leaf")


def _fault(walk: Walk, code: int) -> int | None:
    """Ends a walk in a page fault; returns None."""
    walk.outcome = Outcome.PAGE_FAULT
    walk.error_code = code
    return None


def _violation(walk: Walk, gpa: int) -> int | None:
    """Ends a walk in an EPT violation; returns None."""
    walk.outcome = Outcome.EPT_VIOLATION
    walk.gpa = gpa
    return None
