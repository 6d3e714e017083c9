"""What deliveries through a guest's tables are made of: its tables read, its stack written, what a failure means.

Every access goes through the walker with supervisor rights, so a table that is not mapped ends in the fault that the
hardware raises, and one outside RAM reaches nothing.

Source: Intel SDM vol. 3, 3.4.5 (segment descriptors), 5.6.1 (implicit accesses).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
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
    GATE,
    GATE_CODE,
    RAM_BASE,
    WALK_PA,
)
from lamina_hardware.io.emulator.walks.steps import CR4_SMAP, SET_BITS
from lamina_hardware.io.emulator.walks.walker import walk
from lamina_hardware.io.native import (
    Word,
    compiled,
    load8,
    load32,
    load64,
    mark_written,
    put,
    store8,
    store64,
    u64,
    word,
)

_0, _1, _2, _3, _4, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 4, 7, 8, 16))
_OFFSET = u64(4095)
_CANONICAL_TOP = u64(0x1_FFFF)
_FLAG_AC = u64(1 << 18)
_NOT_PRESENT, _PROTECTION, _PAGE_FAULT = u64(11), u64(13), u64(14)
_IDT_ERROR = u64(2)

DELIVERED = u64(0)
SECOND_STAGE = u64(1)
REFUSED = u64(2)
"""REFUSED + 4 · vector | error code << 16: another exception came up on the way."""


@compiled("uint64(uint64, uint64, uint64)")
def refused(block: int, vector: int, code: int) -> Word:
    """Returns what says that `vector` with `code` came up instead."""
    return REFUSED | vector << _2 | code << _16


@compiled("uint64(uint64, uint64, uint64)")
def system_place(block: int, va: int, access: int) -> Word:
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
def is_canonical(va: int) -> Word:
    """Returns whether bits 63 to 47 of an address are equal."""
    top = va >> u64(47)
    return _1 if top in (_0, _CANONICAL_TOP) else _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def access_failed(block: int, va: int, vector: int, code: int) -> Word:
    """Returns what a failed access of a delivery means: a second-stage exit, #PF, or else `vector`."""
    if word(block, FAULT) == FAULT_EPT:
        return SECOND_STAGE
    if word(block, FAULT) == _1:
        store64(word(block, ENV) + at.CR2, va)
        return refused(block, _PAGE_FAULT, word(block, FAULT_CODE))
    return refused(block, vector, code)


@compiled("uint64(uint64, uint64)")
def read_system(block: int, va: int) -> Word:
    """Returns 8 bytes of the guest at `va`; the fault is in the block when they cannot be read."""
    place = system_place(block, va, ACCESS_READ)
    if place == _0:
        return _0
    if (va & _OFFSET) <= u64(4088):
        return load64(place)
    value = _0
    i = _0
    while i < _8:
        place = system_place(block, va + i, ACCESS_READ)
        if place == _0:
            return _0
        value |= load8(place) << (i << _3)
        i += _1
    return value


@compiled("uint64(uint64, uint64, uint64, uint64)")
def push_word(block: int, va: int, value: int, size: int) -> Word:
    """Stores 2, 4 or 8 bytes on the guest's stack; returns 0, with the fault in the block, when it cannot."""
    if size == _8 and (va & _OFFSET) <= u64(4088):
        place = system_place(block, va, ACCESS_WRITE)
        if place == _0:
            return _0
        store64(place, value)
        return _1
    i = _0
    while i < size:
        place = system_place(block, va + i, ACCESS_WRITE)
        if place == _0:
            return _0
        store8(place, (value >> (i << _3)) & u64(255))
        i += _1
    return _1


@compiled("uint64(uint64, uint64)")
def descriptor_place(env: int, selector: int) -> Word:
    """Returns where a selector's descriptor lies in GDT or LDT; 0 when it is null or beyond the table's limit."""
    table = env + (at.LDTR if selector & _4 != _0 else at.GDTR)
    offset = selector & u64(0xFFF8)
    if selector & u64(0xFFFC) == _0 or offset + _7 > load32(table + _16):
        return _0
    return load64(table + _8) + offset


@compiled("uint64(uint64, uint64, uint64, uint64, uint64)")
def read_gate(block: int, vector: int, size: int, kinds: int, software: int) -> Word:
    """Reads the gate of `vector` in a table of gates of `size` bytes; returns DELIVERED, or what came up.

    `kinds` are the types that are allowed, one bit each. The gate is then GATE, its bytes 8 to 15 GATE_HIGH.
    """
    env = word(block, ENV)
    external = _0 if software != _0 else _1
    error = vector * _8 | _IDT_ERROR | external
    if vector * size + size - _1 > load32(env + at.IDTR + _16):
        return refused(block, _PROTECTION, error)
    place = load64(env + at.IDTR + _8) + vector * size
    end = place + size
    target = block + GATE * _8
    while place != end:
        store64(target, read_system(block, place))
        if word(block, FAULT) != FAULT_NONE:
            return access_failed(block, place, _PROTECTION, error)
        place += _8
        target += _8
    gate = word(block, GATE)
    kind = (gate >> u64(40)) & u64(0x1F)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    if (kinds >> kind) & _1 == _0 or (software != _0 and ((gate >> u64(45)) & _3) < cpl):
        return refused(block, _PROTECTION, error)
    return DELIVERED if (gate >> u64(47)) & _1 != _0 else refused(block, _NOT_PRESENT, error)


@compiled("uint64(uint64, uint64)")
def read_target(block: int, external: int) -> Word:
    """Reads the descriptor that the gate names, which is code; it is then GATE_CODE. Returns as `read_gate` does."""
    selector = (word(block, GATE) >> _16) & u64(0xFFFC)
    place = descriptor_place(word(block, ENV), selector)
    if place == _0:
        return refused(block, _PROTECTION, selector | external)
    descriptor = read_system(block, place)
    if word(block, FAULT) != FAULT_NONE:
        return access_failed(block, place, _PROTECTION, selector | external)
    put(block, GATE_CODE, descriptor)
    return DELIVERED if (descriptor >> u64(43)) & _3 == _3 else refused(block, _PROTECTION, selector | external)


@compiled("uint64(uint64, uint64, uint64)")
def check_target(block: int, allowed: int, external: int) -> Word:
    """Returns DELIVERED when the gate's code may be entered (`allowed`) and is present, or what came up."""
    selector = (word(block, GATE) >> _16) & u64(0xFFFC)
    if allowed == _0:
        return refused(block, _PROTECTION, selector | external)
    present = (word(block, GATE_CODE) >> u64(47)) & _1 != _0
    return DELIVERED if present else refused(block, _NOT_PRESENT, selector | external)


@compiled("uint64(uint64)")
def descriptor_base(descriptor: int) -> Word:
    """Returns the base that a descriptor gives."""
    return (descriptor >> _16) & u64(0xFF_FFFF) | (descriptor >> u64(56)) << u64(24)


@compiled("uint64(uint64)")
def descriptor_limit(descriptor: int) -> Word:
    """Returns the limit that a descriptor gives, in bytes."""
    limit = descriptor & u64(0xFFFF) | (descriptor >> u64(32)) & u64(0xF_0000)
    return limit << u64(12) | _OFFSET if (descriptor >> u64(55)) & _1 != _0 else limit
