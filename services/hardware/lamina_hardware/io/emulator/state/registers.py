"""Registers between a context's run page and the emulator's state; compiled.

`load` brings in the groups of registers that the holder marked dirty, or all of them when another context ran on this
core before. `store` writes everything back after a run, so the page holds the whole truth and a context may go on at
another core. Page offsets are those of `lamina_kit.bus.run_page`; the engine's own part of the page keeps the few
registers that the contract does not name (SYSENTER, CSTAR, PAT).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import (
    ENV,
    L_LOAD,
    L_STORE,
    PORTABLE,
    RUN_PAGE,
)
from lamina_hardware.io.emulator.state.fpu import load_fpu, store_fpu
from lamina_hardware.io.emulator.state.mode import derive_mode
from lamina_hardware.io.emulator.state.uc_registers import read_register, write_register
from lamina_hardware.io.native import (
    Word,
    compiled,
    linked,
    load32,
    load64,
    store32,
    store64,
    u64,
    word,
)
from lamina_kit.bus import run_page

_0, _1, _2, _3, _7, _8, _16 = (u64(n) for n in (0, 1, 2, 3, 7, 8, 16))
_24 = u64(24)

PAGE_DIRTY = u64(0x008)
PAGE_CPL = u64(0x010)
PAGE_GPR = u64(run_page.GPR_OFFSET)
PAGE_RIP = u64(run_page.RIP_OFFSET)
PAGE_RFLAGS = u64(run_page.RIP_OFFSET + 8)
PAGE_CR0 = u64(run_page.CONTROL_OFFSET)
PAGE_CR2 = u64(run_page.CONTROL_OFFSET + 0x08)
PAGE_CR3 = u64(run_page.CONTROL_OFFSET + 0x10)
PAGE_CR4 = u64(run_page.CONTROL_OFFSET + 0x18)
PAGE_EFER = u64(run_page.CONTROL_OFFSET + 0x28)
PAGE_STAR = u64(run_page.CONTROL_OFFSET + 0x30)
PAGE_LSTAR = u64(run_page.CONTROL_OFFSET + 0x38)
PAGE_SFMASK = u64(run_page.CONTROL_OFFSET + 0x40)
PAGE_KERNEL_GS = u64(run_page.CONTROL_OFFSET + 0x48)
PAGE_GDTR = u64(run_page.TABLES_OFFSET)
PAGE_IDTR = u64(run_page.TABLES_OFFSET + 0x10)
PAGE_SEGMENTS = u64(run_page.SEGMENTS_OFFSET)
PAGE_TSC_AUX = u64(run_page.TSC_OFFSET + 0x10)
PAGE_ENGINE = u64(run_page.ENGINE_OFFSET)
PAGE_SHADOW = u64(run_page.STATE_OFFSET)
PAGE_PDPTES = u64(run_page.ENGINE_OFFSET + 0x60)
"""Words of the engine's own: the CR3 that the PDPTE registers were loaded for, with bit 0 set (0: not loaded); then
the four of them."""
_BLOCKED = u64(run_page.BLOCKED_BY_STI | run_page.BLOCKED_BY_MOV_SS)
_BLOCKED_NMI = u64(run_page.BLOCKED_BY_NMI)

DIRTY_GPRS = u64(run_page.DIRTY_GPRS)
DIRTY_RIP = u64(run_page.DIRTY_RIP)
DIRTY_CONTROL = u64(run_page.DIRTY_CONTROL)
DIRTY_MSRS = u64(run_page.DIRTY_MSRS)
DIRTY_SEGMENTS = u64(run_page.DIRTY_SEGMENTS)
DIRTY_FPU = u64(run_page.DIRTY_FPU)
DIRTY_ALL = u64(run_page.DIRTY_ALL)

# Registers of the public API, by number (unicorn.x86_const).
_REG_EFLAGS = u64(253)
_REG_CR0 = u64(50)
_REG_CR4 = u64(54)

_FLAG_DF = u64(1 << 10)
_FLAGS_FIXED = u64(2)

# Segments that a context at each level has unless its holder sets others: flat 64-bit code, flat data.
CODE_ATTRIBUTES = u64(0xA09B)
DATA_ATTRIBUTES = u64(0xC093)
USER_CODE, USER_DATA = u64(0x33), u64(0x2B)
KERNEL_CODE, KERNEL_DATA = u64(0x08), u64(0x10)


@compiled("uint64(uint64)")
def flags(block: int) -> Word:
    """Returns RFLAGS. The emulator keeps the arithmetic flags apart; the portable core's copy is whole."""
    if word(block, PORTABLE) != _0:
        return load64(word(block, ENV) + at.EFLAGS) | _FLAGS_FIXED
    return read_register(block, _REG_EFLAGS) | _FLAGS_FIXED


