"""Where an instruction accesses memory, computed from its bytes and the registers; compiled.

The emulator's public API tells the page of an access that failed, not its address. The portable core computes the
address, for CR2 and for EPT violations.

Source: Intel SDM vol. 2, 2.1.5 and 2.2.1 (addressing forms).
"""

from __future__ import annotations

from lamina_hardware.io import unicorn_layout as at
from lamina_hardware.io.control import ENV
from lamina_hardware.io.decoder import PREFIX_67, decode
from lamina_hardware.io.native import Word, compiled, load8, load32, load64, u64, word

_0, _1, _2, _3, _4, _5, _7, _8 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 7, 8))
_BYTE = u64(0xFF)
_LOW = u64(0xFFFF_FFFF)
_FS, _GS = u64(0x64), u64(0x65)
_RSP, _RBP, _RSI, _RDI = u64(4), u64(5), u64(6), u64(7)


@compiled("uint64(uint64, uint64)")
def _register(env: int, number: int) -> Word:
    return load64(env + at.REGS + number * _8)


@compiled("uint64(uint64)")
def _signed8(value: int) -> Word:
    return value if value < u64(128) else value | ~_BYTE


@compiled("uint64(uint64)")
def _signed32(value: int) -> Word:
    return value if value < u64(1 << 31) else value | ~_LOW


@compiled("uint64(uint64, uint64)")
def _segment_base(env: int, code: int) -> Word:
    """Returns the base that a segment prefix in front of the opcode selects."""
    i = _0
    base = _0
    while i < u64(14):
        byte = load8(code + i)
        if byte == _FS:
            base = load64(env + at.SEGMENTS + _4 * at.SEGMENT_STRIDE + _8)
        elif byte == _GS:
            base = load64(env + at.SEGMENTS + _5 * at.SEGMENT_STRIDE + _8)
        elif (
            byte != u64(0x66)
            and byte != u64(0x67)
            and byte != u64(0xF0)
            and byte != u64(0xF2)
            and byte != u64(0xF3)
            and byte != u64(0x2E)
            and byte != u64(0x36)
            and byte != u64(0x3E)
            and byte != u64(0x26)
        ):
            return base
        i += _1
    return base


@compiled("uint64(uint64, uint64)")
def _opcode_place(code: int, found: int) -> Word:
    """Returns the offset of the ModRM byte, given that `found` says there is one."""
    opcode = (found >> _8) & _BYTE
    modrm = (found >> u64(24)) & _BYTE
    i = _0
    while i < u64(14):
        if load8(code + i) == opcode and load8(code + i + _1) == modrm:
            return i + _1
        i += _1
    return _0


@compiled("uint64(uint64, uint64, uint64, uint64)")
def modrm_address(env: int, code: int, found: int, next_rip: int) -> Word:
    """Returns the effective address of the ModRM operand of the instruction at `code`."""
    place = _opcode_place(code, found)
    modrm = load8(code + place)
    rex = (found >> u64(32)) & _BYTE
    mod, rm = modrm >> u64(6), modrm & _7
    after = place + _1
    address = _0
    base = rm | (rex & _1) << _3
    if rm == _4:
        sib = load8(code + after)
        after += _1
        index = ((sib >> _3) & _7) | ((rex >> _1) & _1) << _3
        if index != _4:
            address = _register(env, index) << (sib >> u64(6))
        rm = sib & _7
        base = rm | (rex & _1) << _3
        if rm == _5 and mod == _0:
            address += _signed32(load32(code + after))
        else:
            address += _register(env, base)
    elif rm == _5 and mod == _0:
        address = next_rip + _signed32(load32(code + after))
    else:
        address = _register(env, base)
    if mod == _1:
        address += _signed8(load8(code + after))
    elif mod == _2:
        address += _signed32(load32(code + after))
    if (found >> u64(40)) & PREFIX_67 != _0:
        address &= _LOW
    return address + _segment_base(env, code)


@compiled("uint64(uint64, uint64, uint64, uint64)")
def access_in(block: int, code: int, rip: int, page: int) -> Word:
    """Returns the lowest address in `page` that the instruction at `code` accesses, or the page's own.

    Tried in turn: the ModRM operand, an absolute one, the stack below and above RSP, RSI and RDI. An access that
    begins on the page before is at the page's first byte.
    """
    env = word(block, ENV)
    found = decode(block, code)
    mask = ~u64(4095)
    table = (found >> u64(16)) & _BYTE
    opcode = (found >> _8) & _BYTE
    length = found & _BYTE
    modrm = (found >> u64(24)) & _BYTE
    if modrm < u64(0xC0):
        address = modrm_address(env, code, found, rip + length)
        if address & mask == page:
            return address
    if table == _0 and opcode >= u64(0xA0) and opcode <= u64(0xA3):
        address = load64(code + length - _8) + _segment_base(env, code)
        if address & mask == page:
            return address
    stack = _register(env, _RSP)
    if (stack - _8) & mask == page:
        return stack - _8
    if stack & mask == page:
        return stack
    if _register(env, _RSI) & mask == page:
        return _register(env, _RSI)
    if _register(env, _RDI) & mask == page:
        return _register(env, _RDI)
    return page
