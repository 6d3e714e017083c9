"""An assembler for the few eBPF instructions that classifiers of trunks need.

A program is a list of instructions and labels; `assemble` gives the bytes that the kernel loads. Registers are numbers:
0 returns, 1 to 5 are arguments and lost by calls, 6 to 9 stay, 10 is the end of the stack.

Source: RFC 9669 (BPF instruction set architecture).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

STACK_END = 10

_PSEUDO_MAP_FD = 1
_RAW = struct.Struct("<BBhi")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of eight bytes, or of sixteen when `wide`; `to` is the label that it jumps to."""

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    to: str = ""
    wide: bool = False


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


def call(function: int) -> Instruction:
    """Call a function of the kernel by its number."""
    return Instruction(0x85, imm=function)


def leave() -> Instruction:
    """Return register 0."""
    return Instruction(0x95)


def load_map(dst: int, descriptor: int) -> Instruction:
    """Set a register to a map, which is an open file of this process while the program is loaded."""
    return Instruction(0x18, dst, _PSEUDO_MAP_FD, imm=descriptor, wide=True)


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
            code += bytes(8)
    return bytes(code)
