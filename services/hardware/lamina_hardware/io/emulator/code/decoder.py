"""Lengths and fields of x86 instructions, from their bytes.

The core charges whole blocks when it enters them. When it leaves one early (a fault, a port access) it counts how many
instructions were behind it, and for that it must know where each begins. The code segment says whether it is 64-bit,
32-bit or 16-bit code; encodings that the emulator does not know (EVEX) decode to length 0.

`decode` packs what it found into one word:

    bits 0–7 length · 8–15 opcode · 16–23 map (0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A) · 24–31 ModRM · 32–39 REX ·
    40–47 prefixes (PREFIX_… bits); those of sizes say which size it is, whatever the default of the code is:
    66 a 16-bit operand, 67 a 32-bit address, ADDRESS_16 a 16-bit one

Source: Intel SDM vol. 2, chapter 2 and appendix A.
"""

from __future__ import annotations

import numpy as np

from lamina_hardware.io.emulator.state.control_block import ENV, L_DECODE
from lamina_hardware.io.emulator.state.mode import BITS_16, BITS_32, BITS_64, code_bits
from lamina_hardware.io.native import Word, compiled, linked, load8, u64, word

PREFIX_66 = u64(1)
PREFIX_F2 = u64(2)
PREFIX_F3 = u64(4)
PREFIX_67 = u64(8)
PREFIX_LOCK = u64(16)
ADDRESS_16 = u64(32)

MAX_LENGTH = 15

# What follows an opcode: ModRM in bit 4, and one of these kinds of immediate.
_NONE, _IMM8, _IMM16, _IMMZ, _IMMV, _MOFFS, _IMM24, _GROUP8, _GROUPZ, _INVALID, _FAR = range(11)
_MODRM = 16
_PREFIX = 32


def _one_byte() -> list[int]:
    """Returns the table of the one-byte opcodes in 64-bit mode."""
    table = [_INVALID] * 256
    for base in range(0, 0x40, 8):
        table[base : base + 6] = [_MODRM, _MODRM, _MODRM, _MODRM, _IMM8, _IMMZ]
    for code in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)):
        table[code] = _PREFIX
    spans: list[tuple[int, int, int]] = [
        (0x50, 0x5F, _NONE), (0x63, 0x63, _MODRM), (0x68, 0x68, _IMMZ), (0x69, 0x69, _MODRM | _IMMZ),
        (0x6A, 0x6A, _IMM8), (0x6B, 0x6B, _MODRM | _IMM8), (0x6C, 0x6F, _NONE), (0x70, 0x7F, _IMM8),
        (0x80, 0x80, _MODRM | _IMM8), (0x81, 0x81, _MODRM | _IMMZ), (0x83, 0x83, _MODRM | _IMM8),
        (0x84, 0x8F, _MODRM), (0x90, 0x99, _NONE), (0x9B, 0x9F, _NONE), (0xA0, 0xA3, _MOFFS), (0xA4, 0xA7, _NONE),
        (0xA8, 0xA8, _IMM8), (0xA9, 0xA9, _IMMZ), (0xAA, 0xAF, _NONE), (0xB0, 0xB7, _IMM8), (0xB8, 0xBF, _IMMV),
        (0xC0, 0xC1, _MODRM | _IMM8), (0xC2, 0xC2, _IMM16), (0xC3, 0xC3, _NONE), (0xC6, 0xC6, _MODRM | _IMM8),
        (0xC7, 0xC7, _MODRM | _IMMZ), (0xC8, 0xC8, _IMM24), (0xC9, 0xC9, _NONE), (0xCA, 0xCA, _IMM16),
        (0xCB, 0xCC, _NONE), (0xCD, 0xCD, _IMM8), (0xCF, 0xCF, _NONE), (0xD0, 0xD3, _MODRM), (0xD7, 0xD7, _NONE),
        (0xD8, 0xDF, _MODRM), (0xE0, 0xE7, _IMM8), (0xE8, 0xE9, _IMMZ), (0xEB, 0xEB, _IMM8), (0xEC, 0xEF, _NONE),
        (0xF1, 0xF1, _NONE), (0xF4, 0xF5, _NONE), (0xF6, 0xF6, _MODRM | _GROUP8), (0xF7, 0xF7, _MODRM | _GROUPZ),
        (0xF8, 0xFD, _NONE), (0xFE, 0xFF, _MODRM),
    ]  # fmt: skip
    for first, last, kind in spans:
        table[first : last + 1] = [kind] * (last - first + 1)
    return table


