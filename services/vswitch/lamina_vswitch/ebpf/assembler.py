"""An assembler for the few eBPF instructions that programs at ports need.

A program is a list of instructions and labels; `assemble` gives the bytes that the kernel loads. Registers are numbers:
0 returns, 1 to 5 are arguments and lost by calls, 6 to 9 stay, 10 is the end of the stack.

Source: RFC 9669 (BPF instruction set architecture).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

STACK_END = 10

_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
_FETCH, _EXCHANGE = 0x01, 0xE1
_RAW = struct.Struct("<BBhi")
_HALVES = struct.Struct("<ii")
_SECOND = struct.Struct("<4xi")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of eight bytes, or of sixteen when `wide`; `to` is the label that it jumps to.

    `high` is what stands in the second half of a wide one.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    to: str = ""
    wide: bool = False
    high: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A place in a program."""

    name: str


Program = Sequence[Instruction | Label]


def load(dst: int, src: int, offset: int) -> Instruction:
    """Load 32 bits from memory at `src` + `offset`."""
    return Instruction(0x61, dst, src, offset)


def store(dst: int, offset: int, src: int) -> Instruction:
    """Store 32 bits in memory at `dst` + `offset`."""
    return Instruction(0x63, dst, src, offset)


def add_to_memory(dst: int, offset: int, src: int) -> Instruction:
    """Add to 64 bits in memory at `dst` + `offset`, as one step for all processors."""
    return Instruction(0xDB, dst, src, offset)


def load16(dst: int, src: int, offset: int) -> Instruction:
    """Load 16 bits from memory at `src` + `offset`."""
    return Instruction(0x69, dst, src, offset)


def load64(dst: int, src: int, offset: int) -> Instruction:
    """Load 64 bits from memory at `src` + `offset`."""
    return Instruction(0x79, dst, src, offset)


def store64(dst: int, offset: int, src: int) -> Instruction:
    """Store 64 bits in memory at `dst` + `offset`."""
    return Instruction(0x7B, dst, src, offset)


def fetch_and_add(dst: int, offset: int, src: int) -> Instruction:
    """Add to 64 bits in memory as one step for all processors; the register gets what was there before."""
    return Instruction(0xDB, dst, src, offset, _FETCH)


def exchange(dst: int, offset: int, src: int) -> Instruction:
    """Change places of a register and 64 bits in memory, as one step for all processors."""
    return Instruction(0xDB, dst, src, offset, _EXCHANGE)


def put(dst: int, value: int) -> Instruction:
    """Set a register to a number of 32 bits, with its sign."""
    return Instruction(0xB7, dst, imm=value)


def copy(dst: int, src: int) -> Instruction:
    """Copy a register."""
    return Instruction(0xBF, dst, src)


def add(dst: int, value: int) -> Instruction:
    """Add a number."""
    return Instruction(0x07, dst, imm=value)


def add_register(dst: int, src: int) -> Instruction:
    """Add another register."""
    return Instruction(0x0F, dst, src)


def mask(dst: int, value: int) -> Instruction:
    """Keep the bits that a number has."""
    return Instruction(0x57, dst, imm=value)


def set_bits(dst: int, value: int) -> Instruction:
    """Set the bits that a number has."""
    return Instruction(0x47, dst, imm=value)


def merge(dst: int, src: int) -> Instruction:
    """Set the bits that another register has."""
    return Instruction(0x4F, dst, src)


def shift_right(dst: int, bits: int) -> Instruction:
    """Move bits down; zeros follow."""
    return Instruction(0x77, dst, imm=bits)


def shift_left(dst: int, bits: int) -> Instruction:
    """Move bits up; zeros follow."""
    return Instruction(0x67, dst, imm=bits)


def subtract_register(dst: int, src: int) -> Instruction:
    """Subtract another register."""
    return Instruction(0x1F, dst, src)


def multiply_register(dst: int, src: int) -> Instruction:
    """Multiply by another register; what is above 64 bits is lost."""
    return Instruction(0x2F, dst, src)


def flip_register(dst: int, src: int) -> Instruction:
    """Flip the bits that another register has."""
    return Instruction(0xAF, dst, src)


def jump(to: str) -> Instruction:
    """Go on at a label."""
    return Instruction(0x05, to=to)


def jump_if(dst: int, value: int, to: str) -> Instruction:
    """Go on at a label if a register is a number."""
    return Instruction(0x15, dst, imm=value, to=to)


def jump_unless(dst: int, value: int, to: str) -> Instruction:
    """Go on at a label unless a register is a number."""
    return Instruction(0x55, dst, imm=value, to=to)


def jump_if_bits(dst: int, value: int, to: str) -> Instruction:
    """Go on at a label if a register has any of the bits of a number."""
    return Instruction(0x45, dst, imm=value, to=to)


def jump_if_above(dst: int, value: int, to: str) -> Instruction:
    """Go on at a label if a register, without a sign, is more than a number."""
    return Instruction(0x25, dst, imm=value, to=to)


def jump_if_same(dst: int, src: int, to: str) -> Instruction:
    """Go on at a label if two registers are equal."""
    return Instruction(0x1D, dst, src, to=to)


def jump_unless_same(dst: int, src: int, to: str) -> Instruction:
    """Go on at a label unless two registers are equal."""
    return Instruction(0x5D, dst, src, to=to)


def jump_if_at_most(dst: int, src: int, to: str) -> Instruction:
    """Go on at a label if a register, with its sign, is not more than another."""
    return Instruction(0xDD, dst, src, to=to)


def call(function: int) -> Instruction:
    """Call a function of the kernel by its number."""
    return Instruction(0x85, imm=function)


def leave() -> Instruction:
    """Return register 0."""
    return Instruction(0x95)


def load_map(dst: int, descriptor: int) -> Instruction:
    """Set a register to a map, which is an open file of this process while the program is loaded."""
    return Instruction(0x18, dst, _PSEUDO_MAP_FD, imm=descriptor, wide=True)


def load_value(dst: int, descriptor: int, offset: int) -> Instruction:
    """Set a register to the address of a place in the only value of an array."""
    return Instruction(0x18, dst, _PSEUDO_MAP_VALUE, imm=descriptor, wide=True, high=offset)


def load_number(dst: int, number: int) -> Instruction:
    """Set a register to a number of 64 bits, without a sign."""
    low, high = _HALVES.unpack(number.to_bytes(8, "little"))
    return Instruction(0x18, dst, imm=low, wide=True, high=high)


def assemble(program: Program) -> bytes:
    """Return the bytes of a program. Raises KeyError for a jump to a label that it does not have."""
    places: dict[str, int] = {}
    at = 0
    for each in program:
        if isinstance(each, Label):
            places[each.name] = at
        else:
            at += 2 if each.wide else 1
    code = bytearray()
    for each in program:
        if isinstance(each, Label):
            continue
        next_place = len(code) // 8 + 1
        offset = places[each.to] - next_place if each.to else each.offset
        code += _RAW.pack(each.opcode, each.src << 4 | each.dst, offset, each.imm)
        if each.wide:
            code += _SECOND.pack(each.high)
    return bytes(code)
