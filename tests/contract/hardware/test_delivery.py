"""Interrupts on their way through a guest's IDT: stacks, what is wrong with a table, NMIs, shadows, machine checks."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import interrupts_pb2

from lamina_kit.bus.run_page import (
    BLOCKED_BY_NMI,
    EVENT_EXCEPTION,
    EVENT_EXTERNAL,
    EVENT_NMI,
    EVENT_VALID,
    Activity,
    ExitReason,
)

TEXT = 0x400000
KERNEL, KERNEL_DATA, KERNEL_STACK_TOP = 0xFFFF_8000_0000_0000, 0xFFFF_8000_0001_0000, 0xFFFF_8000_0002_4000
KERNEL_GDT, KERNEL_IDT, KERNEL_TSS = KERNEL + 0x30000, KERNEL + 0x31000, KERNEL + 0x32000
TICKS, NMIS = KERNEL_DATA + 0x20, KERNEL_DATA + 0x40
VECTOR, HANDLER = 0x41, KERNEL + 0x400
OUTSIDE, NONCANONICAL = KERNEL + 0x70_0000, 0x8000_0000_0000_0000
GP, PF, TS, NP, SS, DF = 13, 14, 10, 11, 12, 8
NMI, INIT, STARTUP, MACHINE_CHECK = 2, 3, 4, 5


def gate(offset: int = HANDLER, selector: int = 8, kind: int = 0x8E, ist: int = 0) -> bytes:
    """Returns an entry of the IDT."""
    low = (offset & 0xFFFF) | selector << 16 | ist << 32 | kind << 40 | (offset >> 16 & 0xFFFF) << 48
    return struct.pack("<QQ", low, offset >> 32)


def short_idt(guest: Any) -> None:
    """The IDT ends before the vector."""
    guest.page.idtr_limit = VECTOR * 16 - 1


def short_tss(guest: Any) -> None:
    """The TSS ends before the stack of the gate."""
    guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=3))
    guest.page.set_segment("tr", replace(guest.page.segment("tr"), limit=36 + 2 * 8 + 6))


def bad_stack(guest: Any) -> None:
    """The stack in the TSS is no address."""
    guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=2))
    guest.put(KERNEL_TSS + 36 + 8, struct.pack("<Q", NONCANONICAL))


def unmapped_stack(guest: Any) -> None:
    """The stack in the TSS is not mapped."""
    guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=1))
    guest.put(KERNEL_TSS + 36, struct.pack("<Q", OUTSIDE))


def unmapped_idt(guest: Any) -> None:
    """The IDT is not mapped."""
    guest.page.idtr_base = OUTSIDE


def unmapped_tss(guest: Any) -> None:
    """The TSS is not mapped."""
    guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=1))
    guest.page.set_segment("tr", replace(guest.page.segment("tr"), base=OUTSIDE))


def entry(**changes: int) -> Any:
    """Returns what puts a changed entry for the vector into the IDT."""
    return lambda guest: guest.put(KERNEL_IDT + VECTOR * 16, gate(**changes))


def code_segment(descriptor: int) -> Any:
    """Returns what changes the handler's code segment."""
    return lambda guest: guest.put(KERNEL_GDT + 8, struct.pack("<Q", descriptor))


IN_IDT = VECTOR * 8 + 3
WRONG = [
    pytest.param(short_idt, GP, IN_IDT, 0, id="idt-limit"),
    pytest.param(entry(kind=0x8C), GP, IN_IDT, 0, id="call-gate"),
    pytest.param(entry(kind=0x86), GP, IN_IDT, 0, id="16-bit-gate"),
    pytest.param(entry(kind=0x0E), NP, IN_IDT, 0, id="gate-not-present"),
    pytest.param(entry(selector=0), GP, 1, 0, id="null-selector"),
    pytest.param(entry(selector=0x100), GP, 0x101, 0, id="selector-beyond-gdt"),
    pytest.param(entry(selector=0x0C), GP, 0x0D, 0, id="selector-in-empty-ldt"),
    pytest.param(entry(selector=0x10), GP, 0x11, 0, id="data-segment"),
    pytest.param(entry(selector=0x28), GP, 0x29, 0, id="outer-code-segment"),
    pytest.param(code_segment(0x00CF9B00_0000FFFF), GP, 9, 0, id="32-bit-code-segment"),
    pytest.param(code_segment(0x00AF1B00_0000FFFF), NP, 9, 0, id="code-segment-not-present"),
    pytest.param(entry(offset=NONCANONICAL), GP, 1, 0, id="handler-not-canonical"),
    pytest.param(short_tss, TS, 0x31, 0, id="tss-limit"),
    pytest.param(bad_stack, SS, 1, 0, id="stack-not-canonical"),
    pytest.param(unmapped_stack, PF, 2, OUTSIDE - 8 * 5, id="stack-not-mapped"),
    pytest.param(unmapped_idt, PF, 0, OUTSIDE + VECTOR * 16, id="idt-not-mapped"),
    pytest.param(unmapped_tss, PF, 0, OUTSIDE, id="tss-not-mapped"),
]


