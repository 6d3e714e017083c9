"""Exceptions and interrupts outside IA-32e mode: through gates of 8 bytes, and in real mode through vectors; compiled.

Interrupt and trap gates of 32 and 16 bits, the stack of the TSS at a more privileged level, virtual-8086 mode left with
its segments on the stack. An event whose gate is a task gate is not delivered: it becomes TASK_GATE, an exit, for task
switches are the holder's.

Source: Intel SDM vol. 3, 7.11 (IDT descriptors), 7.12 (handling), 7.13 (error code), 22.1.4 (real mode), 22.3.1 (from
virtual-8086 mode); vol. 2, INT n.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.delivery.double_fault import TASK_GATE
from lamina_hardware.io.emulator.delivery.tables import (
    DELIVERED,
    access_failed,
    check_target,
    descriptor_base,
    descriptor_limit,
    descriptor_place,
    push_word,
    read_gate,
    read_system,
    read_target,
    refused,
)
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV, FAULT, GATE, GATE_CODE, L_DELIVER_LEGACY
from lamina_hardware.io.emulator.state.mode import derive_mode
from lamina_hardware.io.emulator.state.registers import flags, set_flags, set_segment
from lamina_hardware.io.native import Word, compiled, linked, load32, load64, store32, store64, u64, word

_0, _1, _2, _3, _4, _5, _6, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 16))
_WORD, _LOW = u64(0xFFFF), u64(0xFFFF_FFFF)
_INVALID_TSS, _STACK, _PROTECTION = (u64(n) for n in (10, 12, 13))
_GATE_TASK, _GATE_INTERRUPT_16, _GATE_INTERRUPT = (u64(n) for n in (5, 6, 14))
_GATES = u64(1 << 5 | 1 << 6 | 1 << 7 | 1 << 14 | 1 << 15)  # task; interrupt and trap of 16 and 32 bits
_GATE_WIDE = _8  # in a gate's type: 32 bits
_CONFORMING = u64(1 << 42)
_CR0_PE = _1
_SEGMENT_BIG = u64(1 << 22)
_FLAG_IF, _FLAG_RF, _FLAG_VM = u64(1 << 9), u64(1 << 16), u64(1 << 17)
_FLAGS_CLEARED = u64(1 << 8 | 1 << 14 | 1 << 16 | 1 << 17)  # TF NT RF VM
_REAL_CLEARED = u64(1 << 8 | 1 << 9 | 1 << 16 | 1 << 18)  # TF IF RF AC
_RSP = _4 * _8
_CS, _SS = (at.SEGMENTS + u64(n) * at.SEGMENT_STRIDE for n in (1, 2))
_REAL_ATTRIBUTES = u64(0x9B)


@compiled("uint64(uint64, uint64)")
def _selector(env: int, number: int) -> Word:
    return load32(env + at.SEGMENTS + number * at.SEGMENT_STRIDE) & _WORD


@compiled("uint64(uint64)")
def _attributes(descriptor: int) -> Word:
    """Returns the attributes that a descriptor gives, accessed."""
    return (descriptor >> u64(40)) & u64(0xF0FF) | _1


@compiled("uint64(uint64, uint64, uint64)")
def _is_stack(descriptor: int, selector: int, level: int) -> Word:
    """Returns whether a descriptor may be the stack of a level: writable data of that level."""
    writable = (descriptor >> u64(41)) & _1 != _0 and (descriptor >> u64(43)) & _3 == _2
    return _1 if writable and (descriptor >> u64(45)) & _3 == level and selector & _3 == level else _0


@compiled("uint64(uint64, uint64, uint64)")
def _load_stack(block: int, level: int, external: int) -> Word:
    """Loads SS and ESP of `level` from the TSS; returns DELIVERED, or what came up. The old ones are the caller's."""
    env = word(block, ENV)
    task = (load32(env + at.TR) & u64(0xFFFC)) | external
    wide = (load32(env + at.TR + u64(20)) >> u64(11)) & _1 != _0
    place = _4 + level * _8 if wide else _2 + level * _4
    size = _8 if wide else _4
    if place + size - _1 > load32(env + at.TR + _16):
        return refused(block, _INVALID_TSS, task)
    va = load64(env + at.TR + _8) + place
    found = read_system(block, va)
    if word(block, FAULT) != _0:
        return access_failed(block, va, _INVALID_TSS, task)
    pointer = found & _LOW if wide else found & _WORD
    selector = (found >> u64(32)) & _WORD if wide else (found >> _16) & _WORD
    code = selector & u64(0xFFFC) | external
    place = descriptor_place(env, selector)
    if place == _0:
        return refused(block, _INVALID_TSS, code)
    descriptor = read_system(block, place)
    if word(block, FAULT) != _0:
        return access_failed(block, place, _INVALID_TSS, code)
    if _is_stack(descriptor, selector, level) == _0:
        return refused(block, _INVALID_TSS, code)
    if (descriptor >> u64(47)) & _1 == _0:
        return refused(block, _STACK, code)
    base, limit = descriptor_base(descriptor), descriptor_limit(descriptor)
    set_segment(env, _2, selector, base, limit, _attributes(descriptor))
    store64(env + at.REGS + _RSP, pointer)
    return DELIVERED


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _push(block: int, below: int, value: int, size: int) -> Word:
    """Stores a value `below` bytes below the stack pointer; returns 0 with the fault in the block when it cannot.

    A push that leaves an expand-up segment fails too, without a fault in the block: #SS.
    """
    env = word(block, ENV)
    mask = _LOW if load32(env + _SS + u64(20)) & _SEGMENT_BIG != _0 else _WORD
    offset = (load64(env + at.REGS + _RSP) - below) & mask
    grows_down = (load32(env + _SS + u64(20)) >> u64(10)) & _1 != _0
    if not grows_down and offset + size - _1 > load32(env + _SS + _16):
        return _0
    return push_word(block, (load64(env + _SS + _8) + offset) & _LOW, value, size)


