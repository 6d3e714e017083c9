"""The compiled page walker: what a core does when an address is not in its TLB.

One stage for a process (guest virtual → physical), two for a virtual machine (guest virtual → guest physical through
the guest's tables, each guest physical address → physical through the EPT). Every table and leaf address is checked
against the size of RAM before it is used, so no guest can reach anything else, whatever it writes into its tables.

    va ──┬─ PML4[39–47] ─ PDPT[30–38] ─ PD[21–29] ─ PT[12–20] ─ page      an entry of stage one holds a guest physical
         │     │              │            │           │         │        address; with an EPT each arrow first goes
         │    EPT            EPT          EPT         EPT       EPT       through the four levels of the second stage

A and D are set as the hardware does, by compare-and-swap: A in every entry that the walk uses, D in the leaf of a
write. An entry that changes under the walk is read again. The right to write is withheld until D is set, so that the
first store comes back here. In the EPT, A is bit 8 and D bit 9, always kept (as with EPTP bit 6).

Sources: Intel SDM vol. 3, 5.5 (four-level paging), 5.7 (error codes), 5.8 (accessed and dirty), 30.3 (EPT).
"""

from __future__ import annotations

from lamina_hardware.io.control import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    BUS_HEAD,
    EPTP,
    FAULT,
    FAULT_ACCESS,
    FAULT_CANONICAL,
    FAULT_CODE,
    FAULT_EPT,
    FAULT_GPA,
    FAULT_IN_PAGE,
    FAULT_IN_TABLE,
    FAULT_NONE,
    FAULT_PAGE,
    FAULT_VA,
    L_WALK,
    RAM_BASE,
    RAM_SIZE,
    RIGHT_EXECUTE,
    RIGHT_READ,
    RIGHT_WRITE,
    STATE_BASE,
    WALK_PA,
    WALK_RIGHTS,
)
from lamina_hardware.io.native import (
    Word,
    cas64,
    compiled,
    inlined,
    linked,
    load32,
    load64,
    mark_written,
    put,
    u64,
    word,
)

_0 = u64(0)
_1 = u64(1)
_3 = u64(3)
_7 = u64(7)
_12 = u64(12)
_39 = u64(39)
_9 = u64(9)
_21 = u64(21)
_30 = u64(30)
_63 = u64(63)
_INDEX = u64(511 << 3)
_PAGE = u64(4096)
_OFFSET = u64(4095)
_FRAME = u64(0x000F_FFFF_FFFF_F000)

_P, _RW, _US, _A, _D, _PS = (u64(1 << bit) for bit in (0, 1, 2, 5, 6, 7))
_EPT_A, _EPT_D = u64(1 << 8), u64(1 << 9)
_CANONICAL_TOP = u64(0x1_FFFF)
_GPA_END = u64(48)

CODE_P, CODE_W, CODE_U, CODE_R, CODE_I = (u64(1 << bit) for bit in range(5))

CR0_WP = u64(1 << 16)
CR4_SMEP = u64(1 << 20)
CR4_SMAP = u64(1 << 21)

NO_EFFECT = u64(0)
SET_BITS = u64(1)


@inlined("uint64(uint64, uint64)")
def _set_bits(block: int, entry_pa: int) -> Word:
    """Marks the frame of a table entry that the walker changed as written, for the dirty log."""
    frame = entry_pa >> _12
    if load32(word(block, STATE_BASE) + (frame << u64(2))) & u64(4) == _0:
        mark_written(word(block, BUS_HEAD), frame, _1)
    return _0


@inlined("uint64(uint64, uint64, uint64, uint64)")
def _second_stage_fault(block: int, gpa: int, va: int, access: int) -> Word:
    put(block, FAULT, FAULT_EPT)
    put(block, FAULT_GPA, gpa)
    put(block, FAULT_VA, va)
    put(block, FAULT_ACCESS, access)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def second_stage(block: int, gpa: int, access: int, va: int, effect: int) -> Word:
    """Translates `gpa` through the EPT for one kind of access.

    Returns page address | rights, or 0 with the fault in the block. `va` is only reported.
    """
    ram = word(block, RAM_BASE)
    size = word(block, RAM_SIZE)
    need = RIGHT_READ if access == ACCESS_READ else (RIGHT_WRITE if access == ACCESS_WRITE else RIGHT_EXECUTE)
    if gpa >> _GPA_END != _0:
        return _second_stage_fault(block, gpa, va, access)
    table = word(block, EPTP) & _FRAME
    rights = _7
    shift = _39
    while True:
        if table + _PAGE > size:
            return _second_stage_fault(block, gpa, va, access)
        entry_pa = table + ((gpa >> (shift - _3)) & _INDEX)
        entry = load64(ram + entry_pa)
        allowed = rights & entry
        leaf = shift == _12 or ((entry & _PS) != _0 and shift != _39)
        if (entry & _7) == _0 or (allowed & need) == _0:
            return _second_stage_fault(block, gpa, va, access)
        wanted = entry | _EPT_A
        if leaf and access == ACCESS_WRITE:
            wanted |= _EPT_D
        if effect != NO_EFFECT and wanted != entry:
            if cas64(ram + entry_pa, entry, wanted) != entry:
                continue
            _set_bits(block, entry_pa)
        rights = allowed
        if leaf:
            mask = (_1 << shift) - _1
            page = ((entry & _FRAME) & ~mask) | (gpa & mask & ~_OFFSET)
            if page + _PAGE > size:
                return _second_stage_fault(block, gpa, va, access)
            if (wanted & _EPT_D) == _0:
                rights &= ~RIGHT_WRITE
            return page | rights
        table = entry & _FRAME
        shift -= _9


