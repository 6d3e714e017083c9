"""x87 and SSE state between the run page's FXSAVE area and the emulator; compiled. Source: Intel SDM vol. 1, 10.5.1."""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV, PORTABLE
from lamina_hardware.io.emulator.state.uc_registers import write_register
from lamina_hardware.io.native import (
    Word,
    compiled,
    load8,
    load16,
    load32,
    load64,
    store8,
    store16,
    store32,
    store64,
    u64,
    word,
)
from lamina_kit.bus import run_page

_0, _1, _2, _7, _8, _16, _24 = (u64(n) for n in (0, 1, 2, 7, 8, 16, 24))
PAGE_FX = u64(run_page.FXSAVE_OFFSET)
_REG_FPCW = u64(246)
_REG_MXCSR = u64(249)
_FX_MASK = u64(0xFFFF)


@compiled("uint64(uint64, uint64)")
def load_fpu(block: int, page: int) -> Word:
    """Loads x87 and SSE state from the FXSAVE area. Source: Intel SDM vol. 1, table 10-2."""
    env = word(block, ENV)
    area = page + PAGE_FX
    if word(block, PORTABLE) != _0:
        store16(env + at.FPU_CONTROL, load16(area))
        store32(env + at.MXCSR, load32(area + _24) & _FX_MASK)
    if load16(env + at.FPU_CONTROL) != load16(area):
        write_register(block, _REG_FPCW, load16(area))
    if load32(env + at.MXCSR) != load32(area + _24) & _FX_MASK:
        write_register(block, _REG_MXCSR, load32(area + _24) & _FX_MASK)
    status = load16(area + _2)
    top = (status >> u64(11)) & _7
    store16(env + at.FPU_STATUS, status & ~u64(0x3800))
    store32(env + at.FPU_TOP, top)
    valid = load8(area + u64(4))
    i = _0
    while i < _8:
        store8(env + at.FPU_TAGS + i, ((valid >> i) & _1) ^ _1)
        place = env + at.FPU_REGISTERS + ((top + i) & _7) * _16
        store64(place, load64(area + u64(32) + i * _16))
        store64(place + _8, load64(area + u64(40) + i * _16))
        i += _1
    i = _0
    while i < _16:
        store64(env + at.XMM + i * at.XMM_STRIDE, load64(area + u64(160) + i * _16))
        store64(env + at.XMM + i * at.XMM_STRIDE + _8, load64(area + u64(168) + i * _16))
        i += _1
    return _0


@compiled("uint64(uint64, uint64)")
def store_fpu(env: int, page: int) -> Word:
    """Stores x87 and SSE state to the FXSAVE area."""
    area = page + PAGE_FX
    top = load32(env + at.FPU_TOP) & _7
    store16(area, load16(env + at.FPU_CONTROL))
    store16(area + _2, (load16(env + at.FPU_STATUS) & ~u64(0x3800)) | (top << u64(11)))
    store32(area + _24, load32(env + at.MXCSR))
    store32(area + u64(28), _FX_MASK)
    valid = _0
    i = _0
    while i < _8:
        valid |= (load8(env + at.FPU_TAGS + i) ^ _1) << i
        place = env + at.FPU_REGISTERS + ((top + i) & _7) * _16
        store64(area + u64(32) + i * _16, load64(place))
        store64(area + u64(40) + i * _16, load16(place + _8))
        i += _1
    store8(area + u64(4), valid)
    i = _0
    while i < _16:
        store64(area + u64(160) + i * _16, load64(env + at.XMM + i * at.XMM_STRIDE))
        store64(area + u64(168) + i * _16, load64(env + at.XMM + i * at.XMM_STRIDE + _8))
        i += _1
    return _0