@compiled("uint64(uint64, uint64)")
def _failed_at(block: int, below: int) -> Word:
    """Returns the linear address `below` bytes below the stack pointer."""
    env = word(block, ENV)
    mask = _LOW if load32(env + _SS + u64(20)) & _SEGMENT_BIG != _0 else _WORD
    return (load64(env + _SS + _8) + ((load64(env + at.REGS + _RSP) - below) & mask)) & _LOW


@compiled("uint64(uint64, uint64)")
def _drop_stack(block: int, below: int) -> Word:
    """Moves the stack pointer down; the upper half stays as it is in a 16-bit stack."""
    env = word(block, ENV)
    old = load64(env + at.REGS + _RSP)
    if load32(env + _SS + u64(20)) & _SEGMENT_BIG != _0:
        store64(env + at.REGS + _RSP, (old - below) & _LOW)
    else:
        store64(env + at.REGS + _RSP, old & ~_WORD | (old - below) & _WORD)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def _item(block: int, number: int, old_stack: int, old_pointer: int, code: int) -> Word:
    """Returns what is pushed: 0 to 3 GS FS DS ES, 4 SS, 5 ESP, 6 EFLAGS, 7 CS, 8 EIP, 9 the error code."""
    env = word(block, ENV)
    if number < _4:
        return _selector(env, (_5, _4, _3, _0)[int(number)])
    if number == _4:
        return old_stack
    if number == _5:
        return old_pointer
    if number == _6:
        return flags(block)
    if number == _7:
        return _selector(env, _1)
    return load64(env + at.EIP) if number == _8 else code


@compiled("uint64(uint64, uint64, uint64, uint64, uint64, uint64, uint64)")
def _push_frame(block: int, first: int, size: int, old_stack: int, old_pointer: int, code: int, has_code: int) -> Word:
    """Pushes the items from `first` on; returns the bytes that they took.

    Bit 32 set: the push so far below the stack pointer failed, with the fault in the block, or it left the segment.
    """
    below = _0
    number = first
    end = u64(10) if has_code != _0 else u64(9)
    while number < end:
        below += size
        if _push(block, below, _item(block, number, old_stack, old_pointer, code), size) == _0:
            return u64(1 << 32) | below
        number += _1
    return below


