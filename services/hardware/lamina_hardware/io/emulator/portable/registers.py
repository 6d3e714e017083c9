"""The portable core's register file: a copy of ours, filled and emptied through the public API; compiled.

The copy has the layout that the walker core finds in the emulator, so everything else (loading, delivery, answers)
works on either. The privilege level cannot be set through the API; it comes with a saved context of the emulator, one
for ring 0 and one for ring 3, which is restored before the registers are written.
"""

from __future__ import annotations

import numpy as np
from unicorn import x86_const

from lamina_hardware.io.emulator.delivery.tables import descriptor_base, descriptor_limit, descriptor_place
from lamina_hardware.io.emulator.portable.mode_entry import SLOTS, enter_mode
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ACCESS_READ,
    ENGINE,
    ENTERED,
    ENV,
    F_READ_MANY,
    F_RESTORE,
    F_WRITE_MANY,
    FAULT,
    FAULT_CODE,
    FAULT_GPA,
    FAULT_NONE,
    FAULT_VA,
    L_LOOK,
    L_PULL,
    L_PUSH,
    LOOK_COUNT,
    LOOK_IDS,
    LOOK_PLACES,
    MSR_PAIRS,
    PAGING_HIDDEN,
    PULL_COUNT,
    PULL_IDS,
    PULL_PLACES,
    PUSH_COUNT,
    PUSH_IDS,
    PUSH_PLACES,
    RAM_BASE,
    TEMPLATE_0,
    TEMPLATE_3,
    WALK_PA,
)
from lamina_hardware.io.emulator.state.mode import derive_mode
from lamina_hardware.io.emulator.state.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES
from lamina_hardware.io.emulator.state.uc_registers import read_register
from lamina_hardware.io.emulator.walks.steps import NO_EFFECT
from lamina_hardware.io.emulator.walks.walker import walk
from lamina_hardware.io.native import (
    Word,
    call2,
    call4,
    compiled,
    linked,
    load8,
    load16,
    load32,
    load64,
    put,
    store8,
    store32,
    store64,
    u64,
    word,
)

_0, _1, _2, _3, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 8, 16))
_FLAG_DF = u64(1 << 10)
_REG_FS, _REG_GS = u64(x86_const.UC_X86_REG_FS), u64(x86_const.UC_X86_REG_GS)
_FLAG_VM = u64(1 << 17)
_EFER_LMA = u64(1 << 10)
_CR0_PG = u64(1 << 31)
_CS = at.SEGMENTS + at.SEGMENT_STRIDE
_KEPT = u64(512)  # bytes behind the pairs of MSRs: the selectors before a pull

# MSRs in the order of their pairs, and where each goes in the register file.
MSR_NUMBERS = (
    0xC000_0080, 0x174, 0x175, 0x176, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102, 0xC000_0103,
    0x277,
)  # fmt: skip
_MSR_PLACES = np.array(
    [
        int(place)
        for place in (
            at.EFER, at.SYSENTER_CS, at.SYSENTER_ESP, at.SYSENTER_EIP, at.STAR, at.LSTAR, at.CSTAR, at.SFMASK,
            at.KERNEL_GS_BASE, at.TSC_AUX, at.PAT,
        )
    ],
    dtype=np.uint64,
)  # fmt: skip
_MSRS = u64(len(MSR_NUMBERS))
PAIR_BYTES = u64(16)
TAG_OFFSET = u64(len(MSR_NUMBERS) * 16)  # behind the pairs: the FPU tag word, two bits a register


@compiled("uint64(uint64)")
def _level(env: int) -> Word:
    """Returns the privilege level, which is that of CS; real mode is at level 0, virtual-8086 mode at 3."""
    if load64(env + at.CR0) & _1 == _0:
        return _0
    if load64(env + at.EFLAGS) & _FLAG_VM != _0:
        return _3
    return load32(env + at.SEGMENTS + at.SEGMENT_STRIDE) & _3


