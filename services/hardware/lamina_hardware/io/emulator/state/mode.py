"""Which mode a context runs in, and where its next instruction lies; compiled.

    CR0.PE  CR0.PG & EFER.LME  CS.L   mode                     instructions
    0       0                  –      real                     16-bit (32-bit by CS.D)
    1       0                  –      protected (legacy)       by CS.D
    1       1                  0      compatibility            by CS.D
    1       1                  1      64-bit                   64-bit

The emulator keeps the mode in bits of its own (`hflags`), which it follows by itself when the guest loads a segment or
changes CR0; whoever changes these registers from outside it calls `derive_mode` afterwards.

Source: Intel SDM vol. 3, 2.2 (modes of operation), 3.4.5 (segment descriptors), 10.8.5 (IA-32e mode).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import CONTROLS, ENV, L_DERIVE_MODE, PORTABLE
from lamina_hardware.io.emulator.state.exit_table import FLAG_CR3_WRITES
from lamina_hardware.io.native import (
    Word,
    compiled,
    linked,
    load16,
    load32,
    load64,
    store16,
    store32,
    store64,
    u64,
    word,
)

_0, _1, _3, _8 = (u64(n) for n in (0, 1, 3, 8))
_LOW = u64(0xFFFF_FFFF)
_FLAGS_IN_SEGMENT = u64(20)
_SEGMENT_LONG, _SEGMENT_BIG = u64(1 << 21), u64(1 << 22)
_CR0_PE, _CR0_PG = _1, u64(1 << 31)
_CR4_PAE = u64(1 << 5)
_EFER_LME, _EFER_LMA = u64(1 << 8), u64(1 << 10)
_FLAG_VM = u64(1 << 17)
_ES, _CS, _SS, _DS = (at.SEGMENTS + u64(n) * at.SEGMENT_STRIDE for n in range(4))

BITS_64, BITS_32, BITS_16 = u64(0), u64(1), u64(2)
"""What instructions are: 64-bit code, or code whose default sizes are 32 or 16 bits."""


@compiled("uint64(uint64)")
def code_bits(env: int) -> Word:
    """Returns BITS_…, by the code segment."""
    flags = load32(env + at.HFLAGS)
    if flags & at.HF_CS64 != _0:
        return BITS_64
    return BITS_32 if flags & at.HF_CS32 != _0 else BITS_16


@compiled("uint64(uint64)")
def is_64(env: int) -> Word:
    """Returns whether the context runs 64-bit code."""
    return _1 if load32(env + at.HFLAGS) & at.HF_CS64 != _0 else _0


@compiled("uint64(uint64)")
def linear_rip(env: int) -> Word:
    """Returns the linear address of the next instruction: 64-bit code has no segment base."""
    rip = load64(env + at.EIP)
    if load32(env + at.HFLAGS) & at.HF_CS64 != _0:
        return rip
    return (rip + load64(env + _CS + _8)) & _LOW


@compiled("uint64(uint64, uint64)")
def move_rip(env: int, distance: int) -> Word:
    """Moves RIP on (or back, modulo 2^64) by a number of bytes; EIP wraps at 32 bits."""
    rip = load64(env + at.EIP) + distance
    if load32(env + at.HFLAGS) & at.HF_CS64 == _0:
        rip &= _LOW
    store64(env + at.EIP, rip)
    return rip


@compiled("uint64(uint64)")
def in_pae(env: int) -> Word:
    """Returns whether PAE paging is on: the four top entries are registers, loaded by MOV to CR3."""
    on = load64(env + at.CR0) & _CR0_PG != _0 and load64(env + at.CR4) & _CR4_PAE != _0
    return _1 if on and load64(env + at.EFER) & _EFER_LMA == _0 else _0


@compiled("uint64(uint64)")
def _code_segment_bits(env: int) -> Word:
    """Returns the emulator's bits for the sizes that CS and SS give outside 64-bit code."""
    found = _0
    if load32(env + _CS + _FLAGS_IN_SEGMENT) & _SEGMENT_BIG != _0:
        found |= at.HF_CS32
    if load32(env + _SS + _FLAGS_IN_SEGMENT) & _SEGMENT_BIG != _0:
        found |= at.HF_SS32
    bases = load64(env + _DS + _8) | load64(env + _ES + _8) | load64(env + _SS + _8)
    flat = load64(env + at.CR0) & _CR0_PE != _0 and load64(env + at.EFLAGS) & _FLAG_VM == _0 and bases == _0
    return found if flat and found & at.HF_CS32 != _0 else found | at.HF_ADDSEG


@linked(L_DERIVE_MODE)
def derive_mode(block: int) -> Word:
    """Derives EFER.LMA and what the emulator keeps of the mode from CR0, EFER, RFLAGS and the segments.

    In PAE paging MOV to CR3 is done by hand, for it loads four registers that the emulator does not have.
    """
    env = word(block, ENV)
    efer = load64(env + at.EFER) & ~_EFER_LMA
    cr0 = load64(env + at.CR0)
    if efer & _EFER_LME != _0 and cr0 & _CR0_PG != _0:
        efer |= _EFER_LMA
    store64(env + at.EFER, efer)
    flags = load32(env + at.HFLAGS) & ~at.HF_MODE
    if cr0 & _CR0_PE != _0:
        flags |= at.HF_PE
    if efer & _EFER_LMA != _0:
        flags |= at.HF_LMA
    if efer & _EFER_LMA != _0 and load32(env + _CS + _FLAGS_IN_SEGMENT) & _SEGMENT_LONG != _0:
        flags |= at.HF_CS32 | at.HF_SS32 | at.HF_CS64
    else:
        flags |= _code_segment_bits(env)
    store32(env + at.HFLAGS, flags)
    if word(block, PORTABLE) == _0:
        table = word(block, CONTROLS)
        wanted = in_pae(env) | (_1 if table != _0 and load64(table) & FLAG_CR3_WRITES != _0 else _0)
        writes = load16(env + at.INTERCEPT_CR_WRITE) & ~_8
        store16(env + at.INTERCEPT_CR_WRITE, writes | wanted << _3)
    return _0
