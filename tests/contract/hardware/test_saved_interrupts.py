"""Saved and restored with a context: its APIC, the APIC's timer, and interrupts that wait."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2, interrupts_pb2
from lamina.hardware.v1 import registers_pb2 as pb
from tests.contract.hardware.device_bench import reason

from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason

DATA = 0xFFFF_8000_0001_0000
TICKS, NMIS = DATA + 0x20, DATA + 0x40
VECTOR, LOW_VECTOR, NMI = 0x61, 0x40, 2
TPR, SVR, LVT_TIMER, TIMER_INITIAL = 0x80, 0xF0, 0x320, 0x380
PERIODIC = 1 << 17
X2APIC, XAPIC = interrupts_pb2.Apic.MODE_X2APIC, interrupts_pb2.Apic.MODE_XAPIC


async def prepare(bench: Any, program: str, apic_id: int, mode: Any = X2APIC, **registers: int) -> Any:
    """Makes a guest with an APIC that is on and handlers that count; it does not exit for HLT."""
    guest = await bench.guest(program)
    controls = exit_controls_pb2.ExitControls(ports=exit_controls_pb2.PortControls(all=True))
    await bench.cpu.SetExitControls(
        exit_controls_pb2.SetExitControlsRequest(handle=guest.context.handle, controls=controls)
    )
    guest.apic = await bench.apic(guest.context, apic_id, mode)
    bench.bus.store64(guest.apic.page_address + SVR, 0x1FF)
    for vector in (LOW_VECTOR, VECTOR):
        guest.gate(vector, "handler_count_x2", 0x400)
    guest.gate(2, "handler_nmi", 0x500)
    for name, value in registers.items():
        setattr(guest.page, name, value)
    return guest


async def save(bench: Any, guest: Any) -> pb.ContextState:
    """Returns a context's state."""
    found = await bench.cpu.SaveContext(pb.SaveContextRequest(handle=guest.context.handle))
    assert isinstance(found, pb.ContextState)
    return found


def restore(bench: Any, guest: Any, state: pb.ContextState) -> Any:
    """Begins to give a context a state."""
    return bench.cpu.RestoreContext(pb.RestoreContextRequest(handle=guest.context.handle, state=state))


@pytest.mark.parametrize("mode", [X2APIC, XAPIC])
async def test_the_apic_moves_with_the_context(bench: Any, mode: Any) -> None:
    """What is requested, the priority and the mask move; id and pages are the receiver's; again changes nothing."""
    guest, other = [await prepare(bench, "kernel_closed", number, mode) for number in (3, 5)]
    bench.bus.store64(guest.apic.page_address + TPR, 0x50)
    for vector in (LOW_VECTOR, VECTOR):
        assert await bench.signal(guest.context, vector) == 1
    assert await bench.signal(other.context, 0x77) == 1
    state = await save(bench, guest)
    assert await save(bench, guest) == state
    for _ in range(2):
        await restore(bench, other, state)
        found = await bench.interrupts.GetApic(interrupts_pb2.GetApicRequest(handle=other.context.handle))
        assert (list(found.state.requested), found.state.task_priority) == ([LOW_VECTOR, VECTOR], 0x50)
        assert (found.apic_id, found.page_address) == (5, other.apic.page_address)
        wanted_id = 5 if mode == X2APIC else 5 << 24
        assert bench.bus.load64(found.page_address + 0x20) & 0xFFFF_FFFF == wanted_id
    assert (await save(bench, other)).data != b"" and await save(bench, guest) == state


async def test_what_waits_is_delivered_by_the_receiver(bench: Any) -> None:
    """A vector and an NMI that were raised before the context was saved reach its handlers where it goes on."""
    guest = await prepare(bench, "kernel_spin", 1, rdi=TICKS, r8=1)
    assert await bench.signal(guest.context, VECTOR) == 1
    assert await bench.signal(guest.context, kind=NMI) == 1
    other = await prepare(bench, "kernel_spin", 2)
    cr3 = other.page.cr3
    await restore(bench, other, await save(bench, guest))
    other.page.cr3 = cr3
    other.page.dirty = DIRTY_ALL
    assert (await other.run()).reason == ExitReason.IO
    assert (other.get(TICKS), other.get(NMIS)) == (1, 1)
    assert (guest.get(TICKS), guest.get(NMIS)) == (0, 0)


async def test_what_waits_without_an_apic(bench: Any) -> None:
    """Vectors of a context that has none are pending there; they are saved, and replace those of the receiver."""
    guest, other = await bench.guest("kernel_spin"), await bench.guest("kernel_spin")
    empty = await save(bench, guest)
    assert await bench.signal(guest.context, VECTOR) == 1
    state = await save(bench, guest)
    assert state != empty
    await restore(bench, other, state)
    assert await bench.signal(other.context, VECTOR) == 2
    await restore(bench, other, empty)
    assert await bench.signal(other.context, VECTOR) == 1


@pytest.mark.inside  # the machine's clock is its own
async def test_the_timer_goes_on(bench: Any) -> None:
    """A periodic timer fires on for the receiver; for the context that was saved nothing changed."""
    guest = await prepare(bench, "x2_halt", 1, rbx=LOW_VECTOR | PERIODIC, rsi=2_000_000, rdi=TICKS, r8=2)
    assert (await guest.run()).reason == ExitReason.IO
    state = await save(bench, guest)
    other = await prepare(bench, "x2_halt", 2)
    cr3, before = other.page.cr3, bench.environment.clock.now_ns()
    await restore(bench, other, state)
    found = (await bench.state(other.context)).timer_deadline_ns
    assert before < found <= bench.environment.clock.now_ns() + 2_000_000 + 1
    assert bench.bus.load64(other.apic.page_address + TIMER_INITIAL) & 0xFFFF_FFFF == 2_000_000
    other.page.cr3 = cr3
    other.page.rip = 0xFFFF_8000_0000_0000 + len(other_start())
    other.page.rdi, other.page.r8 = TICKS, 2
    other.page.dirty = DIRTY_ALL
    assert (await other.run()).reason == ExitReason.IO
    assert other.get(TICKS) >= 2


def other_start() -> bytes:
    """Returns the part of `x2_halt` before STI: it would start the timer anew."""
    return bytes.fromhex("b90f080000b8ff01000031d20f30b93208000089d80f30b93e080000b80b0000000f30b93808000089f00f30")


async def test_an_apic_of_another_kind_is_refused(bench: Any) -> None:
    """A state fits a context whose APIC has its mode, or both have none; else nothing changes."""
    x2, x, none = await prepare(bench, "hlt", 1), await prepare(bench, "hlt", 2, XAPIC), await bench.guest("hlt")
    states = [await save(bench, guest) for guest in (x2, x, none)]
    for index, guest in enumerate((x2, x, none)):
        for other, state in enumerate(states):
            if index == other:
                await restore(bench, guest, state)
            else:
                assert await reason(restore(bench, guest, state)) == ("FAILED_PRECONDITION", "APIC_MISMATCH")
        assert await save(bench, guest) == states[index]
