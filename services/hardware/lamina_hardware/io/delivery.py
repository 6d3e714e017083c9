"""Events through the guest's own tables: exceptions and interrupts through the IDT, SYSCALL to LSTAR; compiled.

All accesses to the guest's IDT, GDT, TSS and stack go through the walker with supervisor rights, so a table that is
not mapped ends in the fault that the hardware raises, and one outside RAM reaches nothing.

Source: Intel SDM vol. 3, 7.14 (64-bit interrupt handling), 7.8 (task state), vol. 2, SYSCALL.
"""

from __future__ import annotations

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.control import (
    ACCESS_READ,
    ACCESS_WRITE,
    BUS_HEAD,
    ENV,
    FAULT,
    FAULT_CODE,
    FAULT_EPT,
    FAULT_GPA,
    FAULT_IN_PAGE,
    FAULT_NONE,
    INTERRUPTS,
    L_DELIVER,
    L_ENTER_SYSCALL,
    RAM_BASE,
    WALK_PA,
)
from lamina_hardware.io.native import (
    Word,
    compiled,
    linked,
    load8,
    load32,
    load64,
    mark_written,
    put,
    store8,
    store32,
    store64,
    u64,
    word,
)
from lamina_hardware.io.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES, flags, set_flags, set_segment
from lamina_hardware.io.walker import CR4_SMAP, SET_BITS, walk

_0, _1, _2, _3, _4, _5, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 7, 8, 16))
_OFFSET = u64(4095)
_LOW = u64(0xFFFF_FFFF)

DELIVERED = u64(0)
SECOND_STAGE = u64(1)
REFUSED = u64(2)
"""REFUSED + 4 · vector | error code << 16: another exception came up on the way."""

_INVALID_TSS, _NOT_PRESENT, _STACK, _PROTECTION, _PAGE_FAULT = (u64(n) for n in (10, 11, 12, 13, 14))
_TABLE_LOCAL = _4
_NO_STACK = u64(1)
"""Instead of a stack pointer: the TSS does not reach to where it stands."""
_CANONICAL_TOP = u64(0x1_FFFF)
_GATE_INTERRUPT, _GATE_TRAP = u64(0xE), u64(0xF)
_IDT_ERROR = _2
_EXTERNAL = _1
_CONFORMING = u64(1 << 42)
_FLAGS_CLEARED = u64((1 << 8) | (1 << 14) | (1 << 16) | (1 << 17))  # TF NT RF VM
_FLAG_IF = u64(1 << 9)
_FLAG_RF = u64(1 << 16)
_FLAG_AC = u64(1 << 18)
_STAR_SHIFT = u64(32)


@compiled("uint64(uint64, uint64, uint64)")
def _refused(block: int, vector: int, code: int) -> Word:
    return REFUSED | vector << _2 | code << _16


@compiled("uint64(uint64, uint64, uint64)")
def _place(block: int, va: int, access: int) -> Word:
    """Returns this process's address of a byte of the guest as its kernel sees it; 0 with the fault in the block.

    Only tables are read and only the stack is written. The tables are implicit accesses, which SMAP forbids for user
    pages whatever AC is; the stack is an explicit one, which AC allows. Source: Intel SDM vol. 3, 5.6.1.
    """
    env = word(block, ENV)
    cr4 = load64(env + at.CR4)
    if access == ACCESS_WRITE and load64(env + at.EFLAGS) & _FLAG_AC != _0:
        cr4 &= ~CR4_SMAP
    put(block, FAULT, FAULT_NONE)
    ended = walk(block, load64(env + at.CR3), va, access, _0, load64(env + at.CR0), cr4, SET_BITS)
    if ended != FAULT_NONE:
        if ended == FAULT_EPT and word(block, FAULT_CODE) == FAULT_IN_PAGE:
            put(block, FAULT_GPA, word(block, FAULT_GPA) | (va & _OFFSET))
        return _0
    page = word(block, WALK_PA)
    if access == ACCESS_WRITE:
        mark_written(word(block, BUS_HEAD), page >> u64(12), _1)
    return word(block, RAM_BASE) + page + (va & _OFFSET)


