"""Exceptions, interrupts and ways into the kernel outside 64-bit mode; ports and device memory there; real mode."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2 as controls_pb
from lamina.hardware.v1 import registers_pb2 as pb
from tests.contract.hardware.bench32 import (
    DATA,
    PE,
    STACK,
    TEXT,
    TSS,
    USER_STACK,
    USER_TEXT,
    Guest32,
)
from tests.contract.hardware.programs_32 import CODE

from lamina_kit.bus.run_page import EVENT_EXCEPTION, EVENT_EXTERNAL, EVENT_VALID, ExitReason, Segment


async def _user(bench: Any, program: str, paging: str = "two_levels") -> Guest32:
    """Returns a guest whose kernel goes to a program at ring 3 by IRET."""
    guest = await Guest32(bench).start("user32")
    getattr(guest, paging)()
    guest.load(program, USER_TEXT)
    guest.page.rbx, guest.page.rcx = USER_TEXT, USER_STACK
    return guest


@pytest.mark.parametrize("paging", ["two_levels", "pae"])
async def test_ring_3_enters_the_kernel_on_the_stack_of_the_tss(bench: Any, paging: str) -> None:
    """INT through a gate of level 3 goes to ring 0 on the TSS's stack, with SS, ESP, EFLAGS, CS and EIP on it."""
    guest = await _user(bench, "int80", paging)
    guest.gate(0x80, "hlt", 0x12000, level=3)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cpl) == (ExitReason.HLT, 0x12001, 0)
    assert guest.page.rsp == STACK - 20
    frame = [guest.get(STACK - 20 + 4 * n) for n in range(5)]
    assert frame == [USER_TEXT + 2, 0x23, 0x202, USER_STACK, 0x2B]
    assert (guest.page.segment("ss").selector, guest.page.segment("cs").selector) == (0x10, 0x08)
    assert record.instructions_retired == 6 + 1 + 1


async def test_iret_goes_back_to_ring_3(bench: Any) -> None:
    """A handler's IRET returns behind INT, as often as the program asks; INT 0x81 ends it."""
    guest = await _user(bench, "count_int80")
    guest.gate(0x80, "iret32", 0x12000, level=3)
    guest.gate(0x81, "hlt", 0x12100, level=3, kind=0xF)
    guest.page.rbx = USER_TEXT
    record = await guest.run()
    assert (record.reason, guest.get(DATA), guest.page.rbx) == (ExitReason.HLT, 3, USER_TEXT + 2)
    assert record.instructions_retired == 6 + 6 + 3 * 2 + 1


async def test_a_gate_of_level_0_refuses_ring_3(bench: Any) -> None:
    """INT through a gate that ring 3 may not use is a #GP with the gate as its error code; EIP is on the INT."""
    guest = await _user(bench, "int80")
    guest.gate(0x80, "hlt", 0x12000)
    guest.gate(13, "error32", 0x12100)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax) == (ExitReason.HLT, 0x12102, 0x80 << 3 | 2)
    assert guest.get(guest.page.rsp) == USER_TEXT


async def test_a_page_fault_of_ring_3(bench: Any) -> None:
    """A page fault at ring 3 reaches the kernel's handler with its error code, CR2 holds the address."""
    guest = await _user(bench, "load32")
    guest.gate(14, "error32", 0x12000)
    guest.page.rcx = USER_STACK
    guest.store(0x41000 + 4 * 7, 0x7003)  # the stack is the kernel's alone
    guest.store(0x41000 + 4 * 0x11, 0x11007)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rax, guest.page.cr2) == (ExitReason.HLT, 0x12002, 5, USER_STACK)


async def test_a_tss_too_short_is_refused(bench: Any) -> None:
    """A TSS that does not reach to its stack raises #TS on the way, and a kernel without handlers shuts down."""
    guest = await _user(bench, "int80")
    guest.gate(0x80, "hlt", 0x12000, level=3)
    guest.page.set_segment("tr", Segment(0x38, TSS, 6, 0x8B))
    assert (await guest.run()).reason == ExitReason.SHUTDOWN


async def test_a_task_gate_exits(bench: Any) -> None:
    """A gate to another task is not taken: the run ends in front of the INT, with the vector, and nothing changed."""
    guest = await _user(bench, "int80")
    guest.gate(0x80, "hlt", 0x12000, level=3, kind=5)
    record = await guest.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.TASK_SWITCH, 0x80, USER_TEXT)
    assert (guest.page.cpl, guest.page.rsp) == (3, USER_STACK)


async def test_a_16_bit_gate_pushes_words(bench: Any) -> None:
    """An interrupt gate of 16 bits pushes FLAGS, CS and IP as words."""
    guest = await Guest32(bench).start("int80")
    guest.gate(0x80, "hlt", 0x2000 - 0x100, kind=6)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rsp) == (ExitReason.HLT, 0x1F01, STACK - 6)
    assert guest.get(STACK - 8) >> 16 == (TEXT + 2) & 0xFFFF


async def test_an_interrupt_waits_for_the_flag(bench: Any) -> None:
    """An external interrupt reaches 32-bit code through its IDT once EFLAGS.IF is set."""
    guest = await Guest32(bench).start("spin")
    guest.gate(0x20, "hlt", 0x12000)
    guest.page.event = 0x20 | EVENT_EXTERNAL | EVENT_VALID
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    guest.page.rflags |= 1 << 9
    guest.page.dirty = 1 << 1
    record = await guest.run(100)
    assert (record.reason, record.rip, guest.get(guest.page.rsp + 8) & 1 << 9) == (ExitReason.HLT, 0x12001, 1 << 9)