@pytest.mark.parametrize(("break_it", "vector", "code", "address"), WRONG)
async def test_what_is_wrong_with_a_table_is_an_exception(
    bench: Any, break_it: Any, vector: int, code: int, address: int
) -> None:
    """Each fault of IDT, GDT, TSS or stack is the exception of the manual with its error code; nothing else changed."""
    guest = await bench.guest("kernel_spin", intercepts=pb.Intercepts(exceptions=0xFFFF_FFFF, cpuid=True))
    guest.put(KERNEL_IDT + VECTOR * 16, gate())
    guest.page.rdi, guest.page.r8 = TICKS, 1
    break_it(guest)
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    stack = guest.page.rsp
    record = await guest.run(10_000)
    reason = ExitReason.PAGE_FAULT if vector == PF else ExitReason.EXCEPTION
    assert (record.reason, record.error_code, guest.page.rsp, guest.page.cpl) == (reason, code, stack, 0)
    if vector == PF:
        assert record.address & ~0xFF == address & ~0xFF
    else:
        assert record.vector == vector


@pytest.mark.parametrize(("break_it", "vector", "code", "address"), WRONG)
async def test_without_a_handler_it_shuts_down(bench: Any, break_it: Any, vector: int, code: int, address: int) -> None:
    """The same faults in a guest that has no handlers end in SHUTDOWN, never in a core that hangs."""
    guest = await bench.guest("kernel_spin")
    guest.put(KERNEL_IDT + VECTOR * 16, gate())
    guest.page.rdi, guest.page.r8 = TICKS, 1
    break_it(guest)
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    assert (await guest.run(10_000)).reason == ExitReason.SHUTDOWN


async def test_the_interrupt_stack_table(bench: Any) -> None:
    """A gate with an IST entry takes that stack, aligned to 16 bytes, also without a change of level."""
    guest = await bench.guest("kernel_spin")
    guest.gate(VECTOR, "handler_hlt", 0x400)
    guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=7))
    top = KERNEL_STACK_TOP - 0x2000
    guest.put(KERNEL_TSS + 36 + 6 * 8, struct.pack("<Q", top + 13))
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    guest.page.rdi, guest.page.r8 = TICKS, 1
    stack = guest.page.rsp
    record = await guest.run(10_000)
    assert (record.reason, guest.page.rsp) == (ExitReason.HLT, top - 40)
    assert guest.get(top - 16) == stack


async def test_an_interrupt_of_ring_3_goes_to_the_stack_of_the_tss_and_back(bench: Any) -> None:
    """An external interrupt at ring 3 is handled on RSP0, and IRETQ goes back to the outer ring."""
    guest = await bench.guest("kernel_to_user")
    guest.gate(VECTOR, "handler_tick", 0x400)
    guest.gate(0x80, "handler_hlt", 0x480, 3)
    guest.user("user_spin")
    guest.tables.map(0x70_0000, guest.kernel[KERNEL_DATA], 7)
    guest.page.rdi, guest.page.r8 = 0x70_0020, 1
    assert (await guest.run(1000)).reason == ExitReason.BUDGET
    assert guest.page.cpl == 3
    await bench.signal(guest.context, VECTOR)
    record = await guest.run()
    assert (record.reason, record.rip, guest.get(TICKS)) == (ExitReason.HLT, KERNEL + 0x481, 1)


