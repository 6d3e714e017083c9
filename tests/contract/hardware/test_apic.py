"""Guests with a local APIC: timers, IPIs, priorities and ends of interrupts, in both ways to reach its registers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lamina.hardware.v1 import interrupts_pb2 as pb

from lamina_kit.bus.run_page import ExitReason
from lamina_kit.virtual.loop import VirtualLoop

KERNEL_DATA = 0xFFFF_8000_0001_0000
APIC_VA = 0xFFFF_8000_0007_0000
TICKS, LOG = KERNEL_DATA + 0x20, KERNEL_DATA + 0x100
P, RW = 1, 2
XAPIC, X2APIC = pb.Apic.MODE_XAPIC, pb.Apic.MODE_X2APIC
PERIODIC, MASKED = 1 << 17, 1 << 16
IPI_FIXED, IPI_NMI = 1 << 14, 1 << 14 | 4 << 8
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
MODES = [pytest.param(X2APIC, "x2", id="x2apic"), pytest.param(XAPIC, "x", id="xapic")]


async def waiting(bench: Any, program: str, apic_id: int = 0, mode: int = X2APIC, **apic: Any) -> Any:
    """Makes a guest with an APIC, a counting handler for vector 0x40, and one tick to wait for."""
    guest = await bench.guest(program, coherence_domain="vm")
    if mode == XAPIC:
        guest.tables.map(APIC_VA, 0xFEE0_0000, P | RW)
        guest.page.r15 = APIC_VA
    await bench.apic(guest.context, apic_id, mode, **apic)
    guest.gate(0x40, "handler_count_x2" if mode == X2APIC else "handler_count_x", 0x400)
    guest.page.rbx, guest.page.rsi, guest.page.rdi, guest.page.r8 = 0x40 | MASKED, 0, TICKS, 1
    return guest


def log(guest: Any) -> list[int]:
    """Returns what the logging handlers appended."""
    words = [guest.get(LOG + 8 + 8 * n) for n in range(16)]
    flat = [half for word in words for half in (word & 0xFFFF_FFFF, word >> 32)]
    return flat[: guest.get(LOG)]


def logging_gate(bench: Any, guest: Any, vector: int, place: int, program: str = "handler_log") -> None:
    """Puts a handler into the IDT that appends its vector, and 0x1000 more before it ends if it allows others."""
    guest.gate(vector, program, place)
    host = guest.host_of(guest.kernel[0xFFFF_8000_0000_0000]) + place
    code = bench.bus.read(host, 160)
    code = code.replace(bytes.fromhex("44332211"), vector.to_bytes(4, "little"))
    bench.bus.write(host, code.replace(bytes.fromhex("88776655"), (vector | 0x1000).to_bytes(4, "little")))


@pytest.mark.parametrize(("mode", "prefix"), MODES)
@pytest.mark.parametrize("periodic", [False, True])
async def test_a_kernel_counts_the_ticks_of_its_timer(bench: Any, mode: int, prefix: str, periodic: bool) -> None:
    """The timer interrupts without an exit, as often as the guest armed it, and the state says so."""
    guest = await waiting(bench, f"{prefix}_wait", mode=mode)
    wanted, is_virtual = 5 if periodic else 1, isinstance(asyncio.get_running_loop(), VirtualLoop)
    guest.page.rbx, guest.page.rsi, guest.page.r8 = 0x40 | (PERIODIC if periodic else 0), 200_000, wanted
    record = await guest.run()
    assert (record.reason, record.port) == (ExitReason.IO, 0x80)
    ticks = guest.get(TICKS)
    assert ticks == wanted or (periodic and not is_virtual and ticks > wanted)
    state = await bench.state(guest.context)
    assert (state.delivered, state.timer_vector, list(state.in_service)) == (ticks, 0x40, [])
    assert state.timer_interrupts >= wanted
    assert state.HasField("timer_deadline_ns") == periodic
    if mode == XAPIC:
        assert (guest.page.rdx > 0) == periodic


async def test_a_masked_timer_interrupts_nobody(bench: Any) -> None:
    """A masked entry of the vector table: the timer counts, its end requests nothing."""
    guest = await waiting(bench, "x2_wait")
    guest.page.rsi = 1000
    assert (await guest.run(20_000)).reason == ExitReason.BUDGET
    state = await bench.state(guest.context)
    assert (guest.get(TICKS), state.delivered, list(state.requested)) == (0, 0, [])
    assert not state.HasField("timer_deadline_ns")


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(("mode", "prefix"), MODES)
@pytest.mark.parametrize("logical", [False, True])
async def test_an_ipi_reaches_the_other_context(power: Any, mode: int, prefix: str, cores: int, logical: bool) -> None:
    """A context that spins takes the IPI of another one, on one core and on two, by physical and logical address."""
    service, bench = await power(cores=cores)
    receiver = await waiting(bench, f"{prefix}_wait", 3, mode)
    sender = await waiting(bench, f"{prefix}_ipi", 1, mode)
    target = 3
    if logical and mode == X2APIC:
        target = 1 << 3
    elif logical:
        target = 0x08
        bench.bus.store64((await apic_of(bench, receiver)).page_address + 0xD0, 0x08 << 24)
    sender.page.rbx, sender.page.rsi = 0x40 | IPI_FIXED | (1 << 11 if logical else 0), target
    if mode == XAPIC:
        sender.page.rsi <<= 24
    await bench.begin(receiver.context, sequence=77)
    await bench.begin(sender.context, sequence=78)
    ended = {(await bench.stream.read()).sequence for _ in range(2)}
    assert ended == {77, 78}
    assert (receiver.get(TICKS), sender.get(TICKS)) == (1, 0)
    assert (await bench.state(sender.context)).ipis_sent == 1
    assert (await bench.state(receiver.context)).delivered == 1
    await service.stop()


async def apic_of(bench: Any, guest: Any) -> pb.Apic:
    """Returns a guest's APIC."""
    found = await bench.interrupts.GetApic(pb.GetApicRequest(handle=guest.context.handle))
    assert isinstance(found, pb.Apic)
    return found


