"""Control registers as instructions read and write them: masks, shadows, targets, what is not allowed; compiled.

Reads of CR0 and CR4 see the shadow in the bits that belong to the holder; writes that would change one of those
against the shadow exit and are not made. What is made is checked first, as the processor does.

Source: Intel SDM vol. 3, 2.5 (control registers), 25.6.6 (guest/host masks), 25.1.3; vol. 2, MOV to control registers.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.instructions.apic_access import TARGET_CR8
from lamina_hardware.io.emulator.instructions.exit_record import (
    APIC,
    CR_ACCESS,
    FAULTED,
    GO_ON,
    IO_DATA,
    IO_DIRECTION,
    QUALIFICATION,
    RAISES,
    record,
)
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    APIC_MSRS,
    APIC_PAGE,
    APIC_REGISTER,
    APIC_TARGET,
    APIC_VALUE,
    APIC_WRITE,
    ENV,
    FAULT,
    FAULT_NONE,
    FAULT_PAGE,
    L_CONTROL_REGISTER,
    RUN_PAGE,
    STOP_A,
)
from lamina_hardware.io.emulator.state.exit_controls import setting
from lamina_hardware.io.emulator.state.exit_table import (
    FLAG_CR3_READS,
    FLAG_CR3_WRITES,
    FLAG_CR8_READS,
    FLAG_CR8_WRITES,
    T_CR0_MASK,
    T_CR0_SHADOW,
    T_CR4_MASK,
    T_CR4_SHADOW,
    T_FLAGS,
    T_TARGET,
    T_TARGETS,
)
from lamina_hardware.io.emulator.state.mode import derive_mode, in_pae
from lamina_hardware.io.emulator.state.registers import set_cr0, set_cr4
from lamina_hardware.io.emulator.tlb.fill import flush_tlb
from lamina_hardware.io.emulator.walks.legacy import forget_pdptes, load_pdptes, malformed_pdptes
from lamina_hardware.io.emulator.walks.steps import SET_BITS
from lamina_hardware.io.native import Word, compiled, linked, load64, put, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _2, _3, _4, _7, _8, _12, _15, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 7, 8, 12, 15, 16))
_PAGE_CR8 = u64(run_page.CONTROL_OFFSET + 0x20)
_APIC_TPR = u64(0x80)
_PROTECTION = RAISES | u64(13)

_CR0_KNOWN = u64(0xE005_003F)
_CR0_PE, _CR0_NW, _CR0_CD, _CR0_PG = (u64(1 << bit) for bit in (0, 29, 30, 31))
_CR0_FIXED = u64(1 << 4)  # ET
_CR4_KNOWN = u64(0x0037_07FF)
_CR4_PAE, _CR4_PCIDE = u64(1 << 5), u64(1 << 17)
_CR4_RELOADS = u64(1 << 4 | 1 << 5 | 1 << 7 | 1 << 20)  # PSE PAE PGE SMEP
_CR3_RESERVED = u64(0x7FF0_0000_0000_0000)
_LME, _LMA = u64(1 << 8), u64(1 << 10)
_CODE_LONG = u64(1 << 21)  # L in the segment's flags

MOVE_TO, MOVE_FROM, CLEAR_TASK, LOAD_STATUS = u64(0), u64(1), u64(2), u64(3)
"""How the instruction accesses the register: the values of the qualification's bits 4 and 5."""


@compiled("uint64(uint64, uint64)")
def read_control(block: int, number: int) -> Word:
    """Returns a control register as the context sees it."""
    env = word(block, ENV)
    if number == _0:
        mask = setting(block, T_CR0_MASK)
        return (load64(env + at.CR0) & ~mask) | (setting(block, T_CR0_SHADOW) & mask)
    if number == _2:
        return load64(env + at.CR2)
    if number == _3:
        return load64(env + at.CR3)
    if number == _4:
        mask = setting(block, T_CR4_MASK)
        return (load64(env + at.CR4) & ~mask) | (setting(block, T_CR4_SHADOW) & mask)
    return load64(word(block, RUN_PAGE) + _PAGE_CR8) & _15