@compiled("uint64(uint64, uint64)")
def set_flags(block: int, value: int) -> Word:
    """Sets RFLAGS."""
    if word(block, PORTABLE) == _0:
        return write_register(block, _REG_EFLAGS, value | _FLAGS_FIXED)
    env = word(block, ENV)
    store64(env + at.EFLAGS, value | _FLAGS_FIXED)
    store32(env + at.DF, _1 if value & _FLAG_DF == _0 else ~_0)
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64, uint64, uint64)")
def set_segment(env: int, number: int, selector: int, base: int, limit: int, attributes: int) -> Word:
    """Sets a segment register (0 ES … 5 GS) with everything that it caches; `attributes` are VMX access rights."""
    place = env + at.SEGMENTS + number * at.SEGMENT_STRIDE
    store32(place, selector)
    store64(place + _8, base)
    store32(place + _16, limit)
    store32(place + u64(20), (attributes & u64(0xF0FF)) << _8)
    return _0


@compiled("uint64(uint64, uint64)")
def set_level(env: int, cpl: int) -> Word:
    """Sets the privilege level with flat code and stack segments."""
    user = cpl == _3
    level = cpl << u64(5)
    code = USER_CODE if user else KERNEL_CODE
    data = USER_DATA if user else KERNEL_DATA
    set_segment(env, _1, code, _0, u64(0xFFFF_FFFF), CODE_ATTRIBUTES | level)
    set_segment(env, _2, data, _0, u64(0xFFFF_FFFF), DATA_ATTRIBUTES | level)
    store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~at.HF_CPL) | cpl)
    return _0


@compiled("uint64(uint64, uint64)")
def set_cr0(block: int, value: int) -> Word:
    """Sets CR0, with what the emulator derives from it; `derive_mode` goes by the value."""
    if word(block, PORTABLE) == _0:
        write_register(block, _REG_CR0, value)
    store64(word(block, ENV) + at.CR0, value)
    return _0


@compiled("uint64(uint64, uint64)")
def set_cr4(block: int, value: int) -> Word:
    """Sets CR4, with what the emulator derives from it; bits that it does not know are kept for the walker."""
    if word(block, PORTABLE) == _0:
        write_register(block, _REG_CR4, value)
    store64(word(block, ENV) + at.CR4, value)
    return _0


@compiled("uint64(uint64, uint64)")
def _load_control(block: int, page: int) -> Word:
    """Loads CR0, CR2, CR3, CR4 and EFER; returns whether the TLB must be flushed."""
    env = word(block, ENV)
    flush = _0
    if word(block, PORTABLE) != _0:
        store64(env + at.CR0, load64(page + PAGE_CR0))
        store64(env + at.CR2, load64(page + PAGE_CR2))
        store64(env + at.CR3, load64(page + PAGE_CR3))
        store64(env + at.CR4, load64(page + PAGE_CR4))
        store64(env + at.EFER, load64(page + PAGE_EFER))
        return _1
    if load64(env + at.EFER) != load64(page + PAGE_EFER):
        store64(env + at.EFER, load64(page + PAGE_EFER))
        flush = _1
    if load64(env + at.CR4) != load64(page + PAGE_CR4):
        set_cr4(block, load64(page + PAGE_CR4))
        flush = _1
    if load64(env + at.CR0) != load64(page + PAGE_CR0):
        set_cr0(block, load64(page + PAGE_CR0))
        flush = _1
    if load64(env + at.CR3) != load64(page + PAGE_CR3):
        store64(env + at.CR3, load64(page + PAGE_CR3))
        flush = _1
    store64(env + at.CR2, load64(page + PAGE_CR2))
    return flush


