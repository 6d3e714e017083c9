"""Events through the guest's own tables: exceptions and interrupts through the IDT, SYSCALL to LSTAR; compiled.

In IA-32e mode, also from compatibility code; the rest is in `io/emulator/delivery/legacy.py`.

Source: Intel SDM vol. 3, 7.14 (64-bit interrupt handling), 7.8 (task state), vol. 2, SYSCALL.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.delivery.legacy import deliver_legacy
from lamina_hardware.io.emulator.delivery.tables import (
    DELIVERED,
    access_failed,
    check_target,
    is_canonical,
    push_word,
    read_gate,
    read_system,
    read_target,
    refused,
)
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ENV,
    FAULT,
    FAULT_NONE,
    GATE,
    GATE_CODE,
    GATE_HIGH,
    INTERRUPTS,
    L_DELIVER,
    L_ENTER_SYSCALL,
)
from lamina_hardware.io.emulator.state.mode import derive_mode, is_64
from lamina_hardware.io.emulator.state.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES, flags, set_flags, set_segment
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, put, store32, store64, u64, word

_0, _1, _2, _3, _4, _5, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 7, 8, 16))
_LOW = u64(0xFFFF_FFFF)

_INVALID_TSS, _STACK, _PROTECTION = (u64(n) for n in (10, 12, 13))
_NO_STACK = u64(1)
"""Instead of a stack pointer: the TSS does not reach to where it stands."""
_GATE_INTERRUPT = u64(0xE)
_GATES = u64(1 << 0xE | 1 << 0xF)  # interrupt and trap
_EXTERNAL = _1
_CONFORMING = u64(1 << 42)
_FLAGS_CLEARED = u64((1 << 8) | (1 << 14) | (1 << 16) | (1 << 17))  # TF NT RF VM
_FLAG_IF = u64(1 << 9)
_FLAG_RF = u64(1 << 16)
_STAR_SHIFT = u64(32)
_EFER_LMA = u64(1 << 10)


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
    return read_system(block, load64(env + at.TR + _8) + place) & ~u64(15)


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
        if push_word(block, first + i * _8, value, _8) == _0:
            return first + i * _8 + _1
    if has_code != _0 and push_word(block, base, code, _8) == _0:
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
        return access_failed(block, load64(env + at.TR + _8), _INVALID_TSS, task)
    if top == _NO_STACK:
        return refused(block, _INVALID_TSS, task)
    if is_canonical(top) == _0:
        return refused(block, _STACK, external)
    if is_canonical(offset) == _0:
        return refused(block, _PROTECTION, external)
    old_flags = flags(block)
    base = top - (u64(48) if has_code != _0 else u64(40))
    failed = _push_frame(block, base, old_flags, code, has_code)
    if failed != _0:
        return access_failed(block, failed - _1, _STACK, external)
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
    was_64 = is_64(env) != _0
    set_flags(block, old_flags & ~cleared)
    if not was_64:
        derive_mode(block)
    return DELIVERED


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _counted(block: int, vector: int, software: int, ended: int) -> Word:
    """Counts an interrupt that was delivered; returns how the delivery ended."""
    if ended == DELIVERED and software == _0 and (vector >= u64(32) or vector == _2):
        put(block, INTERRUPTS, word(block, INTERRUPTS) + _1)
    return ended


@linked(L_DELIVER)
def deliver(block: int, vector: int, code: int, has_code: int, software: int) -> Word:
    """Takes one event through the IDT; returns DELIVERED, SECOND_STAGE or REFUSED with the exception that came up."""
    env = word(block, ENV)
    put(block, FAULT, FAULT_NONE)
    if load64(env + at.EFER) & _EFER_LMA == _0:
        return _counted(block, vector, software, deliver_legacy(block, vector, code, has_code, software))
    external = _0 if software != _0 else _EXTERNAL
    ended = read_gate(block, vector, _16, _GATES, software)
    if ended == DELIVERED:
        ended = read_target(block, external)
    if ended != DELIVERED:
        return ended
    gate, high, descriptor = word(block, GATE), word(block, GATE_HIGH), word(block, GATE_CODE)
    is_long = (descriptor >> u64(53)) & _3 == _1
    allowed = is_long and ((descriptor >> u64(45)) & _3) <= load32(env + at.HFLAGS) & at.HF_CPL
    ended = check_target(block, _1 if allowed else _0, external)
    if ended != DELIVERED:
        return ended
    offset = (gate & u64(0xFFFF)) | ((gate >> _STAR_SHIFT) & u64(0xFFFF_0000)) | high << _STAR_SHIFT
    return _counted(block, vector, software, _enter(block, gate, offset, descriptor, code, has_code, external))


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
