"""SYSENTER to the context's own kernel; compiled."""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV
from lamina_hardware.io.emulator.state.mode import derive_mode
from lamina_hardware.io.emulator.state.registers import CODE_ATTRIBUTES, DATA_ATTRIBUTES, flags, set_flags, set_segment
from lamina_hardware.io.native import Word, compiled, load32, load64, store32, store64, u64, word

_0, _1, _2, _8 = (u64(n) for n in (0, 1, 2, 8))
_LOW = u64(0xFFFF_FFFF)
_FLAGS_CLEARED = u64(1 << 9 | 1 << 17)  # IF, VM
_EFER_LMA = u64(1 << 10)
_CODE_32 = u64(0xC09B)


@compiled("uint64(uint64)")
def enter_sysenter(block: int) -> Word:
    """Does what SYSENTER does: goes to IA32_SYSENTER_EIP at level 0, in IA-32e mode to 64-bit code, else to 32-bit
    code. Source: Intel SDM vol. 2.
    """
    env = word(block, ENV)
    wide = load64(env + at.EFER) & _EFER_LMA != _0
    selector = load32(env + at.SYSENTER_CS) & u64(0xFFFC)
    set_segment(env, _1, selector, _0, _LOW, CODE_ATTRIBUTES if wide else _CODE_32)
    set_segment(env, _2, selector + _8, _0, _LOW, DATA_ATTRIBUTES)
    store32(env + at.HFLAGS, load32(env + at.HFLAGS) & ~at.HF_CPL)
    mask = ~_0 if wide else _LOW
    store64(env + at.REGS + u64(4 * 8), load64(env + at.SYSENTER_ESP) & mask)
    store64(env + at.EIP, load64(env + at.SYSENTER_EIP) & mask)
    set_flags(block, flags(block) & ~_FLAGS_CLEARED)
    return derive_mode(block)