@inlined("uint64(uint64, uint64, uint64)")
def _page_fault(block: int, va: int, code: int) -> Word:
    put(block, FAULT, FAULT_PAGE)
    put(block, FAULT_VA, va)
    put(block, FAULT_CODE, code)
    return FAULT_PAGE


@inlined("uint64(uint64, uint64, uint64, uint64, uint64)")
def _table_page(block: int, gpa: int, access: int, va: int, effect: int) -> Word:
    """Returns the physical address of the table page that holds the entry at `gpa`, plus 1; 0: second-stage fault."""
    if word(block, EPTP) == _0:
        return (gpa & _FRAME) + _1
    put(block, FAULT_CODE, FAULT_IN_TABLE)
    page = second_stage(block, gpa, access, va, effect)
    return _0 if page == _0 else (page & _FRAME) + _1


@inlined("uint64(uint64, uint64, uint64, uint64, uint64, uint64)")
def _refused(entry: int, rights: int, access: int, user: int, cr0: int, cr4: int) -> Word:
    """Returns whether the rights collected over a walk (RW, US, and NX in bit 63) refuse the access."""
    page_is_user = (rights & _US) != _0
    if user != _0 and not page_is_user:
        return _1
    if access == ACCESS_WRITE and (rights & _RW) == _0 and (user != _0 or (cr0 & CR0_WP) != _0):
        return _1
    if access == ACCESS_EXECUTE:
        if (rights >> _63) != _0:
            return _1
        if user == _0 and page_is_user and (cr4 & CR4_SMEP) != _0:
            return _1
    elif user == _0 and page_is_user and (cr4 & CR4_SMAP) != _0:
        return _1
    return _0


@inlined("uint64(uint64, uint64, uint64, uint64, uint64, uint64, uint64)")
def _reach(block: int, va: int, page: int, allowed: int, access: int, effect: int, code: int) -> Word:
    """Takes the page that the first stage gave through the second, and stores the result."""
    if word(block, EPTP) != _0:
        put(block, FAULT_CODE, FAULT_IN_PAGE)
        host = second_stage(block, page, access, va, effect)
        if host == _0:
            return FAULT_EPT
        allowed &= host & _7
        page = host & _FRAME
    elif page + _PAGE > word(block, RAM_SIZE):
        return _page_fault(block, va, code | CODE_P | CODE_R)
    put(block, WALK_PA, page)
    put(block, WALK_RIGHTS, allowed)
    return FAULT_NONE


@linked(L_WALK)
def walk(block: int, cr3: int, va: int, access: int, user: int, cr0: int, cr4: int, effect: int) -> Word:
    """Translates `va` for one access; returns FAULT_NONE with WALK_PA and WALK_RIGHTS in the block, or the fault.

    `access` is ACCESS_…; `user` is 1 at CPL 3; `cr4` has SMAP already taken out when RFLAGS.AC allows; `effect` is
    SET_BITS, or NO_EFFECT to look without touching A and D.
    """
    top = va >> u64(47)
    if top != _0 and top != _CANONICAL_TOP:
        put(block, FAULT, FAULT_CANONICAL)
        put(block, FAULT_VA, va)
        return FAULT_CANONICAL
    code = (CODE_W if access == ACCESS_WRITE else _0) | (CODE_U if user != _0 else _0)
    code |= CODE_I if access == ACCESS_EXECUTE else _0
    ram = word(block, RAM_BASE)
    size = word(block, RAM_SIZE)
    table = cr3 & _FRAME
    rights = _RW | _US
    shift = _39
    while True:
        entry_gpa = table + ((va >> (shift - _3)) & _INDEX)
        place = _table_page(block, entry_gpa, ACCESS_READ, va, effect)
        if place == _0:
            return FAULT_EPT
        place -= _1
        if place + _PAGE > size:
            return _page_fault(block, va, code | CODE_P | CODE_R)
        entry_pa = place | (entry_gpa & _OFFSET)
        entry = load64(ram + entry_pa)
        if (entry & _P) == _0:
            return _page_fault(block, va, code)
        large = (entry & _PS) != _0 and shift != _12
        if large and (shift == _39 or (entry & _FRAME & ((_1 << shift) - _1) & ~_PAGE) != _0):
            return _page_fault(block, va, code | CODE_P | CODE_R)
        here = (rights & entry & (_RW | _US)) | ((rights | entry) & (_1 << _63))
        leaf = large or shift == _12
        if leaf and _refused(entry, here, access, user, cr0, cr4) != _0:
            return _page_fault(block, va, code | CODE_P)
        wanted = entry | _A
        if leaf and access == ACCESS_WRITE:
            wanted |= _D
        if effect != NO_EFFECT and wanted != entry:
            if _table_page(block, entry_gpa, ACCESS_WRITE, va, effect) == _0:
                return FAULT_EPT
            if cas64(ram + entry_pa, entry, wanted) != entry:
                continue
            _set_bits(block, entry_pa)
        rights = here
        if leaf:
            break
        table = entry & _FRAME
        shift -= _9
    allowed = RIGHT_READ
    if (wanted & _D) != _0 and ((rights & _RW) != _0 or (user == _0 and (cr0 & CR0_WP) == _0)):
        allowed |= RIGHT_WRITE
    if (rights >> _63) == _0:
        allowed |= RIGHT_EXECUTE
    mask = (_1 << shift) - _1
    page = ((entry & _FRAME) & ~mask) | (va & mask & ~_OFFSET)
    return _reach(block, va, page, allowed, access, effect, code)
