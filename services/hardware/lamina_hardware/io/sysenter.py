"""SYSENTER to the context's own kernel; compiled."""

from __future__ import annotations

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.control import ENV
from lamina_hardware.io.native import Word, compiled, load32, load64, store32, store64, u64, word
from lamina_hardware.io.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES, flags, set_flags, set_segment

_0, _1, _2, _8 = (u64(n) for n in (0, 1, 2, 8))
_LOW = u64(0xFFFF_FFFF)
_FLAGS_CLEARED = u64(1 << 9 | 1 << 17)  # IF, VM


@compiled("uint64(uint64)")
def enter_sysenter(block: int) -> Word:
    """Does what SYSENTER does in 64-bit mode: goes to IA32_SYSENTER_EIP at level 0. Source: Intel SDM vol. 2."""
    env = word(block, ENV)
    selector = load32(env + at.SYSENTER_CS) & u64(0xFFFC)
    set_segment(env, _1, selector, _0, _LOW, CODE_ATTRIBUTES)
    set_segment(env, _2, selector + _8, _0, _LOW, DATA_ATTRIBUTES)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_CPL)
    store64(env + at.REGS + u64(4 * 8), load64(env + at.SYSENTER_ESP))
    store64(env + at.EIP, load64(env + at.SYSENTER_EIP))
    set_flags(block, flags(block) & ~_FLAGS_CLEARED)
    return _0
