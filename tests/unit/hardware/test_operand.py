"""Where an instruction accesses memory, on the modelled cores: the manual's addressing forms in all three widths."""

from __future__ import annotations

import ctypes

import pytest
from tests.unit.hardware.core_block import Block

from lamina_hardware.io.emulator.code import operand
from lamina_hardware.io.emulator.state import control_block
from lamina_hardware.io.emulator.state import unicorn_layout as at

GENERAL = [0x1000 * (number + 1) for number in range(16)]
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = GENERAL
RIP = 0x40_0000
BASES = {"es": 0x10_0000, "cs": 0x20_0000, "ss": 0x30_0000, "ds": 0x40_0000, "fs": 0x50_0000, "gs": 0x60_0000}
ES, CS, SS, DS, FS, GS = BASES.values()
WIDE = 1 << 40
"""What FS and GS have more in 64-bit code."""
LOW = 0xFFFF_FFFF


def block(bits: int) -> Block:
    """Returns a block with registers, bases, and code of so many bits."""
    made = Block()
    for number, value in enumerate(GENERAL):
        made.register(number, value)
    for name, base in BASES.items():
        made.segment(name, base + (WIDE if bits == 64 and name in ("fs", "gs") else 0))
    made.put(at.HFLAGS, {64: int(at.HF_CS64 | at.HF_CS32), 32: int(at.HF_CS32), 16: 0}[bits], 4)
    return made


def operand_of(code: str, bits: int) -> int:
    """Returns where the ModRM operand of an instruction at RIP lies."""
    made, data = block(bits), bytes.fromhex(code)
    buffer = ctypes.create_string_buffer(data.ljust(32, b"\x90"), 32)
    place = ctypes.addressof(buffer)
    found = made.call(control_block.L_DECODE, place)
    assert found & 0xFF == len(data)
    return int(operand.modrm_address(made.env, place, found, RIP + len(data)))


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("488907", RDI),  # mov [rdi], rax
        ("488b4608", RSI + 8),  # mov rax, [rsi+8]
        ("488b467f", RSI + 0x7F),
        ("488b4680", RSI - 0x80),
        ("488b8600010000", RSI + 0x100),
        ("488b86ffffff7f", RSI + 0x7FFF_FFFF),
        ("488b8600000080", RSI - 0x8000_0000 & (1 << 64) - 1),
        ("498b4500", R13),
        ("498b0424", R12),
        ("4a8b04b8", RAX + 4 * R15),
        ("498b04c8", R8 + 8 * RCX),  # mov rax, [r8+rcx*8]
        ("488b0424", RSP),
        ("4a8b0420", RAX + R12),  # index R12 is one, RSP is none
        ("488b04250010c07f", 0x7FC0_1000),
        ("488b042d00100000", RBP + 0x1000),  # no base, index RBP
        ("488b442d10", 2 * RBP + 0x10),
        ("488b05f0000000", RIP + 7 + 0xF0),
        ("488b05f0ffffff", RIP + 7 - 0x10),
        ("8035f000000001", RIP + 7 + 0xF0),  # xor byte [rip+0xf0], 1
        ("64488b042500000000", FS + WIDE),
        ("65488b4610", GS + WIDE + RSI + 0x10),
        ("2e488b4610", RSI + 0x10),  # bases of other segments are 0
        ("36488b4610", RSI + 0x10),
        ("67488b46f0", RSI - 0x10),
        ("6764488b4610", FS + WIDE + RSI + 0x10),
        ("f3480fb84610", RSI + 0x10),  # popcnt
        ("66480f6e4610", RSI + 0x10),  # movq xmm0, [rsi+16]
    ],
)
def test_64_bit_code(code: str, wanted: int) -> None:
    """Bases, indices with their scale, displacements of both widths, RIP, and the bases of FS and GS alone."""
    assert operand_of(code, 64) == wanted


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("8907", DS + RDI),  # mov [edi], eax
        ("8b4608", DS + RSI + 8),
        ("8b46f8", DS + RSI - 8),
        ("8b8600010000", DS + RSI + 0x100),
        ("8b0424", SS + RSP),  # ESP and EBP mean the stack
        ("8b4500", SS + RBP),
        ("8b442d10", SS + 2 * RBP + 0x10),
        ("8b442810", DS + RAX + RBP + 0x10),  # base EAX, index EBP
        ("8b05f0000000", DS + 0xF0),
        ("8b042500100000", DS + 0x1000),
        ("268b07", ES + RDI), ("2e8b07", CS + RDI), ("368b07", SS + RDI), ("3e8b4500", DS + RBP),
        ("648b07", FS + RDI), ("658b07", GS + RDI),
        ("8b86000000f0", (DS + RSI + 0xF000_0000) & LOW),
        ("8b8600f0ffff", DS + RSI - 0x1000),
        ("678b07", DS + RBX),  # 16-bit: [bx]
    ],
)  # fmt: skip
def test_32_bit_code(code: str, wanted: int) -> None:
    """Each operand has its segment, by default or by a prefix, and addresses wrap at 32 bits."""
    assert operand_of(code, 32) == wanted


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("8b00", DS + RBX + RSI), ("8b01", DS + RBX + RDI), ("8b02", SS + RBP + RSI), ("8b03", SS + RBP + RDI),
        ("8b04", DS + RSI), ("8b05", DS + RDI), ("8b061234", DS + 0x3412), ("8b07", DS + RBX),
        ("8b4010", DS + RBX + RSI + 0x10), ("8b41f0", DS + RBX + RDI - 0x10), ("8b4610", SS + RBP + 0x10),
        ("8b4710", DS + RBX + 0x10), ("8b4410", DS + RSI + 0x10), ("8b4210", SS + RBP + RSI + 0x10),
        ("8b800001", DS + RBX + RSI + 0x100), ("8b860001", SS + RBP + 0x100),
        ("8b8700f0", DS + (RBX + 0xF000 & 0xFFFF)),
        ("268b00", ES + RBX + RSI), ("368b04", SS + RSI), ("648b07", FS + RBX),
        ("678b06", DS + RSI),  # 32-bit: [esi]
    ],
)  # fmt: skip
def test_16_bit_code(code: str, wanted: int) -> None:
    """The eight forms of 16-bit addressing with their displacements; with BP they mean the stack; offsets wrap."""
    assert operand_of(code, 16) == wanted


