"""32-bit code: protected mode with and without paging, segments, the way into long mode, compatibility mode."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import registers_pb2 as registers_pb
from tests.contract.hardware.bench32 import (
    DATA,
    GDT,
    PAE,
    PE,
    PG,
    PS,
    PSE,
    RW,
    STACK,
    TEXT,
    US,
    Guest32,
    P,
    descriptor,
)
from tests.contract.hardware.device_bench import reason
from tests.contract.hardware.programs_32 import CODE

from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, Segment

PAGINGS = ("none", "two_levels", "pae")


@pytest.mark.parametrize("paging", PAGINGS)
async def test_32_bit_code_runs(bench: Any, paging: str) -> None:
    """Code that 64-bit mode does not have runs in protected mode, without paging, with two levels and with PAE."""
    guest = await Guest32(bench).start("sum32")
    if paging != "none":
        getattr(guest, paging)()
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, TEXT + len(CODE["sum32"]))
    page = guest.page
    assert (page.rax, page.rbx, page.rdx, page.rsp) == (500_500, 500_500, 1, STACK)
    assert record.instructions_retired == 2 + 3000 + 3 + 2 + 1
    assert page.segment("cs").attributes == 0xC09B


async def test_a_budget_is_exact(bench: Any) -> None:
    """A budget ends 32-bit code at the same instruction as 64-bit code: at the last block that fits."""
    guest = await Guest32(bench).start("sum32")
    record = await guest.run(100)
    assert (record.reason, record.instructions_retired) == (ExitReason.BUDGET, 98)
    assert guest.page.rcx == 1000 - 32
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.rax == 500_500


async def test_segments_have_bases(bench: Any) -> None:
    """A far jump goes to a code segment's base, and data is read at the base of DS; RIP is the offset."""
    guest = await Guest32(bench).start("far32")
    guest.put(GDT + 0x20, struct.pack("<Q", descriptor(0x20000, 0xF_FFFF, 0xC09B)))
    guest.put(GDT + 0x28, struct.pack("<Q", descriptor(0x30000, 0xF_FFFF, 0xC093)))
    guest.put(0x20100, CODE["behind_far32"])
    guest.store(0x30010, 0xFEED)
    record = await guest.run()
    page = guest.page
    assert (record.reason, record.rip) == (ExitReason.HLT, 0x100 + len(CODE["behind_far32"]))
    assert (page.rax, page.rbx, record.instructions_retired) == (0xFEED, 0x10A, 3 + 4)
    assert (page.segment("cs").base, page.segment("ds").base) == (0x20000, 0x30000)
    assert page.segment("cs").selector == 0x20


async def test_a_holder_sets_segments(bench: Any) -> None:
    """Bases that the holder wrote are those that code uses, in CS, DS and SS."""
    guest = await Guest32(bench).start("behind_far32")
    guest.page.set_segment("cs", Segment(0x20, 0x20000, 0xFFFF_FFFF, 0xC09B))
    guest.page.set_segment("ds", Segment(0x28, 0x30000, 0xFFFF_FFFF, 0xC093))
    guest.page.set_segment("ss", Segment(0x28, 0x38000, 0xFFFF_FFFF, 0xC093))
    guest.put(0x20100, CODE["behind_far32"])
    guest.store(0x30010, 0xBEEF)
    guest.page.rsp = 0x100
    guest.at(0x100)
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rax, guest.page.rbx, guest.get(0x380FC)) == (0xBEEF, 0x10A, 0x10A)


async def test_a_large_page_of_4_mib(bench: Any) -> None:
    """With CR4.PSE a page-directory entry maps 4 MiB; A and D are set in it."""
    guest = await Guest32(bench).start("device32")
    guest.store(0x40000, P | RW | US | PS)
    guest.page.cr3, guest.page.cr0, guest.page.cr4 = 0x40000, PE | PG, PSE
    guest.page.rax, guest.page.rcx, guest.page.rdi = 0x55, DATA, DATA + 8
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.get(DATA), guest.get(DATA + 8), guest.get(0x40000)) == (0x55, 0x55, 0xE7)