@compiled("uint64(uint64, uint64)")
def _load_msrs(env: int, page: int) -> Word:
    store64(env + at.STAR, load64(page + PAGE_STAR))
    store64(env + at.LSTAR, load64(page + PAGE_LSTAR))
    store64(env + at.SFMASK, load64(page + PAGE_SFMASK))
    store64(env + at.KERNEL_GS_BASE, load64(page + PAGE_KERNEL_GS))
    store64(env + at.TSC_AUX, load64(page + PAGE_TSC_AUX))
    own = page + PAGE_ENGINE
    store32(env + at.SYSENTER_CS, load64(own))
    store64(env + at.SYSENTER_ESP, load64(own + _8))
    store64(env + at.SYSENTER_EIP, load64(own + _16))
    store64(env + at.CSTAR, load64(own + u64(24)))
    store64(env + at.PAT, load64(own + u64(32)))
    return _0


@compiled("uint64(uint64, uint64)")
def _store_msrs(env: int, page: int) -> Word:
    store64(page + PAGE_STAR, load64(env + at.STAR))
    store64(page + PAGE_LSTAR, load64(env + at.LSTAR))
    store64(page + PAGE_SFMASK, load64(env + at.SFMASK))
    store64(page + PAGE_KERNEL_GS, load64(env + at.KERNEL_GS_BASE))
    store64(page + PAGE_TSC_AUX, load64(env + at.TSC_AUX))
    own = page + PAGE_ENGINE
    store64(own, load32(env + at.SYSENTER_CS))
    store64(own + _8, load64(env + at.SYSENTER_ESP))
    store64(own + _16, load64(env + at.SYSENTER_EIP))
    store64(own + u64(24), load64(env + at.CSTAR))
    store64(own + u64(32), load64(env + at.PAT))
    return _0


@compiled("uint64(uint64)")
def _segment_place(number: int) -> Word:
    """Returns where in CPUX86State segment `number` (0 ES … 5 GS, 6 LDTR, 7 TR) lies."""
    if number == u64(6):
        return at.LDTR
    if number == _7:
        return at.TR
    return at.SEGMENTS + number * at.SEGMENT_STRIDE


@compiled("uint64(uint64, uint64)")
def _load_segments(env: int, page: int) -> Word:
    number = _0
    while number < _8:
        source = page + PAGE_SEGMENTS + number * _24
        place = env + _segment_place(number)
        store64(place + _8, load64(source))
        store32(place + _16, load32(source + _8))
        store32(place + u64(20), (load32(source + u64(12)) & u64(0xF0FF)) << _8)
        store32(place, load32(source + _16))
        number += _1
    store64(env + at.GDTR + _8, load64(page + PAGE_GDTR))
    store32(env + at.GDTR + _16, load64(page + PAGE_GDTR + _8))
    store64(env + at.IDTR + _8, load64(page + PAGE_IDTR))
    store32(env + at.IDTR + _16, load64(page + PAGE_IDTR + _8))
    return _0


@compiled("uint64(uint64, uint64)")
def _store_segments(env: int, page: int) -> Word:
    number = _0
    while number < _8:
        target = page + PAGE_SEGMENTS + number * _24
        place = env + _segment_place(number)
        store64(target, load64(place + _8))
        store32(target + _8, load32(place + _16))
        store32(target + u64(12), (load32(place + u64(20)) >> _8) & u64(0xF0FF))
        store32(target + _16, load32(place))
        number += _1
    task = page + PAGE_SEGMENTS + _7 * _24 + u64(12)
    if load32(task) & u64(0x17) == _1:  # LTR loads a busy TSS; the emulator keeps what it read before it marked it
        store32(task, load32(task) | _2)
    store64(page + PAGE_GDTR, load64(env + at.GDTR + _8))
    store64(page + PAGE_GDTR + _8, load32(env + at.GDTR + _16))
    store64(page + PAGE_IDTR, load64(env + at.IDTR + _8))
    store64(page + PAGE_IDTR + _8, load32(env + at.IDTR + _16))
    return _0