async def test_a_conforming_handler_keeps_the_level(bench: Any) -> None:
    """A conforming code segment runs the handler at the level of what it interrupts."""
    guest = await bench.guest("kernel_to_user")
    guest.put(KERNEL_GDT + 8, struct.pack("<Q", 0x00AF9F00_0000FFFF))
    guest.gate(VECTOR, "undefined", 0x400)
    guest.put(KERNEL_IDT + VECTOR * 16, gate(offset=TEXT + 0x100))
    guest.user("user_spin")
    guest.tables.map(0x70_0000, guest.kernel[KERNEL_DATA], 7)
    guest.page.rdi, guest.page.r8 = 0x70_0020, 1
    assert (await guest.run(1000)).reason == ExitReason.BUDGET
    await bench.signal(guest.context, VECTOR)
    await guest.run(1)
    assert (guest.page.cpl, guest.page.segment("cs").selector & 3) == (3, 3)
    assert guest.page.rsp == 0x611000 - 40


async def test_an_nmi_needs_no_flag_and_blocks_the_next(bench: Any) -> None:
    """An NMI is taken with IF clear; a second one waits for the IRET of the first, then is taken at once."""
    guest = await bench.guest("kernel_closed")
    guest.gate(2, "handler_nmi", 0x400)
    guest.page.rdi, guest.page.r8 = NMIS, 2
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, kind=NMI) == 1
    assert (await guest.run(300)).reason == ExitReason.BUDGET
    assert (guest.get(NMIS), guest.page.interruptibility & BLOCKED_BY_NMI) == (1, BLOCKED_BY_NMI)
    assert [await bench.signal(guest.context, kind=NMI) for _ in range(2)] == [1, 2]
    assert (await guest.run(300)).reason == ExitReason.BUDGET
    assert guest.get(NMIS) == 1
    record = await guest.run()
    assert (record.reason, guest.get(NMIS), guest.page.interruptibility & BLOCKED_BY_NMI) == (ExitReason.IO, 2, 0)


async def test_the_holder_injects_an_nmi(bench: Any) -> None:
    """An NMI as an event of the run page waits while another is handled, and is delivered at its end."""
    guest = await bench.guest("kernel_closed")
    guest.gate(2, "handler_nmi", 0x400)
    guest.page.rdi, guest.page.r8 = NMIS, 2
    guest.page.event = 2 | EVENT_NMI | EVENT_VALID
    assert (await guest.run(300)).reason == ExitReason.BUDGET
    assert (guest.page.event, guest.get(NMIS)) == (0, 1)
    guest.page.event = 2 | EVENT_NMI | EVENT_VALID
    assert (await guest.run(300)).reason == ExitReason.BUDGET
    assert (guest.page.event & EVENT_VALID, guest.get(NMIS)) == (EVENT_VALID, 1)
    while guest.get(NMIS) < 2:
        assert (await guest.run(500)).reason in (ExitReason.BUDGET, ExitReason.IO)
    assert guest.page.event == 0


async def test_an_nmi_waits_for_the_second_stage(bench: Any) -> None:
    """When the handler's stack is not backed the exit is a violation, and the NMI is delivered once it is."""
    guest = await bench.guest("kernel_closed")
    guest.gate(2, "handler_nmi", 0x400)
    guest.page.rdi, guest.page.r8 = NMIS, 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    stack = guest.kernel[KERNEL_STACK_TOP - 0x1000]
    backing = bench.bus.load64(guest.ept.entry(stack))
    bench.bus.store64(guest.ept.entry(stack), 0)
    await bench.cpu.Shootdown(pb.ShootdownRequest(eptp=guest.context.eptp))
    await bench.signal(guest.context, kind=NMI)
    record = await guest.run()
    assert (record.reason, record.gpa & ~4095, guest.get(NMIS)) == (ExitReason.EPT_VIOLATION, stack, 0)
    assert guest.page.interruptibility & BLOCKED_BY_NMI == 0
    bench.bus.store64(guest.ept.entry(stack), backing)
    assert (await guest.run()).reason == ExitReason.IO
    assert guest.get(NMIS) == 1


