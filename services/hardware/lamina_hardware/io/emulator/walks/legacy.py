"""The compiled walks outside IA-32e mode: no paging, two levels, PAE; `walker.walk` comes here when EFER.LMA is clear.

    two-level   va ── PD[22–31] ─ PT[12–21] ─ page      entries of 4 bytes; with CR4.PSE a PDE of 4 MiB pages (PSE-36)
    PAE         va ── PDPTE[30–31] ─ PD[21–29] ─ PT[12–20] ─ page      entries of 8 bytes; pages of 2 MiB

The four PDPTEs are registers: MOV to CR3 (and a change of CR0 or CR4 that matters) loads them, and what is stored in
their table afterwards changes nothing until the next load. They live in the engine's part of the run page. A context
that its holder puts into PAE paging has them loaded by its first walk.

Without paging an address is its own guest physical address; beyond RAM, with no second stage, nothing answers: #GP.

Source: Intel SDM vol. 3, 5.3 (32-bit paging), 5.4 (PAE paging), 5.4.1 (PDPTE registers).
"""

from __future__ import annotations

import numpy as np

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_READ,
    ACCESS_WRITE,
    ENV,
    EPTP,
    FAULT,
    FAULT_CANONICAL,
    FAULT_CODE,
    FAULT_IN_PDPTES,
    FAULT_NONE,
    FAULT_PAGE,
    FAULT_VA,
    L_LOAD_PDPTES,
    L_WALK_LEGACY,
    RAM_BASE,
    RAM_SIZE,
    RIGHT_EXECUTE,
    RIGHT_READ,
    RIGHT_WRITE,
    RUN_PAGE,
    WALK_LEAF,
    WALK_READS,
    WALK_SECOND_SHIFT,
    WALK_SHIFT,
)
from lamina_hardware.io.emulator.state.mode import in_pae
from lamina_hardware.io.emulator.state.registers import PAGE_PDPTES
from lamina_hardware.io.emulator.walks.steps import (
    CODE_P,
    CODE_R,
    EFER_NXE,
    NO_EFFECT,
    allowed_rights,
    fault_code,
    page_fault,
    reach,
    refused,
    second_stage,
    set_bits,
    table_page,
)
from lamina_hardware.io.native import Word, cas32, cas64, compiled, linked, load32, load64, put, store64, u64, word

_0, _1, _2, _3, _4, _5, _6, _8, _9, _12, _63 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 63))
_21, _22, _30 = u64(21), u64(22), u64(30)
_PAGE, _OFFSET = u64(4096), u64(4095)
_LOW = u64(0xFFFF_FFFF)
_FRAME = u64(0x000F_FFFF_FFFF_F000)
_P, _RW, _US, _A, _D, _PS, _G = (u64(1 << bit) for bit in (0, 1, 2, 5, 6, 7, 8))
_NX = u64(1 << 63)
_PAT_LARGE = _PAGE
_CR0_PG, _CR4_PSE = u64(1 << 31), u64(1 << 4)
_PAE_HIGH = u64(0x7FF << 52)
_PDPTE_RESERVED = u64(0x1E6 | 0x7FF << 52 | 1 << 63)
_PSE36_RESERVED, _PSE36_HIGH = u64(1 << 21), u64(0x1F_E000)
_TABLE_32 = u64(0xFFFF_F000)
_PDPT = u64(0xFFFF_FFE0)


@compiled("uint64(uint64, uint64)")
def _pdpte_place(block: int, number: int) -> Word:
    return word(block, RUN_PAGE) + PAGE_PDPTES + _8 + number * _8