@compiled("uint64(uint64, uint64)")
def _descriptor_word(block: int, va: int) -> Word:
    """Returns 8 bytes of a descriptor table, read without effects; 0 when they cannot be."""
    env = word(block, ENV)
    fault, where, code, gpa = word(block, FAULT), word(block, FAULT_VA), word(block, FAULT_CODE), word(block, FAULT_GPA)
    value = _0
    i = _0
    while i < _8:
        ended = walk(block, load64(env + at.CR3), va + i, ACCESS_READ, _0, _0, _0, NO_EFFECT)
        put(block, FAULT, fault)
        put(block, FAULT_VA, where)
        put(block, FAULT_CODE, code)
        put(block, FAULT_GPA, gpa)
        if ended != FAULT_NONE:
            return _0
        value |= load8(word(block, RAM_BASE) + word(block, WALK_PA) + ((va + i) & u64(4095))) << (i * _8)
        i += _1
    return value


@compiled("uint64(uint64, uint64)")
def _reload(block: int, number: int) -> Word:
    """Finds base, limit and attributes of a segment register that the emulator has loaded since: by its selector."""
    env = word(block, ENV)
    place = env + at.SEGMENTS + number * at.SEGMENT_STRIDE
    selector = load32(place) & u64(0xFFFF)
    if load64(env + at.CR0) & _1 == _0 or load64(env + at.EFLAGS) & _FLAG_VM != _0:
        store64(place + _8, selector << u64(4))
        return _0
    where = descriptor_place(env, selector)
    descriptor = _descriptor_word(block, where) if where != _0 else _0
    if descriptor == _0:
        if number != _1 and selector & u64(0xFFFC) == _0 and load64(env + at.EFER) & _EFER_LMA == _0:
            store32(place + u64(20), _0)
        return _0
    if number < u64(4) or load64(env + at.EFER) & _EFER_LMA == _0:
        store64(place + _8, descriptor_base(descriptor))
    store32(place + _16, descriptor_limit(descriptor))
    store32(place + u64(20), ((descriptor >> u64(40)) & u64(0xF0FF) | _1) << _8)
    return _0


@compiled("uint64(uint64)")
def _is_flat(env: int) -> Word:
    """Returns whether the context is in 64-bit mode, where the API's registers are all there is."""
    return _1 if load32(env + at.HFLAGS) & at.HF_CS64 != _0 else _0


@compiled("uint64(uint64)")
def _show_paging(block: int) -> Word:
    """Gives CR0 the bit that the emulator does not have."""
    if word(block, PAGING_HIDDEN) != _0:
        place = word(block, ENV) + at.CR0
        store64(place, load64(place) | _CR0_PG)
    return _0


@compiled("uint64(uint64, uint64)")
def _set_level(env: int, cpl: int) -> Word:
    """Derives what the API does not tell from the privilege level, in 64-bit mode."""
    level = cpl << u64(5)
    store32(env + at.SEGMENTS + at.SEGMENT_STRIDE + u64(20), (CODE_ATTRIBUTES | level) << _8)
    store32(env + at.SEGMENTS + _2 * at.SEGMENT_STRIDE + u64(20), (DATA_ATTRIBUTES | level) << _8)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_CPL) | cpl)
    return _0


@compiled("uint64(uint64)")
def _settle(block: int) -> Word:
    """Derives level and mode from the registers that were read."""
    env = word(block, ENV)
    level = _level(env)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_CPL) | level)
    derive_mode(block)
    return _set_level(env, level) if _is_flat(env) != _0 else _0


@compiled("uint64(uint64, uint64, uint64)")
def _pull_far(block: int, number: int, register: int) -> Word:
    """Brings in the selector of FS or GS, unless it is the one that the core's own code used instead."""
    selector = read_register(block, register) & u64(0xFFFF)
    if selector != SLOTS + number * _8:
        store32(word(block, ENV) + at.SEGMENTS + number * at.SEGMENT_STRIDE, selector)
    return _0