@pytest.mark.parametrize("paging", PAGINGS[1:])
async def test_a_page_fault(bench: Any, paging: str) -> None:
    """A page fault of 32-bit code exits with its address and error code."""
    exits = pb.Intercepts(exceptions=1 << 14, cpuid=True, syscall=False)
    guest = await Guest32(bench).start("load32", intercepts=exits)
    getattr(guest, paging)()
    guest.page.rcx = 0xC000_0123
    record = await guest.run()
    assert (record.reason, record.address, record.error_code) == (ExitReason.PAGE_FAULT, 0xC000_0123, 0)
    assert (record.rip, record.instructions_retired) == (TEXT, 0)


async def test_accessed_and_dirty_bits_of_two_levels(bench: Any) -> None:
    """A walk sets A in both entries, a store D in the page's."""
    guest = await Guest32(bench).start("device32")
    guest.two_levels()
    guest.page.rcx, guest.page.rdi = DATA, DATA + 0x1000
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.get(0x40000) == 0x41000 | 0x27
    assert (guest.get(0x41000 + 4 * 8), guest.get(0x41000 + 4 * 9)) == (0x8067, 0x9067)
    assert guest.get(0x41000 + 4 * 0x10) == 0x10027


async def test_the_second_stage_of_32_bit_tables(bench: Any) -> None:
    """A table of a 32-bit guest that the second stage lacks is an EPT violation at the entry's address."""
    guest = await Guest32(bench).start("load32")
    guest.two_levels()
    guest.store(0x40000 + 4, 0x600000 | P | RW | US)
    guest.page.rcx = 0x40_1000
    record = await guest.run()
    assert (record.reason, record.gpa, record.address) == (ExitReason.EPT_VIOLATION, 0x600004, 0x40_1000)
    guest.ept.map(0x600000, guest.base, 7 | PS, level=2, make=7)
    guest.store(4, DATA | P)
    guest.store(DATA, 77)
    guest.page.rcx = 0x40_1000
    guest.page.dirty = DIRTY_ALL
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.rax == 77


async def test_pae_entries_are_registers(bench: Any) -> None:
    """What is stored in the page-directory-pointer table counts from the next MOV to CR3 on."""
    guest = await Guest32(bench).start("load_twice")
    guest.pae()
    guest.put(0x42028, struct.pack("<Q", 0x43000 | P))
    guest.store(DATA, 11)
    guest.page.rcx, guest.page.rdi, guest.page.rbx = 0x4000_0000 + DATA, 0x42028, 0
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rax, guest.page.rdx, guest.get(0x42028)) == (11, 11, 0)
    guest.load("reload")
    guest.page.dirty &= ~(1 << 2)
    guest.page.rdx, guest.page.rcx = 0x42020, 0x4000_0000 + DATA
    guest.gate(14, "error32", 0x12000)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax) == (ExitReason.HLT, 0x12002, 0)
    assert guest.page.cr2 == 0x4000_0000 + DATA


async def test_malformed_pae_entries_are_refused(bench: Any) -> None:
    """MOV to CR3 raises #GP when one of the four entries has a reserved bit, and CR3 stays."""
    guest = await Guest32(bench).start("reload")
    guest.pae()
    guest.put(0x42040, struct.pack("<4Q", 0x43000 | P, 0, 0, 0x43000 | P | RW))
    guest.gate(13, "error32", 0x12000)
    guest.page.rdx, guest.page.rcx = 0x42040, DATA
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax, guest.page.cr3) == (ExitReason.HLT, 0x12002, 0, 0x42020)


