"""XCR0, the register that says which extended states a context uses: XGETBV and XSETBV; compiled.

Source: Intel SDM vol. 1, 13.3; vol. 2, XGETBV, XSETBV.
"""

from __future__ import annotations

from lamina_hardware.io.emulator.instructions.exit_record import GO_ON, IO_DATA, IO_DIRECTION, RAISES, XSETBV, record
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV, RUN_PAGE
from lamina_hardware.io.emulator.state.exit_controls import traps
from lamina_hardware.io.native import Word, compiled, load32, load64, store64, u64, word
from lamina_kit.bus import run_page

_0, _1, _3, _8, _11, _16 = (u64(n) for n in (0, 1, 3, 8, 11, 16))
_LOW = u64(0xFFFF_FFFF)
_UNDEFINED, _PROTECTION = RAISES | u64(6), RAISES | u64(13)
_XCR0 = u64(run_page.STATE_OFFSET + 0x40)
_CR4_OSXSAVE = u64(1 << 18)
_XCR0_KNOWN = _3


@compiled("uint64(uint64, uint64)")
def extended_state(block: int, modrm: int) -> Word:
    """Does XGETBV (`modrm` 0xD0) and XSETBV. The caller has decoded it; returns GO_ON, an exit or RAISES."""
    env = word(block, ENV)
    place = word(block, RUN_PAGE) + _XCR0
    number = load64(env + at.REGS + _8) & _LOW
    if load64(env + at.CR4) & _CR4_OSXSAVE == _0:
        return _UNDEFINED
    if modrm == u64(0xD0):
        if number != _0:
            return _PROTECTION
        store64(env + at.REGS, load64(place) & _LOW)
        store64(env + at.REGS + _16, load64(place) >> u64(32))
        return GO_ON
    value = load64(env + at.REGS) & _LOW | load64(env + at.REGS + _16) << u64(32)
    if load32(env + at.HFLAGS) & at.HF_CPL != _0:
        return _PROTECTION
    if traps(block, _11, _0) != _0:
        record(block, IO_DIRECTION, _1)
        record(block, IO_DATA, value)
        return XSETBV
    if number != _0 or value & _1 == _0 or value & ~_XCR0_KNOWN != _0:
        return _PROTECTION
    store64(place, value)
    return GO_ON
