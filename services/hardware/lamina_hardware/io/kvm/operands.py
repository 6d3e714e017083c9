"""Where an instruction of 64-bit code accesses memory, by its bytes and the registers. Pure.

KVM that runs ring 3 on a processor without virtualization ends with EFAULT when the guest accesses memory that is not
mapped, and says no address. What is missed here ends the context; what is found too much only asks for a page more.

Source: Intel SDM vol. 2, 2.1.5, 2.2.1 (addressing forms) and appendix A (opcode maps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_RAX, _RBX, _RSP, _RBP, _RSI, _RDI = 0, 3, 4, 5, 6, 7
_WHOLE = (1 << 64) - 1
_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_MODRM = frozenset(
    (*(base + low for base in range(0, 0x40, 8) for low in range(4)), 0x63, 0x69, 0x6B, *range(0x80, 0x8D), 0x8E, 0x8F,
     0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xF6, 0xF7, 0xFE, 0xFF)
)  # fmt: skip
_NO_MODRM_0F = frozenset(
    (*range(0x05, 0x0C), *range(0x30, 0x38), 0x77, *range(0x80, 0x90), *range(0xA0, 0xA3), *range(0xA8, 0xAB),
     *range(0xC8, 0xD0))
)  # fmt: skip
_IMM8 = frozenset((0x6B, 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6))
_IMM32 = frozenset((0x69, 0x81, 0xC7))
_IMM8_0F = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))
_STRINGS = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))
_STACK = frozenset(
    (*range(0x50, 0x60), 0x68, 0x6A, 0x8F, 0x9C, 0x9D, 0xC2, 0xC3, 0xC8, 0xC9, 0xCA, 0xCB, 0xCF, 0xE8, 0xFF)
)
_LEAVE, _XLAT, _MOFFS = 0xC9, 0xD7, range(0xA0, 0xA4)


class Registers(NamedTuple):
    """What addresses are made of: general registers by the numbers of instructions, RIP, and the two bases."""

    general: Sequence[int]
    rip: int
    fs: int = 0
    gs: int = 0


class _Code:
    """The bytes of one instruction; what is behind the last one that there is reads zero."""

    def __init__(self, code: bytes) -> None:
        self._bytes = code
        self.place = 0

    def next(self) -> int:
        self.place += 1
        return self.peek(self.place - 1)

    def peek(self, place: int) -> int:
        return self._bytes[place] if place < len(self._bytes) else 0

    def number(self, size: int) -> int:
        found = bytes(self.next() for _ in range(size))
        return int.from_bytes(found, "little", signed=True)


def addresses(code: bytes, registers: Registers) -> list[int]:
    """Returns where the instruction may access memory: its operand first, then what it does without naming it."""
    return [address & _WHOLE for address in _addresses(_Code(code), registers)] if code else []


def _addresses(code: _Code, registers: Registers) -> Iterator[int]:
    segment, narrow, short, rex = 0, False, False, 0
    while (byte := code.peek(code.place)) in _PREFIXES:
        segment = registers.fs if byte == 0x64 else registers.gs if byte == 0x65 else segment
        narrow, short = narrow or byte == 0x66, short or byte == 0x67
        code.next()
    if code.peek(code.place) & 0xF0 == 0x40:
        rex = code.next()
    opcode = code.next()
    table, opcode, rex = _map(code, opcode, rex)
    general = registers.general
    if (table == 1 and opcode in _MODRM) or (table == 2 and opcode not in _NO_MODRM_0F) or table > 2:
        found = _operand(code, registers, rex, lambda reg: _immediate(table, opcode, reg, narrow))
        if found is not None:
            yield segment + (found & 0xFFFF_FFFF if short else found)
    if table != 1:
        return
    if opcode in _MOFFS:
        yield segment + code.number(8)
    elif opcode in _STRINGS:
        yield general[_RSI] + segment
        yield general[_RDI]
    elif opcode == _XLAT:
        yield segment + general[_RBX] + (general[_RAX] & 0xFF)
    elif opcode in _STACK:
        yield general[_RBP] if opcode == _LEAVE else general[_RSP] - 8
        yield general[_RSP]


def _map(code: _Code, opcode: int, rex: int) -> tuple[int, int, int]:
    """Returns the opcode map (1 one byte, 2 0F, 3 0F 38, 4 0F 3A), the opcode in it, and the REX bits."""
    if opcode == 0x0F:
        opcode = code.next()
        if opcode in (0x38, 0x3A):
            return (3 if opcode == 0x38 else 4), code.next(), rex
        return 2, opcode, rex
    if opcode == 0xC5:
        code.next()
        return 2, code.next(), 0
    if opcode == 0xC4:
        first = code.next()
        code.next()
        return min(4, 1 + (first & 31)), code.next(), ~first >> 5 & 7
    return 1, opcode, rex


def _operand(code: _Code, registers: Registers, rex: int, immediate: Callable[[int], int]) -> int | None:
    """Returns the address of a ModRM operand, or None for a register. `immediate` tells the bytes behind, by /reg."""
    modrm = code.next()
    mode, low = modrm >> 6, modrm & 7
    if mode == 3:
        return None
    address, general = 0, registers.general
    if low == 4:
        sib = code.next()
        index = sib >> 3 & 7 | (rex & 2) << 2
        address = 0 if index == _RSP else general[index] << (sib >> 6)
        low = sib & 7
        if low == 5 and mode == 0:
            return address + code.number(4)
        address += general[low | (rex & 1) << 3]
    elif low == 5 and mode == 0:
        displacement = code.number(4)
        return registers.rip + code.place + immediate(modrm >> 3 & 7) + displacement
    else:
        address = general[low | (rex & 1) << 3]
    return address + (code.number(1) if mode == 1 else code.number(4) if mode == 2 else 0)


def _immediate(table: int, opcode: int, reg: int, narrow: bool) -> int:
    """Returns the bytes of the immediate behind an operand."""
    if table == 4 or (table == 2 and opcode in _IMM8_0F) or (table == 1 and opcode in _IMM8):
        return 1
    if table == 1 and opcode in (0xF6, 0xF7) and reg < 2:
        return 1 if opcode == 0xF6 else 2 if narrow else 4
    return (2 if narrow else 4) if table == 1 and opcode in _IMM32 else 0