async def test_a_kernel_boots_into_long_mode(bench: Any) -> None:
    """From 32-bit code a guest sets PAE, CR3, EFER.LME and PG, jumps to a 64-bit segment, and runs 64-bit code."""
    guest = await Guest32(bench).start("boot")
    record = await guest.run()
    page = guest.page
    assert (record.reason, record.rip) == (ExitReason.HLT, TEXT + len(CODE["boot"]))
    assert (page.rbx, page.r9) == (0x1122_3344_5566_7788, 0x1122_3344_5566_7788)
    assert (page.efer, page.rax, page.cr4) == (0x500, 0x500, PAE)
    assert (page.segment("cs").selector, page.segment("cs").attributes) == (0x18, 0xA09B)
    assert record.instructions_retired == 16 + 5


async def test_long_mode_needs_pae(bench: Any) -> None:
    """Turning paging on with EFER.LME and without CR4.PAE raises #GP."""
    guest = await Guest32(bench).start("boot")
    code = CODE["boot"]
    skipped = code.index(bytes.fromhex("0f22e0"))
    guest.put(TEXT + skipped, b"\x90" * 3)
    guest.gate(13, "error32", 0x12000)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cr0 & PG) == (ExitReason.HLT, 0x12002, 0)


async def test_compatibility_mode(bench: Any) -> None:
    """A 64-bit kernel runs 32-bit code at ring 3 by IRETQ; INT 0x80 comes back to its 64-bit handler."""
    guest = await bench.guest("hlt")
    kernel = 0xFFFF_8000_0000_0000
    guest.put(kernel, CODE["compat_kernel"])
    bench.bus.write(guest.host_of(guest.text), CODE["compat"])
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.at(kernel)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cpl) == (ExitReason.HLT, kernel + 0x401, 0)
    assert guest.page.rbx == 0x77
    stack = kernel + 0x24000 - 40
    frame = [guest.get(stack + 8 * n) for n in range(5)]
    assert frame == [0x400000 + len(CODE["compat"]), 0x1B, 0x246, 0x611000, 0x23]
    assert record.instructions_retired == 6 + 1 + 200 + 3 + 1
    assert guest.page.segment("cs").attributes & 0x2000


async def test_a_context_begins_in_compatibility_mode(bench: Any) -> None:
    """A process whose CS has L clear runs 32-bit code over four-level tables; SYSCALL is undefined there."""
    process = await bench.process()
    bench.bus.write(process.text, CODE["sum32"][:-1] + CODE["undefined_syscall"])
    process.page.set_segment("cs", Segment(0x1B, 0, 0xFFFF_FFFF, 0xC0FB))
    process.page.set_segment("ss", Segment(0x23, 0, 0xFFFF_FFFF, 0xC0F3))
    process.page.rsp = 0x611000
    process.at(0x400000)
    record = await process.run()
    assert (record.reason, record.vector) == (ExitReason.EXCEPTION, 6)
    assert (process.page.rax, process.page.rbx) == (500_500, 500_500)
    assert record.rip == 0x400000 + len(CODE["sum32"]) - 1


async def test_virtual_8086_mode_needs_its_control_registers(bench: Any) -> None:
    """RFLAGS.VM is written only together with control registers that are not those of long mode."""
    guest = await Guest32(bench).start("hlt")
    groups = [registers_pb.REGISTER_GROUP_FLOW, registers_pb.REGISTER_GROUP_CONTROL]
    read = registers_pb.ReadRegistersRequest(handle=guest.context.handle, groups=groups)
    found = (await bench.cpu.ReadRegisters(read)).registers
    found.flow.rflags |= 1 << 17
    write = registers_pb.WriteRegistersRequest(handle=guest.context.handle, groups=groups, registers=found)
    await bench.cpu.WriteRegisters(write)
    assert guest.page.rflags & 1 << 17
    write.groups[:] = groups[:1]
    assert await reason(bench.cpu.WriteRegisters(write)) == ("INVALID_ARGUMENT", "REGISTERS_MALFORMED")
