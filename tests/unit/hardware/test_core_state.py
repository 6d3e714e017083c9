"""The register file of a modelled core: floating point, segments, and the mode that follows from registers."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest
from tests.unit.hardware.core_block import BIG, LONG, SEGMENTS, Block

from lamina_hardware.io.emulator.state import control_block, fpu, mode, registers
from lamina_hardware.io.emulator.state import unicorn_layout as at
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import RunPage, Segment


@pytest.mark.parametrize("top", range(8))
def test_floating_point_comes_back(top: int) -> None:
    """What an FXSAVE area says is in the register file, the stack turned by TOP, and is stored as it was."""
    rng, block = random.Random(top), Block()
    area = bytearray(512)
    area[0:2], area[2:4] = b"\x7f\x03", (top << 11 | 0x4123).to_bytes(2, "little")
    area[4], area[24:28], area[28:32] = 0b1010_0110, b"\x80\x1f\0\0", b"\xff\xff\0\0"
    for n in range(8):
        area[32 + 16 * n : 42 + 16 * n] = rng.randbytes(10)
    area[160:416] = rng.randbytes(256)
    place = block.page + run_page.FXSAVE_OFFSET
    ctypes.memmove(place, bytes(area), 512)
    block.words[int(control_block.PORTABLE)] = 1
    fpu.load_fpu(block.address, block.page)
    assert (block.get(at.FPU_TOP, 4), block.get(at.FPU_STATUS, 2)) == (top, 0x4123)
    assert (block.get(at.FPU_CONTROL, 2), block.get(at.MXCSR, 4)) == (0x37F, 0x1F80)
    assert [block.get(int(at.FPU_TAGS) + n, 1) for n in range(8)] == [1, 0, 0, 1, 1, 0, 1, 0]
    for n in range(8):
        held = int(at.FPU_REGISTERS) + 16 * ((top + n) % 8)
        assert block.get(held, 10).to_bytes(10, "little") == area[32 + 16 * n : 42 + 16 * n]
    for n in range(16):
        held = int(at.XMM) + n * int(at.XMM_STRIDE)
        assert block.get(held, 16).to_bytes(16, "little") == area[160 + 16 * n : 176 + 16 * n]
    ctypes.memset(place, 0, 512)
    fpu.store_fpu(block.env, block.page)
    assert ctypes.string_at(place, 512) == bytes(area)


def test_segments_and_tables_come_back() -> None:
    """Each segment's four parts and both tables go through the register file; a loaded TSS is busy."""
    block = Block()
    page = RunPage(memoryview((ctypes.c_char * 4096).from_address(block.page)).cast("B"))
    wanted = {
        name: Segment(8 * n + 3, 0x1111_0000_0000 + n, 0xFFFF_0000 + n, 0xA090 + n) for n, name in enumerate(SEGMENTS)
    }
    wanted["tr"] = Segment(0x30, 0x5000, 0x67, 0x89)
    for name, segment in wanted.items():
        page.set_segment(name, segment)
    page.gdtr_base, page.gdtr_limit, page.idtr_base, page.idtr_limit = 0x1234_5678_9ABC, 0x2F, 0x9876_5432_1000, 0xFFF
    loads: Any = registers
    loads._load_segments(block.env, block.page)
    for n, name in enumerate(SEGMENTS):
        place = int(at.SEGMENTS) + n * int(at.SEGMENT_STRIDE)
        segment = wanted[name]
        assert (block.get(place, 4), block.get(place + 8)) == (segment.selector, segment.base)
        assert (block.get(place + 16, 4), block.get(place + 20, 4)) == (segment.limit, segment.attributes << 8)
    ctypes.memset(block.page, 0, 4096)
    loads._store_segments(block.env, block.page)
    wanted["tr"] = Segment(0x30, 0x5000, 0x67, 0x8B)
    assert {name: page.segment(name) for name in SEGMENTS} == wanted
    assert (page.gdtr_base, page.gdtr_limit, page.idtr_base, page.idtr_limit) == (
        0x1234_5678_9ABC, 0x2F, 0x9876_5432_1000, 0xFFF,
    )  # fmt: skip