@pytest.mark.parametrize(("shorthand", "mine", "others"), [(SELF, 1, 0), (ALL, 1, 1), (OTHERS, 0, 1)])
async def test_shorthands_of_an_ipi(bench: Any, shorthand: int, mine: int, others: int) -> None:
    """Self, all, and all but self."""
    guests = [await waiting(bench, "x2_ipi", number) for number in range(3)]
    for guest in guests[1:]:
        bench.bus.store64((await apic_of(bench, guest)).page_address + 0xF0, 0x1FF)
    guests[0].page.rbx = 0x40 | IPI_FIXED | shorthand
    assert (await guests[0].run()).reason == ExitReason.IO
    await guests[0].run(1000)
    assert guests[0].get(TICKS) == mine
    for guest in guests[1:]:
        requested = list((await bench.state(guest.context)).requested)
        assert requested == ([0x40] if others else [])


async def test_higher_vectors_come_first(bench: Any) -> None:
    """Three vectors that wait are delivered by priority, each after the end of the one before."""
    guest = await waiting(bench, "x2_self")
    for place, vector in ((0x400, 0x51), (0x500, 0x72), (0x600, 0x63)):
        logging_gate(bench, guest, vector, place)
    guest.page.rbx, guest.page.rsi, guest.page.r8 = 0x51, 0x72, 0x63
    assert (await guest.run()).reason == ExitReason.IO
    assert log(guest) == [0x72, 0x63, 0x51]
    state = await bench.state(guest.context)
    assert (list(state.requested), list(state.in_service), state.delivered) == ([], [], 3)


async def test_only_a_higher_class_interrupts_a_handler(bench: Any) -> None:
    """A handler that allows interrupts is interrupted by a higher class, not by its own; then it goes on."""
    guest = await waiting(bench, "x2_wait")
    logging_gate(bench, guest, 0x51, 0x400, "handler_log_open")
    logging_gate(bench, guest, 0x58, 0x500)
    logging_gate(bench, guest, 0x61, 0x600)
    assert (await guest.run(200)).reason == ExitReason.BUDGET
    await bench.signal(guest.context, 0x51)
    while len(log(guest)) < 1:
        assert (await guest.run(1)).reason == ExitReason.BUDGET
    assert list((await bench.state(guest.context)).in_service) == [0x51]
    await bench.signal(guest.context, 0x58)
    await bench.signal(guest.context, 0x61)
    await guest.run(2000)
    assert log(guest) == [0x51, 0x61, 0x1051, 0x58]


async def test_the_task_priority_holds_interrupts_back(bench: Any) -> None:
    """A class at or below TPR waits until the guest lowers it."""
    guest = await waiting(bench, "x2_task")
    logging_gate(bench, guest, 0x51, 0x400)
    guest.page.rbx, guest.page.rsi = 0x50, 3000
    assert (await guest.run(2000)).reason == ExitReason.BUDGET
    assert (await bench.state(guest.context)).task_priority == 0x50
    await bench.signal(guest.context, 0x51)
    assert (await guest.run(2000)).reason == ExitReason.BUDGET
    assert (log(guest), list((await bench.state(guest.context)).requested)) == ([], [0x51])
    assert (await guest.run()).reason == ExitReason.IO
    assert log(guest) == [0x51]