async def test_sti_holds_interrupts_back_for_one_instruction(bench: Any) -> None:
    """The instruction behind STI runs before an interrupt that waits; the next one does not."""
    guest = await bench.guest("kernel_shadow")
    guest.gate(VECTOR, "handler_tick", 0x400)
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    record = await guest.run()
    assert (record.reason, record.port, guest.get(TICKS)) == (ExitReason.IO, 0x80, 0)
    record = await guest.run()
    assert (record.reason, record.port, guest.get(TICKS)) == (ExitReason.IO, 0x81, 1)


async def test_vectors_for_a_context_without_an_apic(bench: Any) -> None:
    """Raised vectors become events of the run page, the highest first, one after the other."""
    guest = await bench.guest("kernel_spin")
    for number, vector in enumerate((0x41, 0x91, 0x61)):
        guest.gate(vector, "handler_tick", 0x400 + 0x40 * number)
        assert await bench.signal(guest.context, vector) == 1
    assert await bench.signal(guest.context, 0x61) == 2
    guest.page.rdi, guest.page.r8 = TICKS, 3
    record = await guest.run()
    assert (record.reason, guest.get(TICKS), guest.page.event) == (ExitReason.IO, 3, 0)


async def test_a_machine_check_has_its_handler(bench: Any) -> None:
    """With CR4.MCE it is vector 18; intercepted it exits; without either the context shuts down."""
    guest = await bench.guest("kernel_closed")
    guest.gate(18, "handler_hlt", 0x400)
    guest.page.rdi, guest.page.r8 = TICKS, 1
    guest.page.cr4 |= 1 << 6
    await guest.run(100)
    await bench.signal(guest.context, kind=MACHINE_CHECK)
    record = await guest.run()
    assert (record.reason, record.rip) == (ExitReason.HLT, KERNEL + 0x401)
    other = await bench.guest("kernel_closed", intercepts=pb.Intercepts(exceptions=1 << 18, cpuid=True))
    await bench.signal(other.context, kind=MACHINE_CHECK)
    record = await other.run()
    assert (record.reason, record.vector, record.rip) == (ExitReason.EXCEPTION, 18, KERNEL)
    third = await bench.guest("kernel_closed")
    await bench.signal(third.context, kind=MACHINE_CHECK)
    assert (await third.run()).reason == ExitReason.SHUTDOWN


async def test_a_contributory_exception_on_the_way_to_another_is_a_double_fault(bench: Any) -> None:
    """#GP injected into a guest whose gate for it is not present (#NP): vector 8, error code 0."""
    guest = await bench.guest("kernel_closed")
    guest.gate(8, "handler_hlt", 0x400)
    guest.put(KERNEL_IDT + GP * 16, gate(kind=0x0E))
    guest.page.event = GP | EVENT_EXCEPTION | EVENT_VALID
    record = await guest.run()
    assert (record.reason, record.rip, guest.get(guest.page.rsp)) == (ExitReason.HLT, KERNEL + 0x401, 0)


async def test_init_and_startup(bench: Any) -> None:
    """INIT gives a context its first registers and lets it wait; a start-up IPI ends the run and tells the page."""
    guest = await bench.guest("kernel_spin")
    await bench.apic(guest.context, 5)
    guest.page.rdi, guest.page.r8 = TICKS, 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, 0x10, STARTUP) == 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert [await bench.signal(guest.context, kind=INIT) for _ in range(2)] == [1, 2]
    await bench.begin(guest.context, sequence=9)
    await bench.signal(guest.context, kind=NMI)
    found = await wait_until_halted(bench, guest)
    assert (found.state, guest.page.activity, guest.page.rdi) == (
        pb.Context.STATE_HALTED, Activity.WAIT_FOR_STARTUP, 0,
    )  # fmt: skip
    assert await bench.signal(guest.context, 0x8A, STARTUP) == 1
    response = await bench.stream.read()
    record = guest.page.load_exit()
    assert (response.sequence, record.reason, record.vector, record.rip) == (9, ExitReason.STARTUP, 0x8A, 0x8A000)
    assert (guest.page.activity, guest.page.rip) == (Activity.ACTIVE, 0x8A000)


