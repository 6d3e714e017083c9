"""Interrupts that exit, and windows, of a context with a local APIC."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2 as pb

from lamina_kit.bus.run_page import BLOCKED_BY_NMI, DIRTY_ALL, EVENT_EXTERNAL, EVENT_VALID, Activity, ExitReason

DATA = 0xFFFF_8000_0001_0000
TICKS, NMIS = DATA + 0x20, DATA + 0x40
VECTOR, NMI = 0x41, 2
_FLAG_IF = 0x200


async def choose(bench: Any, guest: Any, **wanted: bool) -> None:
    """Gives a context its controls; HLT does not exit, ports do."""
    controls = pb.ExitControls(ports=pb.PortControls(all=True), **wanted)  # type: ignore[arg-type]
    await bench.cpu.SetExitControls(pb.SetExitControlsRequest(handle=guest.context.handle, controls=controls))


async def prepare(bench: Any, program: str, counter: int = TICKS, **wanted: bool) -> Any:
    """Makes a guest whose APIC is on, with handlers that count, until a counter is 1; it ran its first instructions."""
    guest = await bench.guest(program)
    await choose(bench, guest, **wanted)
    made = await bench.apic(guest.context, 0)
    bench.bus.store64(made.page_address + 0xF0, 0x1FF)
    guest.gate(VECTOR, "handler_count_x2", 0x400)
    guest.gate(2, "handler_nmi", 0x500)
    guest.page.rdi, guest.page.r8 = counter, 1
    return guest


@pytest.mark.parametrize("program", ["kernel_spin", "kernel_closed"])
async def test_an_external_interrupt_exits(bench: Any, program: str) -> None:
    """It is acknowledged and told, whatever IF says, and does not go through the IDT; the holder may inject it."""
    guest = await prepare(bench, program, external_interrupts=True)
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, VECTOR) == 1
    record = await guest.run(100)
    state = await bench.state(guest.context)
    assert (record.reason, record.vector, guest.get(TICKS)) == (ExitReason.EXTERNAL_INTERRUPT, VECTOR, 0)
    assert (list(state.requested), list(state.in_service)) == ([], [VECTOR])
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    guest.page.event = VECTOR | EVENT_EXTERNAL | EVENT_VALID
    guest.page.rflags |= _FLAG_IF
    guest.page.dirty = DIRTY_ALL
    assert ((await guest.run()).reason, guest.get(TICKS)) == (ExitReason.IO, 1)
    assert list((await bench.state(guest.context)).in_service) == []


async def test_an_external_interrupt_goes_through_the_idt_otherwise(bench: Any) -> None:
    """Without the control the handler runs and nothing exits."""
    guest = await prepare(bench, "kernel_spin")
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, VECTOR) == 1
    assert ((await guest.run()).reason, guest.get(TICKS)) == (ExitReason.IO, 1)


async def test_an_external_interrupt_ends_the_run_of_what_sleeps(bench: Any) -> None:
    """A context that sleeps with IF clear exits for an interrupt that is to exit."""
    guest = await prepare(bench, "kernel_halt_closed", external_interrupts=True)
    await bench.begin(guest.context, sequence=9)
    for _ in range(3000):
        if guest.page.activity == Activity.HALTED:
            break
        await bench.environment.clock.sleep_ns(10_000)
    assert await bench.signal(guest.context, VECTOR) == 1
    response = await bench.stream.read()
    assert (response.sequence, response.reason) == (9, ExitReason.EXTERNAL_INTERRUPT)


@pytest.mark.parametrize("exits", [True, False])
async def test_an_nmi_exits_or_is_handled(bench: Any, exits: bool) -> None:
    """With the control it ends the run and blocks nothing; without it goes through the IDT."""
    guest = await prepare(bench, "kernel_closed", NMIS, nmis=exits)
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, kind=NMI) == 1
    record = await guest.run()
    if exits:
        assert (record.reason, record.vector, guest.get(NMIS)) == (ExitReason.NMI, 2, 0)
        assert not guest.page.interruptibility & BLOCKED_BY_NMI
        assert (await guest.run(100)).reason == ExitReason.BUDGET
    else:
        assert (record.reason, guest.get(NMIS)) == (ExitReason.IO, 1)


async def test_the_interrupt_window_comes_before_what_waits(bench: Any) -> None:
    """The window opens with IF, at each run again; a vector that waits is delivered once the control is gone."""
    guest = await prepare(bench, "kernel_spin", interrupt_window=True)
    assert await bench.signal(guest.context, VECTOR) == 1
    for _ in range(2):
        record = await guest.run()
        assert (record.reason, guest.get(TICKS)) == (ExitReason.INTERRUPT_WINDOW, 0)
    assert guest.page.rflags & _FLAG_IF
    assert list((await bench.state(guest.context)).requested) == [VECTOR]
    await choose(bench, guest)
    assert ((await guest.run()).reason, guest.get(TICKS)) == (ExitReason.IO, 1)


async def test_the_nmi_window_opens_behind_the_handler(bench: Any) -> None:
    """While an NMI is handled there is no window; it opens with the handler's IRET, before the NMI that waits."""
    guest = await prepare(bench, "kernel_closed", NMIS)
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert await bench.signal(guest.context, kind=NMI) == 1
    assert (await guest.run(100)).reason == ExitReason.BUDGET
    assert guest.page.interruptibility & BLOCKED_BY_NMI
    await choose(bench, guest, nmi_window=True)
    assert await bench.signal(guest.context, kind=NMI) == 1
    record = await guest.run()
    assert (record.reason, guest.get(NMIS)) == (ExitReason.NMI_WINDOW, 1)
    assert record.instructions_retired > 1000 and not guest.page.interruptibility & BLOCKED_BY_NMI


async def test_no_window_while_the_flag_is_clear(bench: Any) -> None:
    """With IF clear there is no interrupt window, however long it runs."""
    guest = await prepare(bench, "kernel_closed", interrupt_window=True)
    assert (await guest.run(5000)).reason == ExitReason.BUDGET