def _one_byte_32() -> list[int]:
    """Returns the table of the one-byte opcodes outside 64-bit mode, which has what that mode took away."""
    table = _one_byte()
    for code in (
        0x06,
        0x07,
        0x0E,
        0x16,
        0x17,
        0x1E,
        0x1F,
        0x27,
        0x2F,
        0x37,
        0x3F,
        *range(0x40, 0x50),
        0x60,
        0x61,
        0xCE,
        0xD6,
    ):
        table[code] = _NONE
    for code in (0x9A, 0xEA):
        table[code] = _FAR
    table[0x62] = table[0xC4] = table[0xC5] = _MODRM
    table[0x82] = _MODRM | _IMM8
    table[0xD4] = table[0xD5] = _IMM8
    return table


def _two_byte() -> list[int]:
    """Returns the table of the opcodes after 0F."""
    table = [_MODRM] * 256
    for code in (0x04, 0x0A, 0x0C, *range(0x24, 0x28), 0x36, 0x39, *range(0x3B, 0x40), 0xA6, 0xA7):
        table[code] = _INVALID
    for code in (*range(0x05, 0x0A), 0x0B, 0x0E, *range(0x30, 0x36), 0x37, 0x77, *range(0xA0, 0xA3)):
        table[code] = _NONE
    for code in (*range(0xA8, 0xAB), *range(0xC8, 0xD0)):
        table[code] = _NONE
    for code in (0x0F, *range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6):
        table[code] = _MODRM | _IMM8
    for code in range(0x80, 0x90):
        table[code] = _IMMZ
    return table


_ONE = np.array(_one_byte(), dtype=np.uint8)
_ONE_32 = np.array(_one_byte_32(), dtype=np.uint8)
_TWO = np.array(_two_byte(), dtype=np.uint8)

_0, _1, _2, _3, _4, _5, _7, _8 = (u64(n) for n in (0, 1, 2, 3, 4, 5, 7, 8))
_LIMIT = u64(MAX_LENGTH)


@compiled("uint64(uint64, uint64, uint64)")
def _memory_operand(code: int, at: int, prefixes: int) -> Word:
    """Returns how many bytes ModRM at `code + at`, SIB and displacement take."""
    modrm = load8(code + at)
    mod = modrm >> u64(6)
    rm = modrm & _7
    if mod == _3:
        return _1
    if prefixes & ADDRESS_16 != _0:
        return _3 if mod == _2 or (mod == _0 and rm == u64(6)) else _1 + mod
    size = _1
    base = rm
    if rm == _4:
        base = load8(code + at + _1) & _7
        size += _1
    if mod == _1:
        return size + _1
    if mod == _2 or base == _5:
        return size + _4
    return size


@compiled("uint64(uint64, uint64, uint64, uint64)")
def _immediate(kind: int, prefixes: int, rex: int, modrm: int) -> Word:
    """Returns the length of the immediate of this kind."""
    z = _2 if (prefixes & PREFIX_66) != _0 and (rex & _8) == _0 else _4
    if kind == u64(_IMM8):
        return _1
    if kind == u64(_IMM16):
        return _2
    if kind == u64(_IMMZ):
        return z
    if kind == u64(_IMMV):
        return _8 if (rex & _8) != _0 else z
    if kind == u64(_MOFFS):
        return _2 if prefixes & ADDRESS_16 != _0 else (_4 if (prefixes & PREFIX_67) != _0 else _8)
    if kind == u64(_FAR):
        return z + _2
    if kind == u64(_IMM24):
        return _3
    group = ((modrm >> _3) & _7) < _2
    if kind == u64(_GROUP8):
        return _1 if group else _0
    if kind == u64(_GROUPZ):
        return z if group else _0
    return _0