@compiled("uint64(uint64, uint64, uint64, uint64, uint64, uint64)")
def _switch(block: int, gate: int, descriptor: int, code: int, has_code: int, external: int) -> Word:
    """Switches to the gate's code, level and stack and pushes the frame; undoes the stack when that fails."""
    env = word(block, ENV)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    old_flags = flags(block)
    virtual = old_flags & _FLAG_VM != _0
    level = cpl if descriptor & _CONFORMING != _0 else (descriptor >> u64(45)) & _3
    kept = (load64(env + _SS), load64(env + _SS + _8), load64(env + _SS + _16), load64(env + at.REGS + _RSP))
    if level < cpl:
        ended = _load_stack(block, level, external)
        if ended != DELIVERED:
            return ended
    size = _4 if (gate >> u64(40)) & _GATE_WIDE != _0 else _2
    first = _0 if virtual else (_4 if level < cpl else _6)
    below = _push_frame(block, first, size, kept[0] & _WORD, kept[3], code, has_code)
    if below >> u64(32) != _0:
        failed = _failed_at(block, below & _LOW)
        store64(env + _SS, kept[0])
        store64(env + _SS + _8, kept[1])
        store64(env + _SS + _16, kept[2])
        store64(env + at.REGS + _RSP, kept[3])
        return access_failed(block, failed, _STACK, external)
    _drop_stack(block, below)
    selector = (gate >> _16) & u64(0xFFFC) | level
    limit = descriptor_limit(descriptor)
    set_segment(env, _1, selector, descriptor_base(descriptor), limit, _attributes(descriptor))
    if virtual:
        for number in (_0, _3, _4, _5):
            set_segment(env, number, _0, _0, _0, _0)
    offset = gate & _WORD | (gate >> u64(32)) & u64(0xFFFF_0000)
    store64(env + at.EIP, offset if size == _4 else offset & _WORD)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~(at.HF_CPL | at.HF_SHADOW)) | level)
    kind = (gate >> u64(40)) & u64(0x1F)
    cleared = _FLAGS_CLEARED | (_FLAG_IF if kind in (_GATE_INTERRUPT, _GATE_INTERRUPT_16) else _0)
    set_flags(block, old_flags & ~cleared)
    derive_mode(block)
    return DELIVERED


@compiled("uint64(uint64, uint64)")
def _real(block: int, vector: int) -> Word:
    """Delivers an event in real mode: no error codes, no levels."""
    env = word(block, ENV)
    if vector * _4 + _3 > load32(env + at.IDTR + _16):
        return refused(block, _PROTECTION, _0)
    va = load64(env + at.IDTR + _8) + vector * _4
    target = read_system(block, va)
    if word(block, FAULT) != _0:
        return access_failed(block, va, _PROTECTION, _0)
    below = _push_frame(block, _6, _2, _0, _0, _0, _0)
    if below >> u64(32) != _0:
        return access_failed(block, _failed_at(block, below & _LOW), _STACK, _0)
    _drop_stack(block, below)
    selector = (target >> _16) & _WORD
    set_segment(env, _1, selector, selector << _4, _WORD, _REAL_ATTRIBUTES)
    store64(env + at.EIP, target & _WORD)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_SHADOW)
    set_flags(block, flags(block) & ~_REAL_CLEARED)
    derive_mode(block)
    return DELIVERED


@linked(L_DELIVER_LEGACY)
def deliver_legacy(block: int, vector: int, code: int, has_code: int, software: int) -> Word:
    """Takes one event through the IDT of protected mode, or the vectors of real mode; returns as `deliver` does."""
    env = word(block, ENV)
    if load64(env + at.CR0) & _CR0_PE == _0:
        return _real(block, vector)
    external = _0 if software != _0 else _1
    ended = read_gate(block, vector, _8, _GATES, software)
    if ended != DELIVERED:
        return ended
    gate = word(block, GATE)
    if (gate >> u64(40)) & u64(0x1F) == _GATE_TASK:
        return refused(block, TASK_GATE, vector)
    ended = read_target(block, external)
    if ended != DELIVERED:
        return ended
    descriptor = word(block, GATE_CODE)
    to_kernel = (descriptor >> u64(45)) & _3 == _0 and descriptor & _CONFORMING == _0
    inward = (descriptor >> u64(45)) & _3 <= load32(env + at.HFLAGS) & at.HF_CPL
    allowed = to_kernel if flags(block) & _FLAG_VM != _0 else inward
    ended = check_target(block, _1 if allowed else _0, external)
    if ended != DELIVERED:
        return ended
    return _switch(block, gate, descriptor, code, has_code, external)