@linked(L_LOAD_PDPTES)
def load_pdptes(block: int, cr3: int, va: int, effect: int) -> Word:
    """Loads the PDPTE registers from the table that CR3 names; returns FAULT_NONE, a fault in the block, or FAULT_PAGE.

    The reads are the processor's own, not those of a walk: the second stage need not allow writes there. FAULT_PAGE
    without a fault in the block says that the table lies beyond RAM; the caller knows what that means.
    """
    table = cr3 & _PDPT
    page = table & _FRAME
    if word(block, EPTP) != _0:
        put(block, FAULT_CODE, FAULT_IN_PDPTES)
        page = second_stage(block, page, ACCESS_READ, va, effect)
        if page == _0:
            return word(block, FAULT)
        page &= _FRAME
    elif page > word(block, RAM_SIZE) - _PAGE:
        return FAULT_PAGE
    source = word(block, RAM_BASE) + (page | (table & _OFFSET))
    i = _0
    while i < _4:
        store64(_pdpte_place(block, i), load64(source + i * _8))
        i += _1
    store64(word(block, RUN_PAGE) + PAGE_PDPTES, table | _1)
    return FAULT_NONE


@compiled("uint64(uint64)")
def malformed_pdptes(block: int) -> Word:
    """Returns whether a register that is present has a reserved bit: MOV to CR3 raises #GP then."""
    last = word(block, RAM_SIZE) - _PAGE if word(block, EPTP) == _0 else _FRAME
    i = _0
    while i < _4:
        entry = load64(_pdpte_place(block, i))
        if entry & _P != _0 and (entry & _PDPTE_RESERVED != _0 or entry & _FRAME > last):
            return _1
        i += _1
    return _0


@compiled("uint64(uint64)")
def forget_pdptes(block: int) -> Word:
    """Makes the next walk load the PDPTE registers."""
    store64(word(block, RUN_PAGE) + PAGE_PDPTES, _0)
    return _0


@compiled("uint64(uint64, uint64, uint64)")
def _unpaged(block: int, va: int, access_and_effect: int) -> Word:
    """Takes an address as it is."""
    page = va & _TABLE_32
    put(block, WALK_SHIFT, _12)
    put(block, WALK_SECOND_SHIFT, _63)
    put(block, WALK_LEAF, _RW | _US)
    if word(block, EPTP) == _0 and page > word(block, RAM_SIZE) - _PAGE:
        put(block, FAULT, FAULT_CANONICAL)
        put(block, FAULT_VA, va)
        return FAULT_CANONICAL
    return reach(block, va, page, RIGHT_READ | RIGHT_WRITE | RIGHT_EXECUTE, access_and_effect)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _reserved(entry: int, pae: int, large: int, forbidden: int) -> Word:
    """Returns the reserved bits of an entry below the PDPTEs that are set."""
    if pae == _0:
        return entry & _PSE36_RESERVED if large != _0 else _0
    found = entry & (forbidden | _PAE_HIGH)
    if large != _0:
        found |= entry & _FRAME & ((_1 << _21) - _1) & ~_PAT_LARGE
    return found


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _keep(block: int, entry_pa: int, entry: int, wanted: int, pae: int) -> Word:
    """Exchanges an entry for the one with A and D; returns 0 when it changed meanwhile."""
    place = word(block, RAM_BASE) + entry_pa
    if pae != _0:
        if cas64(place, entry, wanted) != entry:
            return _0
    elif u64(cas32(place, np.uint32(entry), np.uint32(wanted))) != entry:
        return _0
    set_bits(block, entry_pa, ((wanted ^ entry) >> _5) & _1, ((wanted ^ entry) >> _6) & _1)
    return _1


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _top(block: int, cr3: int, va: int, code: int, effect: int) -> Word:
    """Returns the page directory of an address under PAE, plus 1; 0 with the fault in the block."""
    table = word(block, RUN_PAGE) + PAGE_PDPTES
    if load64(table) != (cr3 & _PDPT | _1):
        ended = load_pdptes(block, cr3, va, effect)
        if ended == FAULT_PAGE:
            page_fault(block, va, code | CODE_P | CODE_R)
        if ended != FAULT_NONE:
            return _0
        put(block, WALK_READS, _4)
    entry = load64(_pdpte_place(block, (va >> _30) & _3))
    last = word(block, RAM_SIZE) - _PAGE if word(block, EPTP) == _0 else _FRAME
    if entry & _P == _0:
        page_fault(block, va, code)
        return _0
    if entry & _PDPTE_RESERVED != _0 or entry & _FRAME > last:
        page_fault(block, va, code | CODE_P | CODE_R)
        return _0
    return (entry & _FRAME) + _1


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _root(block: int, cr3: int, va: int, code: int, pae_and_effect: int) -> Word:
    """Returns the first table in memory, plus 1; 0 with the fault in the block."""
    if pae_and_effect >> _1 != _0:
        return _top(block, cr3, va, code, pae_and_effect & _1)
    table = cr3 & _TABLE_32
    if word(block, EPTP) == _0 and table > word(block, RAM_SIZE) - _PAGE:
        page_fault(block, va, code | CODE_P | CODE_R)
        return _0
    return table + _1


