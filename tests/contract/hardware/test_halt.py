"""HLT that does not exit: the context leaves its core, its run stays open, and something wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2, interrupts_pb2
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_kit.bus.run_page import Activity, ExitReason
from lamina_kit.virtual.loop import VirtualLoop

KERNEL_DATA = 0xFFFF_8000_0001_0000
TICKS, NMIS = KERNEL_DATA + 0x20, KERNEL_DATA + 0x40
PERIODIC, MASKED, IPI_FIXED = 1 << 17, 1 << 16, 1 << 14
HALTED, IDLE = pb.Context.STATE_HALTED, pb.Context.STATE_IDLE
NMI = 2


@pytest.fixture
async def bench(power: Any) -> AsyncIterator[Any]:
    """Returns a machine of two cores whose contexts' controls can be reached."""
    service, found = await power(cores=2)
    yield found
    await service.stop()


async def sleeper(bench: Any, program: str, apic_id: int = 0, **wish: Any) -> Any:
    """Makes a guest that does not exit for HLT, with an APIC and counting handlers, waiting for one tick."""
    guest = await bench.guest(program, **wish)
    controls = exit_controls_pb2.ExitControls(
        instructions=[exit_controls_pb2.TRAPPED_INSTRUCTION_CPUID],
        ports=exit_controls_pb2.PortControls(all=True),
    )
    await bench.cpu.SetExitControls(
        exit_controls_pb2.SetExitControlsRequest(handle=guest.context.handle, controls=controls)
    )
    await bench.apic(guest.context, apic_id)
    guest.gate(0x40, "handler_count_x2", 0x400)
    guest.gate(2, "handler_nmi", 0x500)
    guest.page.rbx, guest.page.rsi, guest.page.rdi, guest.page.r8 = 0x40 | MASKED, 0, TICKS, 1
    return guest


async def state(bench: Any, guest: Any) -> pb.Context:
    """Returns the context."""
    found = await bench.cpu.GetContext(pb.GetContextRequest(handle=guest.context.handle))
    assert isinstance(found, pb.Context)
    return found


async def asleep(bench: Any, guest: Any) -> None:
    """Waits until the context sleeps."""
    for _ in range(3000):
        if (await state(bench, guest)).state == HALTED:
            return
        await bench.environment.clock.sleep_ns(10_000)
    raise AssertionError("it does not sleep")


async def test_a_kernel_sleeps_between_ticks(bench: Any) -> None:
    """Five ticks of a periodic timer, with HLT in between: few instructions in all that time."""
    guest = await sleeper(bench, "x2_halt")
    guest.page.rbx, guest.page.rsi, guest.page.r8 = 0x40 | PERIODIC, 2_000_000, 5
    record = await guest.run()
    ticks, is_virtual = guest.get(TICKS), isinstance(asyncio.get_running_loop(), VirtualLoop)
    assert (record.reason, ticks == 5 if is_virtual else ticks >= 5) == (ExitReason.IO, True)
    assert guest.response.instructions < 40 * ticks
    assert (await bench.state(guest.context)).delivered == ticks


async def test_what_sleeps_costs_nothing(bench: Any) -> None:
    """It has no core and nothing on the loop; others run; its run is open until it is woken."""
    guest = await sleeper(bench, "x2_halt")
    await bench.begin(guest.context, sequence=4)
    await asleep(bench, guest)
    assert guest.page.activity == Activity.HALTED
    cores = (await bench.cpu.ListCores(pb.ListCoresRequest())).cores
    assert [core.state for core in cores] == [pb.Core.STATE_IDLE] * 2
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        assert loop.next_timer_ns is None
    before = (await state(bench, guest)).counters.instructions
    busy = await bench.process("count")
    await bench.begin(busy.context, sequence=5)
    assert (await bench.stream.read()).sequence == 5
    assert (await state(bench, guest)).counters.instructions == before
    assert await bench.signal(guest.context, 0x40) == 1
    response = await bench.stream.read()
    assert (response.sequence, response.reason, guest.get(TICKS)) == (4, ExitReason.IO, 1)


