"""Where an instruction accesses memory, computed from its bytes and the registers; compiled.

The emulator's public API tells the page of an access that failed, not its address. The portable core computes the
address, for CR2 and for EPT violations.

Source: Intel SDM vol. 2, 2.1.5 and 2.2.1 (addressing forms).
"""

from __future__ import annotations

from lamina_hardware.io.emulator.code.decoder import ADDRESS_16, PREFIX_66, PREFIX_67, decode
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_hardware.io.emulator.state.control_block import ENV
from lamina_hardware.io.emulator.state.mode import is_64
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


@compiled("uint64(uint64)")
def _overridden(byte: int) -> Word:
    """Returns the number of the segment that a prefix other than FS and GS names; 8 for another byte."""
    if byte == u64(0x26):
        return _0
    if byte == u64(0x2E):
        return _1
    if byte == u64(0x36):
        return _2
    return _3 if byte == u64(0x3E) else _8


@compiled("uint64(uint64, uint64, uint64)")
def _segment_base(env: int, code: int, segment: int) -> Word:
    """Returns the base that a segment prefix in front of the opcode selects, else that of `segment` (3 DS, 2 SS).

    In 64-bit code only FS and GS have one.
    """
    i = _0
    flat = is_64(env) != _0
    base = _0 if flat else load64(env + at.SEGMENTS + segment * at.SEGMENT_STRIDE + _8)
    while i < u64(14):
        byte = load8(code + i)
        if byte == _FS:
            base = load64(env + at.SEGMENTS + _4 * at.SEGMENT_STRIDE + _8)
        elif byte == _GS:
            base = load64(env + at.SEGMENTS + _5 * at.SEGMENT_STRIDE + _8)
        elif not flat and _overridden(byte) != _8:
            base = load64(env + at.SEGMENTS + _overridden(byte) * at.SEGMENT_STRIDE + _8)
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


@compiled("uint64(uint64, uint64, uint64)")
def _address_16(env: int, code: int, place: int) -> Word:
    """Returns the linear address of a ModRM operand of 16-bit addressing."""
    modrm = load8(code + place)
    mod, rm = modrm >> u64(6), modrm & _7
    bare = mod == _0 and rm == u64(6)
    address = _0
    if rm < _2 or rm == _7:
        address += _register(env, _3)
    elif not bare and rm in (_2, _3, u64(6)):
        address += _register(env, _RBP)
    if rm in (_0, _2, _4):
        address += _register(env, _RSI)
    elif rm in (_1, _3, _5):
        address += _register(env, _RDI)
    if mod == _1:
        address += _signed8(load8(code + place + _1))
    elif mod == _2 or bare:
        address += load8(code + place + _1) | load8(code + place + _2) << _8
    stack = not bare and rm in (_2, _3, u64(6))
    return ((address & u64(0xFFFF)) + _segment_base(env, code, _2 if stack else _3)) & _LOW


@compiled("uint64(uint64, uint64, uint64, uint64)")
def modrm_address(env: int, code: int, found: int, next_rip: int) -> Word:
    """Returns the linear address of the ModRM operand of the instruction at `code`."""
    place = _opcode_place(code, found)
    if (found >> u64(40)) & ADDRESS_16 != _0:
        return _address_16(env, code, place)
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
            base = _8
        else:
            address += _register(env, base)
    elif rm == _5 and mod == _0:
        base = _8  # no register
        address = (next_rip if is_64(env) != _0 else _0) + _signed32(load32(code + after))
    else:
        address = _register(env, base)
    if mod == _1:
        address += _signed8(load8(code + after))
    elif mod == _2:
        address += _signed32(load32(code + after))
    if (found >> u64(40)) & PREFIX_67 != _0:
        address &= _LOW
    address += _segment_base(env, code, _2 if base in (_RSP, _RBP) else _3)
    return address if is_64(env) != _0 else address & _LOW


@compiled("uint64(uint64, uint64, uint64)")
def _absolute(env: int, code: int, found: int) -> Word:
    """Returns the linear address that a MOV with an absolute one has at its end."""
    length, prefixes = found & _BYTE, found >> u64(40)
    if prefixes & ADDRESS_16 != _0:
        address = load32(code + length - _2) & u64(0xFFFF)
    elif prefixes & PREFIX_67 != _0:
        address = load32(code + length - _4)
    else:
        address = load64(code + length - _8)
    return address + _segment_base(env, code, _3)


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
        address = _absolute(env, code, found)
        if address & mask == page:
            return address
    stack = _register(env, _RSP) + (_0 if is_64(env) != _0 else load64(env + at.SEGMENTS + u64(56)))
    slot = _8 if is_64(env) != _0 else (_2 if (found >> u64(40)) & PREFIX_66 != _0 else _4)
    if (stack - slot) & mask == page:
        return stack - slot
    if stack & mask == page:
        return stack
    if _register(env, _RSI) & mask == page:
        return _register(env, _RSI)
    if _register(env, _RDI) & mask == page:
        return _register(env, _RDI)
    return page