@compiled("uint64(uint64, uint64)")
def _sizes(prefixes: int, bits: int) -> Word:
    """Turns the prefixes that were there into the sizes that they mean in this code."""
    if bits == BITS_64:
        return prefixes
    if bits == BITS_16:
        prefixes ^= PREFIX_66
    short = (prefixes & PREFIX_67 != _0) == (bits == BITS_32)
    return (prefixes & ~PREFIX_67) | ADDRESS_16 if short else prefixes | PREFIX_67


@compiled("uint64(uint64, uint64)")
def _first(byte: int, bits: int) -> Word:
    """Returns what follows a one-byte opcode."""
    return u64(_ONE[byte]) if bits == BITS_64 else u64(_ONE_32[byte])


@compiled("uint64(uint64, uint64, uint64)")
def _is_vex(byte: int, place: int, bits: int) -> Word:
    """Returns whether C4 or C5 at `place` begins a VEX prefix; outside 64-bit mode it may be LES or LDS of memory."""
    if byte != u64(0xC4) and byte != u64(0xC5):
        return _0
    return _1 if bits == BITS_64 or load8(place + _1) >= u64(0xC0) else _0


@compiled("uint64(uint64, uint64)")
def _prefix(byte: int, seen: int) -> Word:
    """Returns the prefixes seen with one more."""
    if byte == u64(0x66):
        return seen | PREFIX_66
    if byte == u64(0xF2):
        return seen | PREFIX_F2
    if byte == u64(0xF3):
        return seen | PREFIX_F3
    if byte == u64(0x67):
        return seen | PREFIX_67
    return seen | PREFIX_LOCK if byte == u64(0xF0) else seen


@linked(L_DECODE)
def decode(block: int, code: int) -> Word:
    """Returns the packed description of the instruction whose 15 bytes at most start at address `code`; 0: none.

    A block without a register file decodes 64-bit code.
    """
    bits = code_bits(word(block, ENV)) if word(block, ENV) != _0 else BITS_64
    at, rex, prefixes = _0, _0, _0
    byte = load8(code)
    while _first(byte, bits) == u64(_PREFIX) and at < _LIMIT:
        if byte & u64(0xF0) == u64(0x40):
            rex = byte
        else:
            rex = _0
            prefixes = _prefix(byte, prefixes)
        at += _1
        byte = load8(code + at)
    prefixes = _sizes(prefixes, bits)
    table = _0
    if _is_vex(byte, code + at, bits) != _0:
        table = load8(code + at + _1) & u64(0x1F) if byte == u64(0xC4) else _1
        at += _2 if byte == u64(0xC4) else _1
        at += _1
        byte = load8(code + at)
    elif byte == u64(0x0F):
        at += _1
        byte = load8(code + at)
        table = _1
        if byte == u64(0x38) or byte == u64(0x3A):
            table = _2 if byte == u64(0x38) else _3
            at += _1
            byte = load8(code + at)
    at += _1
    if table > _3:
        return _0
    kind = _first(byte, bits)
    if table != _0:
        kind = u64(_TWO[byte]) if table == _1 else (u64(_MODRM) if table == _2 else u64(_MODRM | _IMM8))
    if kind == u64(_INVALID) or kind == u64(_PREFIX):
        return _0
    modrm = _0
    if (kind & u64(_MODRM)) != _0:
        modrm = load8(code + at)
        control = table == _1 and byte >= u64(0x20) and byte <= u64(0x23)
        at += _1 if control else _memory_operand(code, at, prefixes)
    at += _immediate(kind & u64(15), prefixes, rex, modrm)
    if at > _LIMIT:
        return _0
    where = at | byte << _8 | table << u64(16) | modrm << u64(24)
    return where | rex << u64(32) | prefixes << u64(40)