@pytest.mark.parametrize("cores", [1, 2])
async def test_an_ipi_wakes(power: Any, cores: int) -> None:
    """A context that sleeps is woken by the IPI of another, on one core and on two."""
    service, bench = await power(cores=cores)
    guest = await sleeper(bench, "x2_halt", 3, coherence_domain="vm")
    sender = await bench.guest("x2_ipi", coherence_domain="vm")
    await bench.apic(sender.context, 1)
    sender.page.rbx, sender.page.rsi = 0x40 | IPI_FIXED, 3
    await bench.begin(guest.context, sequence=4)
    await asleep(bench, guest)
    await bench.begin(sender.context, sequence=5)
    assert {(await bench.stream.read()).sequence for _ in range(2)} == {4, 5}
    assert guest.get(TICKS) == 1
    await service.stop()


async def test_a_masked_flag_keeps_it_asleep(bench: Any) -> None:
    """With IF clear a vector does not wake; an NMI does."""
    guest = await sleeper(bench, "kernel_halt_closed")
    await switch_on(bench, guest)
    guest.page.rdi = NMIS
    await bench.begin(guest.context, sequence=4)
    await asleep(bench, guest)
    assert await bench.signal(guest.context, 0x40) == 1
    found = await state(bench, guest)
    assert (found.state, guest.get(TICKS)) == (HALTED, 0)
    assert await bench.signal(guest.context, kind=NMI) == 1
    response = await bench.stream.read()
    assert (response.reason, guest.get(NMIS), guest.get(TICKS)) == (ExitReason.IO, 1, 0)
    assert list((await bench.state(guest.context)).requested) == [0x40]


async def switch_on(bench: Any, guest: Any) -> None:
    """Switches a guest's APIC on, as its software would."""
    found = await bench.interrupts.GetApic(interrupts_pb2.GetApicRequest(handle=guest.context.handle))
    bench.bus.store64(found.page_address + 0xF0, 0x1FF)


async def test_an_interrupt_before_hlt_is_not_lost(bench: Any) -> None:
    """What waits when STI and HLT come is delivered behind HLT: the context does not sleep on it."""
    guest = await sleeper(bench, "kernel_halt")
    await switch_on(bench, guest)
    assert await bench.signal(guest.context, 0x40) == 1
    assert ((await guest.run()).reason, guest.get(TICKS)) == (ExitReason.IO, 1)


async def test_a_kick_ends_the_run_of_what_sleeps(bench: Any) -> None:
    """The run ends as cancelled, still halted; the next run sleeps on, and its deletion ends that one."""
    guest = await sleeper(bench, "kernel_halt")
    await bench.begin(guest.context, sequence=4)
    await asleep(bench, guest)
    kicked = await bench.cpu.KickContext(pb.KickContextRequest(handle=guest.context.handle))
    response = await bench.stream.read()
    assert (kicked.was_active, response.sequence, response.reason) == (True, 4, ExitReason.CANCELED)
    assert ((await state(bench, guest)).state, guest.page.activity) == (IDLE, Activity.HALTED)
    await bench.begin(guest.context, sequence=5)
    await asleep(bench, guest)
    assert (await state(bench, guest)).counters.instructions == response.instructions
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=guest.context.handle))
    response = await bench.stream.read()
    assert (response.sequence, response.reason) == (5, ExitReason.CANCELED)


async def test_an_event_of_the_holder_wakes(bench: Any) -> None:
    """A context without an APIC that sleeps takes the vector that is raised for it."""
    guest = await sleeper(bench, "kernel_halt")
    await bench.interrupts.ConfigureApic(
        interrupts_pb2.ConfigureApicRequest(
            apic=interrupts_pb2.Apic(handle=guest.context.handle, mode=interrupts_pb2.Apic.MODE_NONE)
        )
    )
    guest.gate(0x40, "handler_tick", 0x400)
    await bench.begin(guest.context, sequence=4)
    await asleep(bench, guest)
    assert await bench.signal(guest.context, 0x40) == 1
    response = await bench.stream.read()
    assert (response.reason, guest.get(TICKS)) == (ExitReason.IO, 1)