@compiled("uint64(uint64, uint64, uint64)")
def _target(entry: int, va: int, shape: int) -> Word:
    """Returns what an entry points to: a table (`shape` 0), or the address in a page of 2 to the `shape` bytes."""
    if shape == _0:
        return entry & _FRAME
    mask = (_1 << shape) - _1
    target = (entry & _FRAME & ~mask) | (va & mask & ~_OFFSET)
    return target | (entry & _PSE36_HIGH) << u64(19) if shape == _22 else target


@linked(L_WALK_LEGACY)
def walk_legacy(block: int, cr3: int, va: int, access: int, user: int, cr0: int, cr4: int, effect: int) -> Word:
    """Translates `va` outside IA-32e mode, as `walker.walk` does within it; CR0.PG, CR4.PAE and PSE are the register
    file's, so that a look with the other bits cleared goes the same way.
    """
    env = word(block, ENV)
    va &= _LOW
    if load64(env + at.CR0) & _CR0_PG == _0:
        return _unpaged(block, va, access << _1 | effect)
    pae = in_pae(env)
    pse = pae | (_1 if load64(env + at.CR4) & _CR4_PSE != _0 else _0)
    efer = load64(env + at.EFER) if pae != _0 else _0
    code = fault_code(access, user, cr4, efer)
    last = word(block, RAM_SIZE) - _PAGE if word(block, EPTP) == _0 else _FRAME
    step, width, index, top = (_9, _3, u64(511), _21) if pae != _0 else (u64(10), _2, u64(1023), _22)
    table, rights, shift, entry, wanted = _0, _RW | _US, top, _0, _0
    while True:
        if shift == top:
            rights = _RW | _US
            table = _root(block, cr3, va, code, pae << _1 | effect)
            if table == _0:
                return word(block, FAULT)
            table -= _1
        entry_gpa = table + (((va >> shift) & index) << width)
        place = table_page(block, entry_gpa, va, effect)
        if place == _0:
            return word(block, FAULT)
        entry_pa = (place - _1) | (entry_gpa & _OFFSET)
        entry = load64(word(block, RAM_BASE) + entry_pa) if pae != _0 else load32(word(block, RAM_BASE) + entry_pa)
        put(block, WALK_READS, word(block, WALK_READS) + _1)
        if entry & _P == _0:
            return page_fault(block, va, code)
        large = _1 if entry & _PS != _0 and pse != _0 and shift != _12 else _0
        leaf = large != _0 or shift == _12
        table = _target(entry, va, shift if leaf else _0)
        if _reserved(entry, pae, large, _0 if efer & EFER_NXE != _0 else _NX) != _0 or table > last:
            return page_fault(block, va, code | CODE_P | CODE_R)
        rights = (rights & entry & (_RW | _US)) | ((rights | entry) & _NX)
        if leaf and refused(rights, access, user, cr0, cr4) != _0:
            return page_fault(block, va, code | CODE_P)
        wanted = entry | _A | (_D if leaf and access == ACCESS_WRITE else _0)
        if effect != NO_EFFECT and wanted != entry and _keep(block, entry_pa, entry, wanted, pae) == _0:
            shift = top  # everything is looked up anew: what else changed may lie above
            continue
        if leaf:
            break
        shift -= step
    put(block, WALK_SHIFT, shift)
    put(block, WALK_SECOND_SHIFT, _63)
    put(block, WALK_LEAF, (rights & (_RW | _US)) | (entry & _G))
    return reach(block, va, table, allowed_rights(rights, wanted, user, cr0), access << _1 | effect)
