"""Code at linear address 0, which an emulator could take for the end that it is to stop at."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.hardware.bench32 import RW, Guest32, P
from tests.contract.hardware.conftest import TEXT, US
from tests.contract.hardware.programs import CODE

from lamina_kit.bus.run_page import ExitReason, Segment

JUMP = "31ffffe7"  # xor edi, edi; jmp edi
HALTS = "b807000000f4"  # mov eax, 7; hlt
HALTS_16 = "b80700f4"


@pytest.mark.parametrize("start", [0, TEXT])
async def test_64_bit_code_at_0_runs(bench: Any, start: int) -> None:
    """A process whose first instruction lies at 0 runs, and so does one that jumps there."""
    process = await bench.process("jump")
    frame = bench.frames()
    process.tables.map(0, frame, P | US)
    bench.bus.write(frame, CODE["count"])
    process.at(start)
    record = await process.run()
    assert (record.reason, process.page.rax, process.page.rcx) == (ExitReason.SYSCALL, 500_500, len(CODE["count"]))
    assert record.instructions_retired == 2 + 3 * 1000 + 1 + (start == TEXT)


async def test_a_budget_ends_a_loop_through_0(bench: Any) -> None:
    """A loop whose blocks begin at 0 ends at its budget, block by block, and goes on from there."""
    process = await bench.process()
    frame = bench.frames()
    process.tables.map(0, frame, P | US)
    bench.bus.write(frame, bytes.fromhex("48ffc0ebfb"))  # 1: inc rax; jmp 1b
    process.at(0)
    for run in (1, 2, 3):
        record = await process.run(1000)
        assert (record.reason, record.rip, process.page.rax) == (ExitReason.BUDGET, 0, 500 * run)


async def test_a_missing_page_at_0_is_a_page_fault(bench: Any) -> None:
    """A jump through a null pointer faults at 0 with the bits of a fetch, and runs once the page is there."""
    process = await bench.process("jump")
    record = await process.run()
    assert (record.reason, record.address, record.error_code, record.rip) == (ExitReason.PAGE_FAULT, 0, 0x14, 0)
    process.tables.map(0, process.text, P | US)
    bench.bus.write(process.text, CODE["return_7"])
    assert ((await process.run()).reason, process.page.rax) == (ExitReason.SYSCALL, 7)


@pytest.mark.parametrize("start", [0, 0x10000])
@pytest.mark.parametrize("paging", ["none", "two_levels"])
async def test_32_bit_code_at_0_runs(bench: Any, start: int, paging: str) -> None:
    """Protected-mode code at 0 runs from there and by a jump, with and without paging."""
    guest = await Guest32(bench).start("hlt")
    if paging != "none":
        guest.two_levels(bits=P | RW)
    guest.put(0, bytes.fromhex(HALTS))
    guest.put(0x10000, bytes.fromhex(JUMP))
    guest.at(start)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax) == (ExitReason.HLT, len(HALTS) // 2, 7)


@pytest.mark.parametrize("start", [0, 0x100])
async def test_16_bit_code_at_0_runs(bench: Any, start: int) -> None:
    """Real-mode code at 0:0 runs from there and by a jump."""
    guest = await Guest32(bench).start("hlt")
    guest.put(0, bytes.fromhex(HALTS_16))
    guest.put(0x100, bytes.fromhex(JUMP))
    page = guest.page
    page.cr0 = 0x10
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        page.set_segment(name, Segment(0, 0, 0xFFFF, 0x9B if name == "cs" else 0x93))
    guest.at(start)
    record = await guest.run()
    assert (record.reason, record.rip, page.rax & 0xFFFF) == (ExitReason.HLT, len(HALTS_16) // 2, 7)


async def test_a_jump_to_0_behind_a_base_is_no_end(bench: Any) -> None:
    """An offset of 0 in a segment whose base makes it another linear address, and the reverse, are told apart."""
    guest = await Guest32(bench).start("hlt")
    guest.put(0, bytes.fromhex(HALTS))
    guest.page.set_segment("cs", Segment(8, 0xFFFF_F000, 0xFFFF_FFFF, 0xC09B))
    guest.at(0x1000)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax) == (ExitReason.HLT, 0x1000 + len(HALTS) // 2, 7)