def accessed(code: str, page: int, bits: int = 64) -> int:
    """Returns the lowest address in a page that an instruction at RIP accesses."""
    made, data = block(bits), bytes.fromhex(code)
    buffer = ctypes.create_string_buffer(data.ljust(32, b"\x90"), 32)
    return int(operand.access_in(made.address, ctypes.addressof(buffer), RIP, page))


@pytest.mark.parametrize(
    ("bits", "code", "page", "wanted"),
    [
        (64, "488b4608", RSI, RSI + 8),
        (64, "488b46fc", RSI - 0x1000, RSI - 4),
        (64, "488b46fc", RSI, RSI),  # its end is on the page
        (64, "48a10800000001000000", 0x1_0000_0000, 0x1_0000_0008),
        (64, "67a108000100", 0x1_0000, 0x1_0008),
        (64, "a4", RDI, RDI), (64, "a4", RSI, RSI),
        (64, "50", RSP - 0x1000, RSP - 8), (64, "58", RSP, RSP),
        (64, "ff7610", RSP - 0x1000, RSP - 8), (64, "ff7610", RSI, RSI + 0x10),
        (64, "90", 0x99_0000, 0x99_0000),
        (32, "50", SS + RSP - 0x1000, SS + RSP - 4), (32, "6650", SS + RSP - 0x1000, SS + RSP - 2),
        (32, "58", SS + RSP, SS + RSP), (32, "8b4608", DS + RSI, DS + RSI + 8),
        (32, "a108000100", DS + 0x1_0000, DS + 0x1_0008),
        (32, "67a10810", DS + 0x1000, DS + 0x1008),
        (16, "50", SS + RSP - 0x1000, SS + RSP - 2), (16, "6650", SS + RSP - 0x1000, SS + RSP - 4),
    ],
)  # fmt: skip
def test_the_access_on_a_page(bits: int, code: str, page: int, wanted: int) -> None:
    """The operand, an absolute address, the stack on both sides, a string; what begins before is at its begin."""
    assert accessed(code, page, bits) == wanted
