"""A guest's own kernel: exceptions and interrupts through its IDT, system calls to its LSTAR, without exits."""

from __future__ import annotations

from typing import Any

from lamina_kit.bus.run_page import (
    EVENT_ERROR_CODE,
    EVENT_EXCEPTION,
    EVENT_EXTERNAL,
    EVENT_VALID,
    ExitReason,
)

P, RW, US = 1, 2, 4
TEXT, FREE = 0x400000, 0x70_0000
KERNEL, KERNEL_DATA, KERNEL_STACK_TOP = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000, 0xFFFF_8000_0002_4000


async def test_a_user_program_enters_and_leaves_ring_3(bench: Any) -> None:
    """IRETQ goes to ring 3; INT through a gate of level 3 comes back on the stack of the TSS."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.user("int80")
    record = await guest.run()
    assert (record.reason, record.rip, guest.page.cpl) == (ExitReason.HLT, KERNEL + 0x401, 0)
    assert guest.page.rsp == KERNEL_STACK_TOP - 40
    stack = [guest.get(KERNEL_STACK_TOP - 40 + 8 * n) for n in range(5)]
    assert stack == [TEXT + 2, 0x2B, 0x202, 0x611000, 0x23]


async def test_a_gate_of_level_0_refuses_ring_3(bench: Any) -> None:
    """INT through a gate that ring 3 may not use is a #GP with that gate as its error code, through the IDT."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 0)
    guest.gate(13, "handler_hlt", 0x480)
    guest.user("int80")
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL + 0x481)
    assert guest.get(guest.page.rsp) == 0x80 << 3 | 2
    assert guest.get(guest.page.rsp + 8) == TEXT


async def test_a_page_fault_goes_to_the_guest(bench: Any) -> None:
    """A first-stage fault that is not intercepted reaches the guest's handler with CR2 and error code, without exit."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(14, "handler_count", 0x400)
    guest.gate(0x80, "handler_hlt", 0x480, 3)
    guest.user("user_fault")
    guest.page.rdi = FREE + 8
    assert (await guest.run(3000)).reason == ExitReason.BUDGET
    assert guest.get(KERNEL_DATA) > 1
    assert (guest.get(KERNEL_DATA + 8), guest.get(KERNEL_DATA + 16)) == (0b110, TEXT)
    assert guest.get(KERNEL_DATA + 24) == FREE + 8
    guest.tables.map(FREE, guest.gpa_frames())
    assert (await guest.run()).reason == ExitReason.HLT


async def test_an_interrupt_waits_for_the_flag(bench: Any) -> None:
    """An external interrupt that the holder injects is delivered at the first block with IF set, not before."""
    guest = await bench.guest("kernel_sti")
    guest.gate(0x20, "handler_tick", 0x400)
    guest.page.event = 0x20 | EVENT_EXTERNAL | EVENT_VALID
    record = await guest.run()
    assert (record.reason, guest.page.event) == (ExitReason.HLT, 0)
    assert guest.get(KERNEL_DATA + 0x20) == 1
    assert record.instructions_retired == 2 + 200 + 2 + 200 + 1 + 5


async def test_interrupts_stay_pending_while_masked(bench: Any) -> None:
    """A run that ends before IF is set leaves the event in the page."""
    guest = await bench.guest("kernel_sti")
    guest.gate(0x20, "handler_tick", 0x400)
    guest.page.event = 0x20 | EVENT_EXTERNAL | EVENT_VALID
    assert (await guest.run(50)).reason == ExitReason.BUDGET
    assert guest.page.event & EVENT_VALID
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.get(KERNEL_DATA + 0x20) == 1


async def test_an_exception_can_be_injected(bench: Any) -> None:
    """The holder's #GP arrives at the guest's handler with its error code."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(13, "handler_hlt", 0x400)
    guest.page.event = 13 | EVENT_EXCEPTION | EVENT_ERROR_CODE | EVENT_VALID
    guest.page.event_error_code = 0x55
    record = await guest.run()
    assert (record.reason, record.rip, record.instructions_retired) == (ExitReason.HLT, KERNEL + 0x401, 1)
    assert (guest.get(guest.page.rsp), guest.get(guest.page.rsp + 8)) == (0x55, KERNEL)


async def test_system_calls_stay_in_the_guest(bench: Any) -> None:
    """SYSCALL of a guest program goes to LSTAR and SYSRETQ comes back, without an exit."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.put(KERNEL + 0x600, bytes.fromhex("4801ff4889e5480f07"))
    guest.page.star, guest.page.lstar, guest.page.sfmask = 0x1B << 48 | 0x08 << 32, KERNEL + 0x600, 0x200
    guest.user("user_syscall")
    record = await guest.run()
    assert (record.reason, guest.page.rdi, guest.page.rbp) == (ExitReason.HLT, 10, 0x611000)
    assert record.instructions_retired == 6 + 2 + 3 + 1 + 1


async def test_a_fault_that_cannot_be_delivered_shuts_down(bench: Any) -> None:
    """With no handler for the fault, for #GP and for the double fault, the context ends in SHUTDOWN."""
    guest = await bench.guest("undefined")
    assert (await guest.run()).reason == ExitReason.SHUTDOWN


async def test_a_double_fault_has_its_handler(bench: Any) -> None:
    """A second exception on the way to a handler is a double fault with error code 0."""
    guest = await bench.guest("divide")
    guest.gate(8, "handler_hlt", 0x400)
    record = await guest.run()
    assert (record.reason, record.rip, guest.get(guest.page.rsp)) == (ExitReason.HLT, KERNEL + 0x401, 0)


async def test_delivery_waits_for_the_second_stage(bench: Any) -> None:
    """When the handler's stack is not backed the exit is an EPT violation, and the event is delivered once it is."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.gate(14, "handler_count", 0x440)
    guest.user("user_fault")
    stack = guest.kernel[KERNEL_STACK_TOP - 0x1000]
    guest.page.rsp = KERNEL_STACK_TOP - 0x1000
    bench.bus.store64(guest.ept.entry(stack), 0)
    guest.page.rdi = FREE
    record = await guest.run()
    assert (record.reason, record.gpa & ~4095) == (ExitReason.EPT_VIOLATION, stack)
    assert guest.page.event & EVENT_VALID
    guest.back(stack)
    guest.tables.map(FREE, guest.gpa_frames())
    assert (await guest.run()).reason == ExitReason.HLT
    assert guest.get(KERNEL_DATA) == 1