@compiled("uint64(uint64)")
def _is_canonical(va: int) -> Word:
    top = va >> u64(47)
    return _1 if top in (_0, _CANONICAL_TOP) else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _access_failed(block: int, va: int, vector: int, code: int) -> Word:
    """Returns what a failed access of a delivery means: a second-stage exit, #PF, or else `vector`."""
    if word(block, FAULT) == FAULT_EPT:
        return SECOND_STAGE
    if word(block, FAULT) == _1:
        store64(word(block, ENV) + at.CR2, va)
        return _refused(block, _PAGE_FAULT, word(block, FAULT_CODE))
    return _refused(block, vector, code)


@compiled("uint64(uint64, uint64)")
def _read64(block: int, va: int) -> Word:
    """Returns 8 bytes of the guest at `va`; the fault is in the block when they cannot be read."""
    place = _place(block, va, ACCESS_READ)
    if place == _0:
        return _0
    if (va & _OFFSET) <= u64(4088):
        return load64(place)
    value = _0
    i = _0
    while i < _8:
        place = _place(block, va + i, ACCESS_READ)
        if place == _0:
            return _0
        value |= load8(place) << (i << _3)
        i += _1
    return value


@compiled("uint64(uint64, uint64, uint64)")
def _push(block: int, va: int, value: int) -> Word:
    """Stores 8 bytes on the guest's stack; returns 0, with the fault in the block, when it cannot."""
    i = _0
    if (va & _OFFSET) <= u64(4088):
        place = _place(block, va, ACCESS_WRITE)
        if place == _0:
            return _0
        store64(place, value)
        return _1
    while i < _8:
        place = _place(block, va + i, ACCESS_WRITE)
        if place == _0:
            return _0
        store8(place, (value >> (i << _3)) & u64(255))
        i += _1
    return _1


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _stack(block: int, gate: int, level: int, cpl: int) -> Word:
    """Returns the stack pointer that a gate switches to, or _NO_STACK.

    The fault is in the block when the TSS cannot be read.
    """
    env = word(block, ENV)
    ist = (gate >> _STAR_SHIFT) & _7
    if ist == _0 and level == cpl:
        return load64(env + at.REGS + _4 * _8) & ~u64(15)
    place = u64(36) + (ist - _1) * _8 if ist != _0 else _4 + level * _8
    if place + _7 > load32(env + at.TR + _16):
        return _NO_STACK
    return _read64(block, load64(env + at.TR + _8) + place) & ~u64(15)


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _push_frame(block: int, base: int, old_flags: int, code: int, has_code: int) -> Word:
    """Pushes SS, RSP, RFLAGS, CS and RIP, and an error code below them; returns 0, or 1 + the address that failed."""
    env = word(block, ENV)
    first = base + (_8 if has_code != _0 else _0)
    i = _5
    while i > _0:  # in the order of pushes: what fails first is what the guest hears of
        i -= _1
        value = load64(env + at.EIP)
        if i == _1:
            value = load32(env + at.SEGMENTS + at.SEGMENT_STRIDE) & u64(0xFFFF)
        elif i == _2:
            value = old_flags
        elif i == _3:
            value = load64(env + at.REGS + _4 * _8)
        elif i == _4:
            value = load32(env + at.SEGMENTS + _2 * at.SEGMENT_STRIDE) & u64(0xFFFF)
        if _push(block, first + i * _8, value) == _0:
            return first + i * _8 + _1
    if has_code != _0 and _push(block, base, code) == _0:
        return base + _1
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64, uint64, uint64)")
def _enter(block: int, gate: int, offset: int, descriptor: int, code: int, has_code: int, external: int) -> Word:
    """Switches to the gate's code, level and stack and pushes the frame."""
    env = word(block, ENV)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    level = cpl if descriptor & _CONFORMING != _0 else (descriptor >> u64(45)) & _3
    selector = (gate >> _16) & u64(0xFFFC)
    top = _stack(block, gate, level, cpl)
    task = (load32(env + at.TR) & u64(0xFFFC)) | external
    if word(block, FAULT) != _0:
        return _access_failed(block, load64(env + at.TR + _8), _INVALID_TSS, task)
    if top == _NO_STACK:
        return _refused(block, _INVALID_TSS, task)
    if _is_canonical(top) == _0:
        return _refused(block, _STACK, external)
    if _is_canonical(offset) == _0:
        return _refused(block, _PROTECTION, external)
    old_flags = flags(block)
    base = top - (u64(48) if has_code != _0 else u64(40))
    failed = _push_frame(block, base, old_flags, code, has_code)
    if failed != _0:
        return _access_failed(block, failed - _1, _STACK, external)
    attributes = (descriptor >> u64(40)) & u64(0xF0FF)
    set_segment(env, _1, selector | level, _0, _LOW, attributes)
    if level != cpl:
        set_segment(env, _2, level, _0, _LOW, DATA_ATTRIBUTES | level << _5)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~(at.HF_CPL | at.HF_SHADOW)) | level)
    store64(env + at.REGS + _4 * _8, base)
    store64(env + at.EIP, offset)
    cleared = _FLAGS_CLEARED
    if ((gate >> u64(40)) & u64(15)) == _GATE_INTERRUPT:
        cleared |= _FLAG_IF
    set_flags(block, old_flags & ~cleared)
    return DELIVERED