@linked(L_LOOK)
def look(block: int) -> Word:
    """Brings in the registers that a walk and an instruction fetch depend on."""
    env = word(block, ENV)
    code = load32(env + _CS)
    call4(
        word(block, F_READ_MANY),
        word(block, ENGINE),
        word(block, LOOK_IDS),
        word(block, LOOK_PLACES),
        word(block, LOOK_COUNT),
    )
    _show_paging(block)
    if (load32(env + _CS) ^ code) & u64(0xFFFF) != _0:
        _reload(block, _1)
    return _settle(block)


@linked(L_PULL)
def pull(block: int) -> Word:
    """Brings all registers in."""
    env = word(block, ENV)
    kept = word(block, MSR_PAIRS) + _KEPT
    i = _0
    while i < u64(6):
        store64(kept + i * _8, load32(env + at.SEGMENTS + i * at.SEGMENT_STRIDE) & u64(0xFFFF))
        i += _1
    call4(
        word(block, F_READ_MANY),
        word(block, ENGINE),
        word(block, PULL_IDS),
        word(block, PULL_PLACES),
        word(block, PULL_COUNT),
    )
    pairs = word(block, MSR_PAIRS)
    i = _0
    while i < _MSRS:
        place = env + _MSR_PLACES[i]
        if _MSR_PLACES[i] == at.SYSENTER_CS:
            store32(place, load64(pairs + i * PAIR_BYTES + _8))
        else:
            store64(place, load64(pairs + i * PAIR_BYTES + _8))
        i += _1
    tags = load16(pairs + TAG_OFFSET)
    i = _0
    while i < _8:
        store8(env + at.FPU_TAGS + i, _1 if (tags >> (i * _2)) & _3 == _3 else _0)
        i += _1
    status = load16(env + at.FPU_STATUS)
    store32(env + at.FPU_TOP, (status >> u64(11)) & u64(7))
    store32(env + at.DF, _1 if load64(env + at.EFLAGS) & _FLAG_DF == _0 else ~_0)
    _show_paging(block)
    if word(block, ENTERED) != _0:
        _pull_far(block, u64(4), _REG_FS)
        _pull_far(block, u64(5), _REG_GS)
    i = _0
    while i < u64(6):
        if load32(env + at.SEGMENTS + i * at.SEGMENT_STRIDE) & u64(0xFFFF) != load64(kept + i * _8):
            _reload(block, i)
        i += _1
    return _settle(block)


@linked(L_PUSH)
def push(block: int) -> Word:
    """Gives all registers to the emulator, at the level that the register file has."""
    env = word(block, ENV)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    flat = _is_flat(env) != _0
    call2(word(block, F_RESTORE), word(block, ENGINE), word(block, TEMPLATE_3 if flat and cpl == _3 else TEMPLATE_0))
    put(block, PAGING_HIDDEN, _0)
    put(block, ENTERED, _0 if flat else _1)
    if not flat:
        enter_mode(block)
        if load64(env + at.EFER) & _EFER_LMA == _0 and load64(env + at.CR0) & _CR0_PG != _0:
            put(block, PAGING_HIDDEN, _1)
            store64(env + at.CR0, load64(env + at.CR0) & ~_CR0_PG)
    pairs = word(block, MSR_PAIRS)
    i = _0
    while i < _MSRS:
        place = env + _MSR_PLACES[i]
        value = load32(place) if _MSR_PLACES[i] == at.SYSENTER_CS else load64(place)
        store64(pairs + i * PAIR_BYTES + _8, value)
        i += _1
    tags = _0
    i = _0
    while i < _8:
        tags |= (load8(env + at.FPU_TAGS + i) * _3) << (i * _2)
        i += _1
    store64(pairs + TAG_OFFSET, tags)
    status = load16(env + at.FPU_STATUS) & ~u64(0x3800)
    top = (load32(env + at.FPU_TOP) & u64(7)) << u64(11)
    store8(env + at.FPU_STATUS, (status | top) & u64(255))
    store8(env + at.FPU_STATUS + _1, (status | top) >> _8)
    call4(
        word(block, F_WRITE_MANY),
        word(block, ENGINE),
        word(block, PUSH_IDS),
        word(block, PUSH_PLACES),
        word(block, PUSH_COUNT),
    )
    return _show_paging(block)