@linked(L_LOAD)
def load(block: int, everything: int) -> Word:
    """Loads what the holder changed (or all of it) into the core; returns 1 when the TLB must be flushed."""
    page = word(block, RUN_PAGE)
    env = word(block, ENV)
    dirty = load64(page + PAGE_DIRTY)
    if (dirty & DIRTY_CONTROL) != _0:
        store64(page + PAGE_PDPTES, _0)  # the next walk loads them, as a VM entry does
    if everything != _0:
        dirty = DIRTY_ALL
    store64(page + PAGE_DIRTY, _0)
    if dirty == _0:
        return _0
    flush = _0
    if (dirty & DIRTY_GPRS) != _0:
        i = _0
        while i < _16:
            store64(env + at.REGS + i * _8, load64(page + PAGE_GPR + i * _8))
            i += _1
    if (dirty & DIRTY_CONTROL) != _0:
        flush = _load_control(block, page)
    if (dirty & DIRTY_MSRS) != _0:
        _load_msrs(env, page)
    if (dirty & DIRTY_SEGMENTS) != _0:
        _load_segments(env, page)
        if load32(page + PAGE_SEGMENTS + u64(36)) == _0:  # CS without attributes: the holder set none
            set_level(env, load64(page + PAGE_CPL) & _3)
    if (dirty & DIRTY_RIP) != _0:
        store64(env + at.EIP, load64(page + PAGE_RIP))
        set_flags(block, load64(page + PAGE_RFLAGS))
        cpl = load64(page + PAGE_CPL) & _3
        if (dirty & DIRTY_SEGMENTS) == _0 and load32(env + at.HFLAGS) & _3 != cpl:
            set_level(env, cpl)
        shadow = at.HF_SHADOW if load64(page + PAGE_SHADOW) & _BLOCKED != _0 else _0
        store32(env + at.HFLAGS, (load32(env + at.HFLAGS) & ~(at.HF_CPL | at.HF_SHADOW)) | cpl | shadow)
        nmi = at.HF2_NMI if load64(page + PAGE_SHADOW) & _BLOCKED_NMI != _0 else _0
        store32(env + at.HFLAGS2, (load32(env + at.HFLAGS2) & ~at.HF2_NMI) | nmi)
    if (dirty & (DIRTY_CONTROL | DIRTY_SEGMENTS | DIRTY_RIP)) != _0:
        derive_mode(block)
    if (dirty & DIRTY_FPU) != _0:
        load_fpu(block, page)
    return flush


@linked(L_STORE)
def store(block: int) -> Word:
    """Writes all registers to the run page."""
    page = word(block, RUN_PAGE)
    env = word(block, ENV)
    i = _0
    while i < _16:
        store64(page + PAGE_GPR + i * _8, load64(env + at.REGS + i * _8))
        i += _1
    store64(page + PAGE_RIP, load64(env + at.EIP))
    store64(page + PAGE_RFLAGS, flags(block))
    store64(page + PAGE_CPL, load32(env + at.HFLAGS) & at.HF_CPL)
    shadow = load64(page + PAGE_SHADOW)
    if load32(env + at.HFLAGS) & at.HF_SHADOW == _0:
        shadow &= ~_BLOCKED
    elif shadow & _BLOCKED == _0:
        shadow |= _1
    shadow &= ~_BLOCKED_NMI
    if load32(env + at.HFLAGS2) & at.HF2_NMI != _0:
        shadow |= _BLOCKED_NMI
    store64(page + PAGE_SHADOW, shadow)
    store64(page + PAGE_CR0, load64(env + at.CR0))
    store64(page + PAGE_CR2, load64(env + at.CR2))
    store64(page + PAGE_CR3, load64(env + at.CR3))
    store64(page + PAGE_CR4, load64(env + at.CR4))
    store64(page + PAGE_EFER, load64(env + at.EFER))
    _store_msrs(env, page)
    _store_segments(env, page)
    store_fpu(env, page)
    return _0