async def test_a_processor_starts_another(bench: Any) -> None:
    """INIT and a start-up IPI start a context in real mode at the vector's page, without an exit, if it is to be so."""
    guest = await bench.guest("kernel_spin")
    await bench.apic(guest.context, 5, starts_itself=True)
    guest.page.rdi, guest.page.r8 = TICKS, 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    await bench.signal(guest.context, kind=INIT)
    await bench.begin(guest.context, sequence=9)
    found = await wait_until_halted(bench, guest)
    assert (found.state, guest.page.activity) == (pb.Context.STATE_HALTED, Activity.WAIT_FOR_STARTUP)
    assert (guest.page.cr0, guest.page.efer, guest.page.rip) == (0x6000_0010, 0, 0xFFF0)
    guest.back(0x8A000)
    code = bytes.fromhex("8cc8b93412f4")  # mov ax, cs; mov cx, 0x1234; hlt: of 16 bits
    bench.bus.write(guest.host_of(0x8A000), code)
    assert await bench.signal(guest.context, 0x8A, STARTUP) == 1
    response = await bench.stream.read()
    record = guest.page.load_exit()
    assert (response.sequence, record.reason, record.rip) == (9, ExitReason.HLT, 6)
    assert (guest.page.rax & 0xFFFF, guest.page.rcx & 0xFFFF, guest.page.activity) == (0x8A00, 0x1234, 0)


async def test_a_process_does_not_start_itself(bench: Any) -> None:
    """Real mode is ring 0, which takes a second stage."""
    process = await bench.process("spin")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bench.apic(process.context, 5, starts_itself=True)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def wait_until_halted(bench: Any, guest: Any) -> pb.Context:
    """Returns the context once it sleeps."""
    for _ in range(3000):
        found = await bench.cpu.GetContext(pb.GetContextRequest(handle=guest.context.handle))
        assert isinstance(found, pb.Context)
        if found.state == pb.Context.STATE_HALTED:
            return found
        await bench.environment.clock.sleep_ns(10_000)
    raise AssertionError("it does not sleep")


async def test_signals_that_reach_nobody(bench: Any) -> None:
    """A handle of nobody is a result; so is an APIC that its software has switched off."""
    guest = await bench.guest("kernel_spin")
    await bench.apic(guest.context, 5)
    result = interrupts_pb2.RaiseInterruptsResponse
    assert await bench.signal(guest.context, VECTOR) == result.RESULT_DISABLED
    assert await bench.signal(guest.context, kind=NMI) == result.RESULT_REQUESTED
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=guest.context.handle))
    assert await bench.signal(guest.context, VECTOR) == result.RESULT_NO_DESTINATION


SMAP, AC, LAST_OF_STACK = 1 << 21, 1 << 18, KERNEL_STACK_TOP - 0x1000


@pytest.mark.parametrize(
    ("place", "flag", "code"),
    [
        (KERNEL_IDT, AC, 1), (KERNEL_GDT, AC, 1), (KERNEL_TSS, AC, 1), (KERNEL_IDT, 0, 1), (LAST_OF_STACK, 0, 3),
        (LAST_OF_STACK, AC, None), (None, 0, None),
    ],
)  # fmt: skip
async def test_smap_guards_the_tables(bench: Any, place: int | None, flag: int, code: int | None) -> None:
    """Tables in user pages are refused under SMAP whatever AC is; a stack in one only while AC is clear."""
    guest = await bench.guest("kernel_spin", intercepts=pb.Intercepts(exceptions=0xFFFF_FFFF, cpuid=True))
    guest.gate(VECTOR, "handler_hlt", 0x400)
    if place == KERNEL_TSS:
        guest.put(KERNEL_IDT + VECTOR * 16, gate(ist=1))
        guest.put(KERNEL_TSS + 36, struct.pack("<Q", KERNEL_STACK_TOP))
    if place is not None:
        guest.tables.map(place, guest.kernel[place], 7)
    guest.page.cr4 |= SMAP
    guest.page.rflags |= flag
    guest.page.rdi, guest.page.r8 = TICKS, 1
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    record = await guest.run(10_000)
    if code is None:
        assert (record.reason, record.rip) == (ExitReason.HLT, HANDLER + 1)
    else:
        assert (record.reason, record.error_code, record.address & ~0xFFF) == (ExitReason.PAGE_FAULT, code, place)