@linked(L_DELIVER)
def deliver(block: int, vector: int, code: int, has_code: int, software: int) -> Word:
    """Takes one event through the IDT; returns DELIVERED, SECOND_STAGE or REFUSED with the exception that came up."""
    env = word(block, ENV)
    put(block, FAULT, FAULT_NONE)
    external = _0 if software != _0 else _EXTERNAL
    error = vector * _8 | _IDT_ERROR | external
    if vector * _16 + u64(15) > load32(env + at.IDTR + _16):
        return _refused(block, _PROTECTION, error)
    entry = load64(env + at.IDTR + _8) + vector * _16
    gate = _read64(block, entry)
    if word(block, FAULT) != _0:
        return _access_failed(block, entry, _PROTECTION, error)
    high = _read64(block, entry + _8)
    if word(block, FAULT) != _0:
        return _access_failed(block, entry + _8, _PROTECTION, error)
    kind = (gate >> u64(40)) & u64(0x1F)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    if (kind != _GATE_INTERRUPT and kind != _GATE_TRAP) or (software != _0 and ((gate >> u64(45)) & _3) < cpl):
        return _refused(block, _PROTECTION, error)
    if (gate >> u64(47)) & _1 == _0:
        return _refused(block, _NOT_PRESENT, error)
    selector = (gate >> _16) & u64(0xFFFC)
    table = env + (at.LDTR if selector & _TABLE_LOCAL != _0 else at.GDTR)
    place = selector & ~_TABLE_LOCAL
    if selector == _0 or place + _7 > load32(table + _16):
        return _refused(block, _PROTECTION, selector | external)
    descriptor = _read64(block, load64(table + _8) + place)
    if word(block, FAULT) != _0:
        return _access_failed(block, load64(table + _8) + place, _PROTECTION, selector | external)
    is_code = (descriptor >> u64(43)) & _3 == _3
    is_long = (descriptor >> u64(53)) & _3 == _1
    if not is_code or not is_long or ((descriptor >> u64(45)) & _3) > cpl:
        return _refused(block, _PROTECTION, selector | external)
    if (descriptor >> u64(47)) & _1 == _0:
        return _refused(block, _NOT_PRESENT, selector | external)
    offset = (gate & u64(0xFFFF)) | ((gate >> _STAR_SHIFT) & u64(0xFFFF_0000)) | high << _STAR_SHIFT
    ended = _enter(block, gate, offset, descriptor, code, has_code, external)
    if ended == DELIVERED and software == _0 and (vector >= u64(32) or vector == _2):
        put(block, INTERRUPTS, word(block, INTERRUPTS) + _1)
    return ended


@linked(L_ENTER_SYSCALL)
def enter_syscall(block: int) -> Word:
    """Does what SYSCALL does after RIP has moved behind it: goes to LSTAR at level 0."""
    env = word(block, ENV)
    old = flags(block)
    store64(env + at.REGS + _8, load64(env + at.EIP))
    store64(env + at.REGS + u64(88), old & ~_FLAG_RF)
    selector = (load64(env + at.STAR) >> _STAR_SHIFT) & u64(0xFFFC)
    set_segment(env, _1, selector, _0, _LOW, CODE_ATTRIBUTES)
    set_segment(env, _2, selector + _8, _0, _LOW, DATA_ATTRIBUTES)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_CPL)
    store64(env + at.EIP, load64(env + at.LSTAR))
    set_flags(block, old & ~load64(env + at.SFMASK) & ~_FLAG_RF)
    return _0
