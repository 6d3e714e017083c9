"""What walks of every paging mode are made of: the second stage, rights, error codes, the end of a walk; compiled.

In the EPT, A is bit 8 and D bit 9, always kept (as with EPTP bit 6). So an entry of a guest's tables is reached as a
write is: its frame needs W and gets D in the second stage, once, and what is exchanged in it lies where that one
translation says.

Sources: Intel SDM vol. 3, 5.6 (rights), 5.7 (error codes), 30.3.3 (EPT misconfigurations and violations), 30.3.5
(accessed and dirty flags of the EPT).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_EXECUTE,
    ACCESS_READ,
    ACCESS_WRITE,
    ACCESSED_SET,
    APIC_PAGE,
    BUS_HEAD,
    CONTROLS,
    DIRTY_SET,
    EPTP,
    FAILURES,
    FAULT,
    FAULT_APIC,
    FAULT_CODE,
    FAULT_DEVICE,
    FAULT_EPT,
    FAULT_GPA,
    FAULT_IN_PAGE,
    FAULT_IN_TABLE,
    FAULT_MEMORY,
    FAULT_MISCONFIGURED,
    FAULT_NONE,
    FAULT_PAGE,
    FAULT_STAGE_ACCESS,
    FAULT_STAGE_RIGHTS,
    FAULT_VA,
    RAM_BASE,
    RAM_SIZE,
    RIGHT_EXECUTE,
    RIGHT_READ,
    RIGHT_WRITE,
    STATE_BASE,
    WALK_KEPT,
    WALK_KEPT_RIGHTS,
    WALK_KEPT_TABLE,
    WALK_KEPT_UPPER,
    WALK_KEPT_UPPER_RIGHTS,
    WALK_KEPT_UPPER_TABLE,
    WALK_PA,
    WALK_RIGHTS,
    WALK_SECOND_READS,
    WALK_SECOND_SHIFT,
)
from lamina_hardware.io.emulator.state.exit_controls import is_device
from lamina_hardware.io.native import (
    Word,
    cas64,
    compiled,
    inlined,
    load32,
    load64,
    mark_written,
    put,
    u64,
    word,
)
from lamina_kit.bus import memory

_0 = u64(0)
_1 = u64(1)
_3 = u64(3)
_7 = u64(7)
_2, _4, _12, _21, _30 = u64(2), u64(4), u64(12), u64(21), u64(30)
_39 = u64(39)
_9 = u64(9)
_63 = u64(63)
_INDEX = u64(511 << 3)
_PAGE = u64(4096)
_OFFSET = u64(4095)
_FAILED = u64(memory.FAILED)
_FRAME = u64(0x000F_FFFF_FFFF_F000)

_P, _RW, _US, _A, _D, _PS = (u64(1 << bit) for bit in (0, 1, 2, 5, 6, 7))
_G = u64(1 << 8)
_NX = u64(1 << 63)
_PAT_LARGE = _PAGE
_EPT_A, _EPT_D = u64(1 << 8), u64(1 << 9)
_EPT_READY = _EPT_A | _EPT_D | RIGHT_READ | RIGHT_WRITE
_EPT_TABLE_RESERVED = u64(0x78)
_EPT_TYPES_RESERVED = u64(1 << 2 | 1 << 3 | 1 << 7)
_CANONICAL_TOP = u64(0x1_FFFF)
_GPA_END = u64(48)

CODE_P, CODE_W, CODE_U, CODE_R, CODE_I = (u64(1 << bit) for bit in range(5))

CR0_WP = u64(1 << 16)
CR4_SMEP = u64(1 << 20)
CR4_SMAP = u64(1 << 21)
EFER_LMA = u64(1 << 10)
EFER_NXE = u64(1 << 11)

NO_EFFECT = u64(0)
SET_BITS = u64(1)


@inlined("uint64(uint64, uint64, uint64, uint64)")
def set_bits(block: int, entry_pa: int, accessed: int, dirty: int) -> Word:
    """Counts bits that the walker set in an entry, and marks its frame as written, for the dirty log."""
    put(block, ACCESSED_SET, word(block, ACCESSED_SET) + accessed)
    put(block, DIRTY_SET, word(block, DIRTY_SET) + dirty)
    frame = entry_pa >> _12
    if load32(word(block, STATE_BASE) + (frame << u64(2))) & u64(4) == _0:
        mark_written(word(block, BUS_HEAD), frame, _1)
    return _0


@inlined("uint64(uint64, uint64, uint64, uint64, uint64, uint64)")
def _second_stage_fault(block: int, gpa: int, va: int, access: int, rights: int, misconfigured: int) -> Word:
    put(block, FAULT, FAULT_EPT)
    put(block, FAULT_GPA, gpa)
    put(block, FAULT_VA, va)
    put(block, FAULT_STAGE_ACCESS, access)
    put(block, FAULT_STAGE_RIGHTS, rights)
    put(block, FAULT_MISCONFIGURED, misconfigured)
    return _0


@inlined("uint64(uint64, uint64, uint64)")
def _misconfigured(entry: int, shift: int, leaf: int) -> Word:
    """Returns whether an EPT entry that is present is malformed. Source: Intel SDM vol. 3, 30.3.3.1."""
    if (entry & _3) == RIGHT_WRITE:
        return _1
    if leaf != _0:
        inside = entry & _FRAME & ((_1 << shift) - _1)
        return _1 if inside != _0 or (_EPT_TYPES_RESERVED >> ((entry >> _3) & _7)) & _1 != _0 else _0
    reserved = _EPT_TABLE_RESERVED | (_PS if shift == _39 else _0)
    return _1 if (entry & reserved) != _0 else _0


@inlined("uint64(uint64)")
def _forget_kept(block: int) -> Word:
    """Begins a walk: what was kept is of another one."""
    put(block, WALK_KEPT, _0)
    put(block, WALK_KEPT_UPPER, _0)
    return _0


@inlined("uint64(uint64, uint64, uint64, uint64, uint64)")
def _keep(block: int, gpa: int, shift: int, table: int, rights: int) -> Word:
    """Keeps which table an entry of the second stage names, for other addresses of this walk."""
    if shift == _21:
        put(block, WALK_KEPT, (gpa >> _21) + _1)
        put(block, WALK_KEPT_TABLE, table)
        put(block, WALK_KEPT_RIGHTS, rights)
    elif shift == _30:
        put(block, WALK_KEPT_UPPER, (gpa >> _30) + _1)
        put(block, WALK_KEPT_UPPER_TABLE, table)
        put(block, WALK_KEPT_UPPER_RIGHTS, rights)
    return _0


@inlined("uint64(uint64, uint64)")
def _has_failed(block: int, page: int) -> Word:
    """Returns whether the memory of a frame failed."""
    return load32(word(block, STATE_BASE) + ((page >> _12) << _2)) & _FAILED


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _machine_check(block: int, va: int, gpa: int, where: int) -> Word:
    """Notes that memory failed beneath an access; `gpa` is what was looked up there."""
    put(block, FAULT, FAULT_MEMORY)
    put(block, FAULT_CODE, where)
    put(block, FAULT_VA, va)
    put(block, FAULT_GPA, gpa)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def second_stage(block: int, gpa: int, access: int, va: int, effect: int) -> Word:
    """Translates `gpa` through the EPT for one kind of access.

    Returns page address | rights, or 0 with the fault in the block. `va` is only reported. Upper entries that
    this walk read before are counted, and not read again. Source: Intel SDM vol. 3, 30.4.1 (paging-structure caches).
    """
    ram, size = word(block, RAM_BASE), word(block, RAM_SIZE)
    need = RIGHT_READ if access == ACCESS_READ else (RIGHT_WRITE if access == ACCESS_WRITE else RIGHT_EXECUTE)
    if gpa >> _GPA_END != _0:
        return _second_stage_fault(block, gpa, va, access, _0, _0)
    reads = word(block, WALK_SECOND_READS)
    if reads == _0:
        _forget_kept(block)
    if word(block, WALK_KEPT) == (gpa >> _21) + _1:
        table, rights, shift = word(block, WALK_KEPT_TABLE), word(block, WALK_KEPT_RIGHTS), _12
        reads += _3
    elif word(block, WALK_KEPT_UPPER) == (gpa >> _30) + _1:
        table, rights, shift = word(block, WALK_KEPT_UPPER_TABLE), word(block, WALK_KEPT_UPPER_RIGHTS), _21
        reads += _2
    else:
        table, rights, shift = word(block, EPTP) & _FRAME, _7, _39
    while True:
        if table + _PAGE > size:
            put(block, WALK_SECOND_READS, reads)
            return _second_stage_fault(block, gpa, va, access, _0, _0)
        if word(block, FAILURES) != _0 and effect != NO_EFFECT and _has_failed(block, table) != _0:
            return _machine_check(block, va, gpa, FAULT_IN_TABLE)
        entry_pa = table + ((gpa >> (shift - _3)) & _INDEX)
        entry = load64(ram + entry_pa)
        reads += _1
        if (entry & _7) == _0:
            put(block, WALK_SECOND_READS, reads)
            return _second_stage_fault(block, gpa, va, access, _0, _0)
        leaf = _1 if shift == _12 or ((entry & _PS) != _0 and shift != _39) else _0
        if _misconfigured(entry, shift, leaf) != _0:
            put(block, WALK_SECOND_READS, reads)
            return _second_stage_fault(block, gpa, va, access, _0, _1)
        allowed = rights & entry
        mask = (_1 << shift) - _1
        page = ((entry & _FRAME) & ~mask) | (gpa & mask & ~_OFFSET)
        wanted = entry | _EPT_A
        if leaf != _0:
            if (allowed & need) == _0 or page + _PAGE > size:
                put(block, WALK_SECOND_READS, reads)
                return _second_stage_fault(block, gpa, va, access, allowed & _7, _0)
            if access == ACCESS_WRITE:
                wanted |= _EPT_D
        if effect != NO_EFFECT and wanted != entry:
            if cas64(ram + entry_pa, entry, wanted) != entry:
                continue
            set_bits(block, entry_pa, ((wanted ^ entry) >> u64(8)) & _1, ((wanted ^ entry) >> _9) & _1)
        rights = allowed
        if leaf != _0:
            put(block, WALK_SECOND_SHIFT, shift)
            put(block, WALK_SECOND_READS, reads)
            if (wanted & _EPT_D) == _0:
                rights &= ~RIGHT_WRITE
            return page | (rights & _7)
        table = entry & _FRAME
        _keep(block, gpa, shift, table, rights)
        shift -= _9


@inlined("uint64(uint64, uint64, uint64)")
def page_fault(block: int, va: int, code: int) -> Word:
    """Notes a page fault of the first stage; returns FAULT_PAGE."""
    put(block, FAULT, FAULT_PAGE)
    put(block, FAULT_VA, va)
    put(block, FAULT_CODE, code)
    return FAULT_PAGE


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _backed_table(block: int, gpa: int, va: int, effect: int) -> Word:
    """Takes the guest physical address of a guest's entry through the second stage; returns page | rights, or 0.

    Tables of a guest lie close together: most often only the last entry is to be read, and nothing to be set in it.
    """
    if word(block, WALK_SECOND_READS) != _0 and word(block, WALK_KEPT) == (gpa >> _21) + _1:
        entry = load64(word(block, RAM_BASE) + word(block, WALK_KEPT_TABLE) + ((gpa >> _9) & _INDEX))
        page = entry & _FRAME
        sound = (_EPT_TYPES_RESERVED >> ((entry >> _3) & _7)) & _1 == _0 and page + _PAGE <= word(block, RAM_SIZE)
        if sound and entry & _EPT_READY == _EPT_READY and word(block, WALK_KEPT_RIGHTS) & RIGHT_WRITE != _0:
            put(block, WALK_SECOND_READS, word(block, WALK_SECOND_READS) + _4)
            return page | _1
    put(block, FAULT_CODE, FAULT_IN_TABLE)
    return second_stage(block, gpa, ACCESS_WRITE, va, effect)


@inlined("uint64(uint64, uint64, uint64, uint64)")
def table_page(block: int, gpa: int, va: int, effect: int) -> Word:
    """Returns the physical address of the table page that holds the entry at `gpa`, plus 1; 0: a fault."""
    page = gpa
    if word(block, EPTP) != _0:
        page = _backed_table(block, gpa, va, effect)
        if page == _0:
            return _0
    if word(block, FAILURES) != _0 and effect != NO_EFFECT and _has_failed(block, page & _FRAME) != _0:
        return _machine_check(block, va, gpa, FAULT_IN_TABLE)
    return (page & _FRAME) + _1


@inlined("uint64(uint64, uint64, uint64, uint64, uint64)")
def refused(rights: int, access: int, user: int, cr0: int, cr4: int) -> Word:
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


@inlined("uint64(uint64, uint64, uint64, uint64, uint64)")
def reach(block: int, va: int, page: int, allowed: int, access_and_effect: int) -> Word:
    """Takes the page that the first stage gave through the second, and stores the result."""
    if page | _1 == word(block, APIC_PAGE):
        put(block, FAULT, FAULT_APIC)
        put(block, FAULT_VA, va)
        return FAULT_APIC
    if word(block, CONTROLS) != _0 and is_device(block, page) != _0:
        put(block, FAULT, FAULT_DEVICE)
        put(block, FAULT_VA, va)
        put(block, FAULT_GPA, page)
        return FAULT_DEVICE
    if word(block, EPTP) != _0:
        put(block, FAULT_CODE, FAULT_IN_PAGE)
        host = second_stage(block, page, access_and_effect >> _1, va, access_and_effect & _1)
        if host == _0:
            return word(block, FAULT)
        allowed &= host & _7
        host &= _FRAME
    else:
        host = page
    put(block, WALK_PA, host)
    put(block, WALK_RIGHTS, allowed)
    if _has_failed(block, host) != _0 and access_and_effect & _1 != _0:
        _machine_check(block, va, page, FAULT_IN_PAGE)
        return FAULT_MEMORY
    return FAULT_NONE


@inlined("uint64(uint64, uint64, uint64, uint64)")
def fault_code(access: int, user: int, cr4: int, efer: int) -> Word:
    """Returns the bits of a page fault's error code that say what was tried. Source: Intel SDM vol. 3, 5.7."""
    code = (CODE_W if access == ACCESS_WRITE else _0) | (CODE_U if user != _0 else _0)
    if access == ACCESS_EXECUTE and ((efer & EFER_NXE) != _0 or (cr4 & CR4_SMEP) != _0):
        code |= CODE_I
    return code


@inlined("uint64(uint64, uint64, uint64, uint64)")
def allowed_rights(rights: int, leaf: int, user: int, cr0: int) -> Word:
    """Returns what may be done without another walk: a write only once D is set in the leaf."""
    allowed = RIGHT_READ
    if (leaf & _D) != _0 and ((rights & _RW) != _0 or (user == _0 and (cr0 & CR0_WP) == _0)):
        allowed |= RIGHT_WRITE
    if (rights >> _63) == _0:
        allowed |= RIGHT_EXECUTE
    return allowed