async def test_the_end_of_a_level_interrupt_exits(bench: Any) -> None:
    """With its bit in `end_exits` the end of an interrupt ends the run; the others end without an exit."""
    words = [0, 1 << (0x41 - 0x40), 0, 0]
    guest = await waiting(bench, "x2_wait", end_exits=words)
    guest.gate(0x41, "handler_count_x2", 0x500)
    guest.page.r8 = 2
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert [await bench.signal(guest.context, vector) for vector in (0x41, 0x40)] == [1, 1]
    record = await guest.run()
    assert (record.reason, record.vector) == (ExitReason.END_OF_INTERRUPT, 0x41)
    assert guest.get(TICKS) in (1, 2)
    assert (await guest.run()).reason == ExitReason.IO
    assert guest.get(TICKS) == 2


async def test_an_interrupt_posted_while_the_context_runs(bench: Any) -> None:
    """A context that spins takes what is posted to it, without an exit; the same vector twice is one."""
    guest = await waiting(bench, "x2_wait")
    guest.page.r8 = 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    await bench.begin(guest.context, sequence=5)
    results = [await bench.signal(guest.context, 0x40), await bench.signal(guest.context, 0x40)]
    response = await bench.stream.read()
    assert (response.sequence, response.reason) == (5, ExitReason.IO)
    assert results[0] == pb.RaiseInterruptsResponse.RESULT_REQUESTED
    assert guest.get(TICKS) >= 1


async def test_what_is_pending_merges(bench: Any) -> None:
    """A vector that waits already is one with the next; the results say it, for NMIs as well."""
    guest = await waiting(bench, "x2_wait")
    await guest.run(100)
    assert [await bench.signal(guest.context, 0x40) for _ in range(3)] == [1, 2, 2]
    assert [await bench.signal(guest.context, kind=2) for _ in range(2)] == [1, 2]
    assert list((await bench.state(guest.context)).requested) == [0x40]


async def test_a_storm_is_bounded(bench: Any) -> None:
    """A timer with a period of one nanosecond and a thousand interrupts at once leave the guest time to run."""
    guest = await waiting(bench, "x2_wait")
    guest.page.rbx, guest.page.rsi, guest.page.r8 = 0x40 | PERIODIC, 1, 20
    many = [pb.Interrupt(context=pb.ContextSignal(handle=guest.context.handle, vector=0x40))] * 1024
    await guest.run(100)
    answer = await bench.interrupts.RaiseInterrupts(pb.RaiseInterruptsRequest(interrupts=many))
    assert sum(result == pb.RaiseInterruptsResponse.RESULT_REQUESTED for result in answer.results) <= 2
    record = await guest.run()
    assert (record.reason, guest.get(TICKS) >= 20) == (ExitReason.IO, True)


async def test_an_access_that_no_register_is_exits(bench: Any) -> None:
    """Eight bytes of the APIC's page are no register: the holder is told where."""
    guest = await waiting(bench, "x_odd", mode=XAPIC)
    guest.page.r15 = APIC_VA + 0x80
    record = await guest.run()
    assert (record.reason, record.address, record.rip) == (ExitReason.APIC_ACCESS, 0x80, 0xFFFF_8000_0000_0000)


@pytest.mark.parametrize(
    ("register", "low", "high", "refused"),
    [
        (0x808, 0x20, 0, False), (0x808, 0x100, 0, True), (0x802, 1, 0, True), (0x80B, 1, 0, True),
        (0x80E, 1, 0, True), (0x832, 1 << 18, 0, True), (0x83E, 0xB, 0, False), (0x8FF, 0, 0, True),
        (0x830, 0x1000, 0, True), (0x810, 0, 0, True), (0x80F, 0x1FF, 0, False), (0x838, 7, 0, False),
    ],
)  # fmt: skip
async def test_registers_of_x2apic(bench: Any, register: int, low: int, high: int, refused: bool) -> None:
    """WRMSR of a reserved bit or of what is no register raises #GP on the instruction; others read back."""
    guest = await waiting(bench, "x2_msr")
    guest.gate(13, "handler_hlt", 0x400)
    guest.page.rbx, guest.page.rsi, guest.page.r8 = register, low, high
    record = await guest.run()
    if refused:
        assert (record.reason, record.rip) == (ExitReason.HLT, 0xFFFF_8000_0000_0401)
        assert (guest.get(guest.page.rsp), guest.get(guest.page.rsp + 8)) == (0, 0xFFFF_8000_0000_0007)
    else:
        assert record.reason == ExitReason.IO
        assert guest.page.rax == low or register == 0x838