@compiled("uint64(uint64, uint64)")
def _reload_pdptes(block: int, cr3: int) -> Word:
    """Loads the registers that PAE paging keeps of the table at `cr3`, when it is on; GO_ON, or what comes up instead.

    With anything but GO_ON the registers are as unknown: the next walk loads them again.
    """
    if in_pae(word(block, ENV)) == _0:
        return GO_ON
    put(block, FAULT, FAULT_NONE)
    ended = load_pdptes(block, cr3, cr3, SET_BITS)
    if ended == FAULT_NONE and malformed_pdptes(block) == _0:
        return GO_ON
    forget_pdptes(block)
    if ended in (FAULT_NONE, FAULT_PAGE):
        return _PROTECTION
    put(block, STOP_A, cr3)
    return FAULTED


@compiled("uint64(uint64, uint64)")
def _make_cr0(block: int, value: int) -> Word:
    env = word(block, ENV)
    old = load64(env + at.CR0)
    value |= _CR0_FIXED
    wrong = value & ~_CR0_KNOWN != _0 or (value & _CR0_PG != _0 and value & _CR0_PE == _0)
    wrong = wrong or (value & _CR0_NW != _0 and value & _CR0_CD == _0)
    in_long = load64(env + at.EFER) & _LMA != _0
    long_code = load64(env + at.SEGMENTS + at.SEGMENT_STRIDE + _16) >> u64(32) & _CODE_LONG != _0
    if in_long and value & _CR0_PG == _0 and (long_code or load64(env + at.CR4) & _CR4_PCIDE != _0):
        wrong = True
    enters = value & ~old & _CR0_PG != _0 and load64(env + at.EFER) & _LME != _0
    if enters and (long_code or load64(env + at.CR4) & _CR4_PAE == _0):
        wrong = True
    if wrong:
        return _PROTECTION
    if value == old:
        return GO_ON
    set_cr0(block, value)
    derive_mode(block)
    flush_tlb(block)
    if (value ^ old) & (_CR0_PG | _CR0_NW | _CR0_CD) == _0:
        return GO_ON
    result = _reload_pdptes(block, load64(env + at.CR3))
    if result != GO_ON:
        set_cr0(block, old)
        derive_mode(block)
    return result


@compiled("uint64(uint64, uint64)")
def _make_cr4(block: int, value: int) -> Word:
    env = word(block, ENV)
    old = load64(env + at.CR4)
    in_long = load64(env + at.EFER) & _LMA != _0
    new_pcid = value & ~old & _CR4_PCIDE != _0
    wrong = value & ~_CR4_KNOWN != _0 or (in_long and value & _CR4_PAE == _0)
    if wrong or (new_pcid and (not in_long or load64(env + at.CR3) & u64(4095) != _0)):
        return _PROTECTION
    if value == old:
        return GO_ON
    set_cr4(block, value)
    derive_mode(block)
    flush_tlb(block)
    if (value ^ old) & _CR4_RELOADS == _0:
        return GO_ON
    result = _reload_pdptes(block, load64(env + at.CR3))
    if result != GO_ON:
        set_cr4(block, old)
        derive_mode(block)
    return result


@compiled("uint64(uint64, uint64)")
def _make_cr3(block: int, value: int) -> Word:
    env = word(block, ENV)
    has_pcid = load64(env + at.CR4) & _CR4_PCIDE != _0
    if value & _CR3_RESERVED != _0 or (value >> u64(63) != _0 and not has_pcid):
        return _PROTECTION
    result = _reload_pdptes(block, value)
    if result == GO_ON:
        store64(env + at.CR3, value & ~(_1 << u64(63)))
        flush_tlb(block)
    return result


