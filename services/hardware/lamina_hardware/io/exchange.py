"""The portable core's register file: a copy of ours, filled and emptied through the public API; compiled.

The copy has the layout that the walker core finds in the emulator, so everything else (loading, delivery, answers)
works on either. The privilege level cannot be set through the API; it comes with a saved context of the emulator, one
for ring 0 and one for ring 3, which is restored before the registers are written.
"""

from __future__ import annotations

import numpy as np

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.control import (
    ENGINE,
    ENV,
    F_READ_MANY,
    F_RESTORE,
    F_WRITE_MANY,
    L_LOOK,
    L_PULL,
    L_PUSH,
    LOOK_COUNT,
    LOOK_IDS,
    LOOK_PLACES,
    MSR_PAIRS,
    PULL_COUNT,
    PULL_IDS,
    PULL_PLACES,
    PUSH_COUNT,
    PUSH_IDS,
    PUSH_PLACES,
    TEMPLATE_0,
    TEMPLATE_3,
)
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
    store8,
    store32,
    store64,
    u64,
    word,
)
from lamina_hardware.io.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES

_0, _1, _2, _3, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 8, 16))
_FLAG_DF = u64(1 << 10)

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


@compiled("uint64(uint64, uint64)")
def _set_level(env: int, cpl: int) -> Word:
    """Derives what the API does not tell from the privilege level: it is that of CS."""
    level = cpl << u64(5)
    store32(env + at.SEGMENTS + at.SEGMENT_STRIDE + u64(20), (CODE_ATTRIBUTES | level) << _8)
    store32(env + at.SEGMENTS + _2 * at.SEGMENT_STRIDE + u64(20), (DATA_ATTRIBUTES | level) << _8)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_CPL) | cpl)
    return _0


@linked(L_LOOK)
def look(block: int) -> Word:
    """Brings in the registers that a walk and an instruction fetch depend on."""
    env = word(block, ENV)
    call4(
        word(block, F_READ_MANY),
        word(block, ENGINE),
        word(block, LOOK_IDS),
        word(block, LOOK_PLACES),
        word(block, LOOK_COUNT),
    )
    return _set_level(env, load32(env + at.SEGMENTS + at.SEGMENT_STRIDE) & _3)


@linked(L_PULL)
def pull(block: int) -> Word:
    """Brings all registers in."""
    env = word(block, ENV)
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
    return _set_level(env, load32(env + at.SEGMENTS + at.SEGMENT_STRIDE) & _3)


@linked(L_PUSH)
def push(block: int) -> Word:
    """Gives all registers to the emulator, at the level that the register file has."""
    env = word(block, ENV)
    cpl = load32(env + at.HFLAGS) & at.HF_CPL
    call2(word(block, F_RESTORE), word(block, ENGINE), word(block, TEMPLATE_3 if cpl == _3 else TEMPLATE_0))
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
    return call4(
        word(block, F_WRITE_MANY),
        word(block, ENGINE),
        word(block, PUSH_IDS),
        word(block, PUSH_PLACES),
        word(block, PUSH_COUNT),
    )