async def test_an_injected_exception_waits_for_the_second_stage(bench: Any) -> None:
    """When the handler's stack is not backed the exit is an EPT violation, and the event stays in the page."""
    guest = await Guest32(bench).start("hlt")
    guest.gate(6, "hlt", 0x12000)
    guest.page.rsp = 0x50_0000
    guest.page.event = 6 | EVENT_EXCEPTION | EVENT_VALID
    record = await guest.run()
    assert (record.reason, record.gpa) == (ExitReason.EPT_VIOLATION, 0x4F_FFFC)
    assert guest.page.event & EVENT_VALID


async def test_sysenter_and_sysexit(bench: Any) -> None:
    """SYSENTER goes to 32-bit code at ring 0 with flat segments, SYSEXIT back to ring 3."""
    guest = await _user(bench, "sysenter32")
    guest.gate(0x81, "hlt", 0x12100, level=3)
    guest.load("sysexit32", 0x12000)
    for number, value in ((0x174, 0x08), (0x175, STACK), (0x176, 0x12000)):
        await _write_msr(guest, number, value)
    guest.page.rbx = USER_TEXT
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rbx) == (ExitReason.HLT, 0x12101, USER_TEXT + 1)
    assert guest.get(STACK - 16) == 0x1B


async def _write_msr(guest: Guest32, number: int, value: int) -> None:
    registers = pb.Registers(msrs=[pb.Msr(number=number, value=value)])
    await guest.bench.cpu.WriteRegisters(
        pb.WriteRegistersRequest(handle=guest.context.handle, groups=[pb.REGISTER_GROUP_MSRS], registers=registers)
    )


async def test_ports_of_32_bit_code(bench: Any) -> None:
    """OUT, IN and a repeated OUTS exit behind themselves, or on themselves while repetitions are left."""
    guest = await Guest32(bench).start("ports32")
    guest.page.rax, guest.page.rsi = 0x41, DATA
    guest.store(DATA, 0x6261)
    seen = []
    for _ in range(4):
        record = await guest.run()
        assert record.reason == ExitReason.IO
        seen.append((record.port, record.io_direction, record.io_data, record.rip - TEXT))
    assert seen == [(0x80, 1, 0x41, 2), (0x60, 0, 0, 4), (0x3F8, 1, 0x61, 13), (0x3F8, 1, 0x62, 15)]
    assert (await guest.run()).reason == ExitReason.HLT
    assert (guest.page.rsi, guest.page.rcx) == (DATA + 2, 0)


async def test_device_memory_of_32_bit_code(bench: Any) -> None:
    """Moves to and from device memory are decoded: address, size and value, and the answer of a read."""
    guest = await Guest32(bench).start("device32")
    controls = controls_pb.ExitControls(instructions=[controls_pb.TRAPPED_INSTRUCTION_HLT])
    controls.device_ranges.add(gpa=0x20_0000, size_bytes=4096)
    await bench.cpu.SetExitControls(controls_pb.SetExitControlsRequest(handle=guest.context.handle, controls=controls))
    guest.page.rax, guest.page.rcx, guest.page.rdi = 0x1234_5678, 0x20_0010, 0x20_0020
    record = await guest.run()
    assert (record.reason, record.gpa, record.access_size, record.access_value) == (
        ExitReason.MMIO, 0x20_0010, 4, 0x1234_5678,
    )  # fmt: skip
    record = await guest.run()
    assert (record.reason, record.gpa, record.access_size, record.access_register) == (
        ExitReason.MMIO, 0x20_0014, 2, 3,
    )  # fmt: skip
    guest.page.rbx = 0xFFFF_9ABC
    guest.page.dirty = 1
    record = await guest.run()
    assert (record.reason, record.gpa, guest.page.rbx) == (ExitReason.MMIO, 0x20_0020, 0x9ABC)
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.page.rdi == 0x20_0024


async def test_stacks_of_words(bench: Any) -> None:
    """16-bit operands in 32-bit code push and pop words; the count of instructions is theirs."""
    guest = await Guest32(bench).start("stack16")
    record = await guest.run()
    assert (record.reason, record.instructions_retired, guest.page.rsp) == (ExitReason.HLT, 7, STACK)


def _real(guest: Guest32, segment: int = 0x100) -> None:
    """Puts the context into real mode, at offset 0 of a segment."""
    page = guest.page
    page.cr0 = 0x10
    page.set_segment("cs", Segment(segment, segment << 4, 0xFFFF, 0x9B))
    for name in ("ss", "ds", "es", "fs", "gs"):
        page.set_segment(name, Segment(0, 0, 0xFFFF, 0x93))
    page.idtr_base, page.idtr_limit, page.rsp = 0, 0x3FF, 0x7000
    guest.at(0)


async def test_real_mode_interrupts(bench: Any) -> None:
    """In real mode INT goes through a vector of four bytes and pushes words; IRET comes back."""
    guest = await Guest32(bench).start("hlt")
    guest.put(0x10000, CODE["real_int"])
    guest.put(0x5010, CODE["real_iret"])
    guest.put(4 * 0x21, struct.pack("<HH", 0x10, 0x500))
    _real(guest, 0x1000)
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.rbx & 0xFFFF) == (ExitReason.HLT, 6, 0x1234)
    assert (guest.page.segment("cs").base, record.instructions_retired) == (0x10000, 5)


async def test_from_real_to_protected_mode(bench: Any) -> None:
    """A guest sets CR0.PE and jumps to a 32-bit segment, as boot code does."""
    guest = await Guest32(bench).start("hlt")
    guest.put(0x10000, CODE["boot16"])
    _real(guest, 0x1000)
    record = await guest.run()
    assert (record.reason, guest.get(DATA), guest.page.cr0 & PE) == (ExitReason.HLT, 0x12345678, PE)