@compiled("uint64(uint64, uint64)")
def _is_target(block: int, value: int) -> Word:
    count = setting(block, T_TARGETS)
    i = _0
    while i < count:
        if setting(block, T_TARGET + i) == value:
            return _1
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _held(block: int, number: int, how: int, value: int) -> Word:
    """Returns whether a write exits by the controls."""
    flags = setting(block, T_FLAGS)
    if number == _0:
        mask, shadow = setting(block, T_CR0_MASK), setting(block, T_CR0_SHADOW)
        if how == CLEAR_TASK:
            return _1 if mask & shadow & _8 != _0 else _0
        if how == LOAD_STATUS:
            sets = value & ~shadow & mask & _1 != _0
            return _1 if sets or (value ^ shadow) & mask & u64(14) != _0 else _0
        return _1 if (value ^ shadow) & mask != _0 else _0
    if number == _4:
        return _1 if (value ^ setting(block, T_CR4_SHADOW)) & setting(block, T_CR4_MASK) != _0 else _0
    if number == _3:
        return _1 if flags & FLAG_CR3_WRITES != _0 and _is_target(block, value) == _0 else _0
    return _1 if number == _8 and flags & FLAG_CR8_WRITES != _0 else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def write_control(block: int, number: int, how: int, value: int) -> Word:
    """Makes a write: GO_ON, CR_ACCESS when it exits instead, or RAISES with the exception of a wrong value."""
    env = word(block, ENV)
    if _held(block, number, how, value) != _0:
        return CR_ACCESS
    if number == _0:
        old = load64(env + at.CR0)
        mask = setting(block, T_CR0_MASK)
        if how == CLEAR_TASK:
            value = old & ~_8
        elif how == LOAD_STATUS:
            value = (old & ~u64(14)) | (value & _15)
        return _make_cr0(block, (old & mask) | (value & ~mask))
    if number == _4:
        mask = setting(block, T_CR4_MASK)
        return _make_cr4(block, (load64(env + at.CR4) & mask) | (value & ~mask))
    if number == _3:
        return _make_cr3(block, value)
    if value > _15:
        return _PROTECTION
    store64(word(block, RUN_PAGE) + _PAGE_CR8, value)
    return GO_ON


@compiled("uint64(uint64, uint64, uint64)")
def _task_priority(block: int, writes: int, register: int) -> Word:
    """Makes an access to CR8 one to the task priority of the context's APIC, if it has one: its bits 7 to 4."""
    if word(block, APIC_PAGE) | word(block, APIC_MSRS) == _0:
        return GO_ON
    put(block, APIC_REGISTER, _APIC_TPR)
    put(block, APIC_WRITE, writes)
    put(block, APIC_VALUE, load64(word(block, RUN_PAGE) + _PAGE_CR8) << _4)
    put(block, APIC_TARGET, TARGET_CR8 | register)
    return APIC


@linked(L_CONTROL_REGISTER)
def move_control(block: int, number: int, register: int, how: int) -> Word:
    """Does MOV to or from a control register; the exit's record holds the qualification, and a write's value."""
    place = word(block, ENV) + at.REGS + register * _8
    record(block, QUALIFICATION, number | how << _4 | register << _8)
    if how == MOVE_FROM:
        flags = setting(block, T_FLAGS)
        wanted = flags & FLAG_CR3_READS if number == _3 else flags & FLAG_CR8_READS if number == _8 else _0
        if wanted != _0:
            return CR_ACCESS
        store64(place, read_control(block, number))
        result = _task_priority(block, _0, register) if number == _8 else GO_ON
    else:
        value = load64(place)
        record(block, IO_DIRECTION, _1)
        record(block, IO_DATA, value)
        result = write_control(block, number, MOVE_TO, value)
        if number == _8 and result == GO_ON:
            result = _task_priority(block, _1, register)
    if result != CR_ACCESS:
        record(block, QUALIFICATION, _0)
        record(block, IO_DIRECTION, _0)
        record(block, IO_DATA, _0)
    return result