PE, PG, PAE, LME, LMA, VM = 1, 1 << 31, 1 << 5, 1 << 8, 1 << 10, 1 << 17
H_PE, H_LMA, H_64, H_32, H_SS, H_ADD = (
    int(bit) for bit in (at.HF_PE, at.HF_LMA, at.HF_CS64, at.HF_CS32, at.HF_SS32, at.HF_ADDSEG)
)


@pytest.mark.parametrize(
    ("cr0", "efer", "cs", "ss", "base", "flags", "wanted", "long"),
    [
        (PE | PG, LME, LONG, 0, 0, 0, H_PE | H_LMA | H_64 | H_32 | H_SS, True),
        (PE | PG, LME, BIG, BIG, 0, 0, H_PE | H_LMA | H_32 | H_SS, True),
        (PE | PG, LME, BIG, 0, 0, 0, H_PE | H_LMA | H_32, True),
        (PE | PG, LMA, LONG, 0, 0, 0, H_PE | H_ADD, False),
        (PE, LME | LMA, LONG, 0, 0, 0, H_PE | H_ADD, False),
        (PE, 0, BIG, BIG, 0, 0, H_PE | H_32 | H_SS, False),
        (PE, 0, BIG, BIG, 0x1000, 0, H_PE | H_32 | H_SS | H_ADD, False),
        (PE, 0, 0, BIG, 0, 0, H_PE | H_SS | H_ADD, False),
        (PE, 0, BIG, BIG, 0, VM, H_PE | H_32 | H_SS | H_ADD, False),
        (0, 0, BIG, BIG, 0, 0, H_32 | H_SS | H_ADD, False),
        (0, 0, 0, 0, 0, 0, H_ADD, False),
    ],
)
@pytest.mark.parametrize("name", ["ds", "es", "ss"])
def test_the_mode_follows_from_the_registers(
    name: str, cr0: int, efer: int, cs: int, ss: int, base: int, flags: int, wanted: int, long: bool
) -> None:
    """Long mode is active with LME and paging; code and stack have their segments' width; flat is without bases."""
    block = Block()
    block.words[int(control_block.PORTABLE)] = 1
    block.segment("cs", 0x7000, cs)
    block.segment("ss", 0, ss)
    block.segment(name, base, ss if name == "ss" else 0)
    block.put(at.CR0, cr0)
    block.put(at.EFER, efer)
    block.put(at.EFLAGS, flags)
    block.put(at.HFLAGS, 3 | H_64 | H_SS | H_LMA, 4)
    block.call(control_block.L_DERIVE_MODE)
    assert block.get(at.HFLAGS, 4) == 3 | wanted, "the level stays"
    assert bool(block.get(at.EFER) & LMA) is long
    assert block.get(at.EFER) & LME == efer & LME
    is_64 = bool(wanted & H_64)
    assert mode.is_64(block.env) == is_64
    assert mode.code_bits(block.env) == (0 if is_64 else 1 if wanted & H_32 else 2)
    block.put(at.EIP, 0xFFFF_FFFF_FFFF_F000 if is_64 else 0xFFFF_F000)
    assert mode.linear_rip(block.env) == (0xFFFF_FFFF_FFFF_F000 if is_64 else 0x6000)
    assert mode.move_rip(block.env, 0x1008) == 8
    assert block.get(at.EIP) == 8
    assert mode.move_rip(block.env, (1 << 64) - 9) == (1 << (64 if is_64 else 32)) - 1


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "pae"),
    [(PE | PG, PAE, 0, True), (PE | PG, 0, 0, False), (PE, PAE, 0, False), (PE | PG, PAE, LME, False)],
)
def test_pae_is_paging_of_three_levels(cr0: int, cr4: int, efer: int, pae: bool) -> None:
    """PAE without long mode loads its top entries at MOV to CR3, which the core then does by hand."""
    block = Block()
    block.put(at.CR0, cr0)
    block.put(at.CR4, cr4)
    block.put(at.EFER, efer)
    block.put(at.INTERCEPT_CR_WRITE, 0xFFFF if not pae else 1, 2)
    block.call(control_block.L_DERIVE_MODE)
    assert mode.in_pae(block.env) == pae
    assert block.get(at.INTERCEPT_CR_WRITE, 2) == (1 | 8 if pae else 0xFFFF & ~8)
