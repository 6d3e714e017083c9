"""Breakpoints in the debug registers: which are armed, and what hits them; compiled.

    DR7, CR4.DE ─► armed kinds ─► others than the core has hooks for? ─► it places them (`core.py`), code anew
    instruction ─► its address is armed: #DB, a fault, unless RFLAGS.RF holds it back     (`hooks/breakpoints.py`)
    TLB fill ─► an armed address lies in this page ─► access in it ─┬► a hit, told behind the instruction: #DB, a trap
    port access ────────────────────────────────────────────────────┘

The emulator tells of an access where it lies in physical memory. So a page in which an address is armed stays in its
TLB for one instruction only, and an access counts when its page was looked up for that instruction.

Source: Intel SDM vol. 3, 18.2 (debug registers), 18.3.1 (debug exception).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    BREAK_CROSSES,
    BREAK_FILLED,
    BREAK_HITS,
    BREAK_PAGES,
    BREAKS,
    BREAKS_WANTED,
    ENV,
    RUN_PAGE,
)
from lamina_hardware.io.native import Word, compiled, load64, put, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _4, _8, _12 = (u64(n) for n in (0, 1, 2, 3, 4, 8, 12))
_OFFSET, _PAGE = u64(4095), u64(4096)
_CR4_DE = u64(1 << 3)
_ENABLED = u64(0xFF)  # in DR7: L and G of each
_SIZES = u64(0x4821)  # bytes by LEN, four bits each: 1, 2, 8, 4
_WRITES, _PORTS = _1, _2  # R/W of DR7
PAGE_DR = u64(run_page.STATE_OFFSET + 0x10)
PAGE_DR6, PAGE_DR7 = PAGE_DR + u64(32), PAGE_DR + u64(40)

ARMED_CODE, ARMED_DATA, ARMED_PORTS = u64(0x00F), u64(0x0F0), u64(0xF00)
"""Bits of BREAKS: which of the four break on an instruction, an access, a port."""
_DATA_SHIFT, _PORTS_SHIFT = _4, _8
CROSSES_WRITE = u64(1 << 16)


@compiled("uint64(uint64)")
def wanted(block: int) -> Word:
    """Returns what the registers of the context arm, also in BREAKS_WANTED; 0 when nothing."""
    dr7 = load64(word(block, RUN_PAGE) + PAGE_DR7)
    found = _0
    if dr7 & _ENABLED != _0:
        ports = load64(word(block, ENV) + at.CR4) & _CR4_DE != _0
        i = _0
        while i < _4:
            if (dr7 >> (i * _2)) & _3 != _0:
                kind = (dr7 >> (u64(16) + i * _4)) & _3
                if kind == _0:
                    found |= _1 << i
                elif kind != _PORTS:
                    found |= _1 << (i + _DATA_SHIFT)
                elif ports:
                    found |= _1 << (i + _PORTS_SHIFT)
            i += _1
    put(block, BREAKS_WANTED, found)
    return found


@compiled("uint64(uint64, uint64)")
def _size(dr7: int, number: int) -> Word:
    """Returns how many bytes, or ports, one of the four covers."""
    return (_SIZES >> (((dr7 >> (u64(18) + number * _4)) & _3) * _4)) & u64(15)


@compiled("uint64(uint64, uint64)")
def address(block: int, number: int) -> Word:
    """Returns the address in DR0 to DR3."""
    return load64(word(block, RUN_PAGE) + PAGE_DR + number * _8)


@compiled("uint64(uint64, uint64, uint64)")
def note_fill(block: int, va: int, page: int) -> Word:
    """Notes where a page lies in which an address is armed, for the accesses of this instruction."""
    i = _0
    while i < _4:
        if (word(block, BREAKS) >> (i + _DATA_SHIFT)) & _1 != _0 and (address(block, i) ^ va) >> _12 == _0:
            put(block, BREAK_PAGES + i, page)
            put(block, BREAK_FILLED, word(block, BREAK_FILLED) | _1 << i)
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _hit(block: int, number: int, start: int, size: int) -> Word:
    """Notes a hit when a range of bytes of the page of an armed address, or of ports, overlaps what is armed."""
    length = _size(load64(word(block, RUN_PAGE) + PAGE_DR7), number)
    first = address(block, number) & ~(length - _1)
    if (word(block, BREAKS) >> (number + _PORTS_SHIFT)) & _1 == _0:
        first &= _OFFSET
    if start < first + length and first < start + size:
        put(block, BREAK_HITS, word(block, BREAK_HITS) | _1 << number)
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _watches(block: int, number: int, writes: int) -> Word:
    """Returns whether an access of this kind can hit one of the four, and its page was looked up for it."""
    if (word(block, BREAKS) >> (number + _DATA_SHIFT)) & _1 == _0 or (word(block, BREAK_FILLED) >> number) & _1 == _0:
        return _0
    kind = (load64(word(block, RUN_PAGE) + PAGE_DR7) >> (u64(16) + number * _4)) & _3
    return _1 if writes != _0 or kind != _WRITES else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def note_access(block: int, pa: int, size: int, writes: int) -> Word:
    """Notes what an access hits. Of one across two pages the second is looked up later: `note_crossing`."""
    i = _0
    while i < _4:
        if _watches(block, i, writes) != _0 and (pa ^ word(block, BREAK_PAGES + i)) >> _12 == _0:
            _hit(block, i, pa & _OFFSET, size)
        i += _1
    if (pa & _OFFSET) + size > _PAGE:
        put(block, BREAK_CROSSES, ((pa & _OFFSET) + size - _PAGE) | (CROSSES_WRITE if writes != _0 else _0))
    return _0


@compiled("uint64(uint64)")
def note_crossing(block: int) -> Word:
    """Notes what the bytes hit that an access of the instruction that ended had in a second page."""
    crosses = word(block, BREAK_CROSSES)
    if crosses == _0:
        return _0
    put(block, BREAK_CROSSES, _0)
    i = _0
    while i < _4:
        if _watches(block, i, crosses & CROSSES_WRITE) != _0:
            _hit(block, i, _0, crosses & ~CROSSES_WRITE)
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def note_port(block: int, port: int, size: int) -> Word:
    """Notes what an access to ports hits."""
    i = _0
    while i < _4:
        if (word(block, BREAKS) >> (i + _PORTS_SHIFT)) & _1 != _0:
            _hit(block, i, port, size)
        i += _1
    return _0
