"""The model engine on a scripted core: what each exit leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.hypervisor.conftest import run

from lamina_hypervisor.domain.exits.time_slices import SliceEnd
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.memory.hold import Age, Granted, Revocation
from lamina_hypervisor.domain.vcpus import msr
from lamina_hypervisor.domain.vcpus.vcpu import VcpuState
from lamina_hypervisor.domain.vm import Verdict
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_hypervisor.engines.model.vcpu_loop import SERIAL_EVENT
from lamina_kit.bus.run_page import EVENT_EXCEPTION, EVENT_VALID, ExitReason
from lamina_kit.errors import FailedPrecondition, ResourceExhausted, Unavailable
from lamina_kit.paging import EPT_A, EPT_D

Make = Callable[..., ModelMachine]
IF = 1 << 9


# ── power ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_power_on_makes_tables_ram_hold_kernel_and_vcpus(world: Any, make_machine: Make) -> None:
    """The parts are made in the order in which each needs the one before."""
    machine = make_machine(vcpus=2)
    kinds = [type(effect).__name__ for effect in world.log]
    order = ["LookAtProcessor", "AllocateTables", "CreateSpace", "OpenHold", "WriteRam", "CreateRunGroup"]
    assert list(dict.fromkeys(kinds)) == [*order, "CreateContext"]
    contexts = world.performed(effects.CreateContext)
    assert [context.eptp for context in contexts] == [machine.eptp] * 2
    assert {context.domain for context in contexts} == {"hosts/h1/vms/web-1"}
    assert world.performed(effects.CreateRunGroup)[0].weight == 200


def test_vcpus_start_by_the_boot_protocol(world: Any, make_machine: Make) -> None:
    """Each run page holds the entry point, the vCPU's number and stack, and long mode."""
    machine = make_machine(vcpus=2)
    pages = [vcpu.page for vcpu in machine.vcpus]
    assert [page.rsi for page in pages] == [0, 1]
    assert [page.rip for page in pages] == [0x100000] * 2
    assert all(page.cr0 >> 31 == 1 and page.efer >> 10 & 1 == 1 and page.cr3 == 0xB0000 for page in pages)
    assert pages[0].segment("cs").selector == 8
    assert all(page.dirty for page in pages)


@pytest.mark.parametrize("kind", [effects.CreateSpace, effects.WriteRam, effects.CreateRunGroup, effects.CreateContext])
def test_a_failed_power_on_leaves_nothing_behind(world: Any, make_machine: Make, kind: type) -> None:
    """Whichever part cannot be made, the parts before are given back and the error is the layer's own."""
    world.fail[kind] = ResourceExhausted("full", reason="NO_FREE_FRAME")
    with pytest.raises(ResourceExhausted):
        make_machine()
    freed = world.performed(effects.FreeTables)
    assert [sorted(effect.frames) for effect in freed] == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert len(world.performed(effects.DeleteSpace)) == (kind is not effects.CreateSpace)
    assert len(world.performed(effects.DeleteRunGroup)) == (kind is effects.CreateContext)


def test_a_cancelled_power_on_leaves_nothing_behind(world: Any, make_machine: Make) -> None:
    """Being cancelled in the middle gives the parts back as an error does."""
    world.fail[effects.WriteRam] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        make_machine()
    kinds = [type(effect).__name__ for effect in world.log]
    assert kinds[-3:] == ["CloseHold", "DeleteSpace", "FreeTables"]


def test_power_off_frees_frames_when_no_core_can_use_them(world: Any, make_machine: Make) -> None:
    """Contexts go first, the tables' frames only then; what a layer has lost already does not stop the rest."""
    machine = make_machine()
    world.log.clear()
    world.fail[effects.DeleteContext] = FailedPrecondition("gone", reason="HANDLE_STALE")
    errors = world.drive(world.engine.power_off(machine))
    kinds = [type(effect).__name__ for effect in world.log]
    assert kinds == ["DeleteContext", "CloseHold", "DeleteSpace", "FreeTables", "DeleteRunGroup"]
    assert [error.reason for error in errors] == ["HANDLE_STALE"]


# ── exits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_out_to_the_serial_port_is_a_byte_and_a_ledger_entry(world: Any, make_machine: Make, leave: Any) -> None:
    """Output exits equal serial bytes."""
    machine = make_machine()
    outs = [leave(ExitReason.IO, port=0x3F8, io_size=1, io_direction=1, io_data=byte) for byte in b"hello"]
    run(world, machine, *outs)
    assert machine.serial_log.piece(0) == (0, b"hello")
    assert machine.ledger.count("out 0x3f8 thr") == machine.serial.sent == 5
    assert machine.ledger.instructions == 50


def test_an_in_fills_the_accumulator_to_its_width(world: Any, make_machine: Make, leave: Any) -> None:
    """IN of one byte keeps the upper bits of RAX; an unknown port reads ones."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.IO, port=0x3FD, io_size=1, io_direction=0, rax=0x1111))
    assert page.rax == 0x1160
    page = run(world, machine, leave(ExitReason.IO, port=0x9999, io_size=4, io_direction=0, rax=1 << 60))
    assert page.rax == 0xFFFF_FFFF
    assert machine.ledger.count("in unknown") == 1


def test_a_string_input_goes_to_memory_not_to_the_accumulator(world: Any, make_machine: Make, leave: Any) -> None:
    """When the exit record has a memory address, the value is left in the record and RAX stays."""
    machine = make_machine()
    record = {"port": 0x3FD, "io_size": 1, "io_direction": 0, "address": 0x5000, "rax": 7}
    page = run(world, machine, leave(ExitReason.IO, **record))
    assert page.rax == 7
    assert page.load_exit().io_data == 0x60


def test_cpuid_is_answered_with_the_vcpu_s_number(world: Any, make_machine: Make, leave: Any) -> None:
    """The dispatcher answers in RAX to RDX and marks them changed."""
    machine = make_machine(vcpus=2)
    page = run(world, machine, leave(ExitReason.CPUID, rax=1), vcpu=1)
    assert page.rbx >> 24 == 1
    assert page.rcx >> 31 == 1
    assert machine.ledger.count("leaf 0x1") == 1


def test_msrs_answer_or_raise_a_protection_fault(world: Any, make_machine: Make, leave: Any) -> None:
    """A known MSR is read into EDX:EAX; an unknown one puts RIP back and has #GP delivered."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.PAT, io_direction=0))
    assert (page.rdx, page.rax) == (0x0007_0406, 0x0007_0406)
    page = run(world, machine, leave(ExitReason.MSR, rcx=0x1234, io_direction=1, rip=0x100010))
    assert page.rip == 0x10000E
    assert page.event & EVENT_VALID and page.event & EVENT_EXCEPTION
    assert page.event & 0xFF == 13
    assert machine.ledger.count("write unknown") == 1


def test_efer_cannot_leave_long_mode(world: Any, make_machine: Make, leave: Any) -> None:
    """A write of EFER keeps long mode; reserved bits are refused."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.EFER, io_direction=1, rax=1, rdx=0))
    assert page.efer == 0x501
    page = run(world, machine, leave(ExitReason.MSR, rcx=msr.EFER, io_direction=1, rax=1 << 13, rdx=0))
    assert page.event & EVENT_VALID


def test_time_is_nanoseconds_since_the_power_on(world: Any, make_machine: Make, leave: Any) -> None:
    """RDTSC counts at 1 GHz by the stack's clock, and never goes back."""
    machine = make_machine()
    first = run(world, machine, leave(ExitReason.TIMESTAMP)).rax
    second = run(world, machine, leave(ExitReason.TIMESTAMP)).rax
    assert 0 < first < second < 1_000_000


def test_randomness_follows_from_the_seed(world: Any, make_machine: Make, leave: Any) -> None:
    """RDRAND fills the register that the exit record names and sets CF alone."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.RANDOM, access_register=9, access_size=4, rflags=0x8D6))
    assert 0 < page.gpr[9] < 1 << 32
    assert page.rflags & 0x8D5 == 1


def test_hlt_without_interrupts_powers_the_vm_off(world: Any, make_machine: Make, leave: Any) -> None:
    """When every vCPU has halted with interrupts off, nothing can ever happen again: the VM is halted."""
    machine = make_machine(vcpus=2)
    run(world, machine, leave(ExitReason.HLT, rflags=2), vcpu=1)
    assert machine.verdict is None
    assert machine.vcpus[1].state is VcpuState.OFF
    run(world, machine, leave(ExitReason.HLT, rflags=2), vcpu=0)
    assert machine.verdict is not None and machine.verdict.reason == "HALTED"
    assert not machine.verdict.crashed


def test_hlt_with_interrupts_waits_for_input(world: Any, make_machine: Make, leave: Any) -> None:
    """A halted vCPU sleeps until serial input raises its interrupt, which is then given to the core."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.HLT, rflags=IF))
    assert machine.vcpus[0].state is VcpuState.HALTED
    machine.serial.write(1, 1)
    assert world.drive(world.engine.write_serial(machine, b"x")) == 1
    page = run(world, machine, leave(ExitReason.BUDGET))
    assert page.event & EVENT_VALID and page.event & 0xFF == 0x24
    run(world, machine, leave(ExitReason.BUDGET, event=0))
    assert machine.vcpus[0].interrupts == 1


def test_an_interrupt_waits_in_the_run_page(world: Any, make_machine: Make, leave: Any) -> None:
    """With interrupts off it stands there, and is counted when the core has taken it."""
    machine = make_machine()
    machine.serial.write(1, 1)
    machine.serial.feed(b"x")
    machine.vcpus[0].page.rflags = 2
    page = run(world, machine, leave(ExitReason.BUDGET))
    assert (page.event, machine.vcpus[0].interrupts) == (SERIAL_EVENT, 0)
    page = run(world, machine, leave(ExitReason.BUDGET, event=0, rflags=IF))
    assert (page.event, machine.vcpus[0].interrupts) == (SERIAL_EVENT, 1), "the byte was not read yet"


def test_an_interrupt_is_taken_back_when_its_byte_was_read(world: Any, make_machine: Make, leave: Any) -> None:
    """A guest that polls with interrupts off is not interrupted for what it has read."""
    machine = make_machine()
    machine.serial.write(1, 1)
    machine.serial.feed(b"x")
    read = leave(ExitReason.IO, port=0x3F8, io_size=1, io_direction=0, rflags=2)
    page = run(world, machine, read, leave(ExitReason.BUDGET))
    assert (page.rax & 0xFF, page.event, machine.vcpus[0].interrupts) == (ord("x"), 0, 0)


def test_an_exception_that_is_under_way_comes_before_the_interrupt(world: Any, make_machine: Make, leave: Any) -> None:
    """The run page has room for one event: the interrupt takes the place when the exception is delivered."""
    machine = make_machine()
    machine.serial.write(1, 1)
    machine.serial.feed(b"x")
    refused = leave(ExitReason.MSR, rcx=0x1234, io_direction=1, rip=0x100010, event=0)
    page = run(world, machine, refused)
    assert page.event & 0xFF == 13
    page = run(world, machine, leave(ExitReason.BUDGET, event=0), leave(ExitReason.BUDGET))
    assert page.event == SERIAL_EVENT


def test_writing_serial_kicks_a_vcpu_that_runs(world: Any, make_machine: Make) -> None:
    """Input for a running vCPU makes it exit, so that it can take the interrupt."""
    machine = make_machine()
    machine.serial.write(1, 1)
    machine.vcpus[0].running = True
    world.drive(world.engine.write_serial(machine, b"x"))
    assert [kick.context for kick in world.performed(effects.Kick)] == [machine.vcpus[0].context]


@pytest.mark.parametrize(
    ("number", "cpl", "result", "verdict"),
    [(1, 0, 0, None), (0, 0, 0, "GUEST_POWER_OFF"), (99, 0, (1 << 64) - 1000, None), (0, 3, (1 << 64) - 1, None)],
)
def test_hypercalls(
    world: Any, make_machine: Make, leave: Any, number: int, cpl: int, result: int, verdict: str | None
) -> None:
    """Yield and power off are for ring 0; an unknown number and ring 3 get an error."""
    machine = make_machine()
    page = run(world, machine, leave(ExitReason.HYPERCALL, rax=number, cpl=cpl))
    assert (machine.verdict.reason if machine.verdict else None) == verdict
    assert page.rax == result


def test_a_wake_is_remembered_by_a_vcpu_that_is_about_to_sleep(world: Any, make_machine: Make, leave: Any) -> None:
    """A vCPU that is woken before it halts does not sleep: the wake-up is not lost."""
    machine = make_machine(vcpus=2)
    run(world, machine, leave(ExitReason.HYPERCALL, rax=2, rbx=1, cpl=0))
    assert machine.vcpus[1].woken
    run(world, machine, leave(ExitReason.HLT, rflags=IF), leave(ExitReason.BUDGET), vcpu=1)
    assert len(machine.vcpus[1].timer._ledger.latest(10)) >= 2
    assert machine.vcpus[1].exits == 2


def test_a_triple_fault_crashes_with_registers(world: Any, make_machine: Make, leave: Any) -> None:
    """The verdict holds where the vCPU stood."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.SHUTDOWN, rip=0xDEAD))
    assert machine.verdict is not None
    assert (machine.verdict.reason, machine.verdict.crashed) == ("TRIPLE_FAULT", True)
    assert machine.verdict.registers is not None and machine.verdict.registers.rip == 0xDEAD


def test_a_refused_run_ends_the_machine(world: Any, make_machine: Make, leave: Any) -> None:
    """A core that does not take the context any more is the end, not a loop."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.REFUSED))
    assert machine.verdict is not None and machine.verdict.reason == "CORE_REFUSED"


def test_a_lower_layer_that_fails_ends_the_machine(world: Any, make_machine: Make) -> None:
    """When the hardware does not answer the VM has lost its host."""
    machine = make_machine()
    world.fail[effects.Run] = Unavailable("gone", reason="CONNECTION_LOST")
    run(world, machine)
    assert machine.verdict is not None and machine.verdict.reason == "HOST_UNAVAILABLE"


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_violation_is_a_want_and_an_entry(world: Any, make_machine: Make, leave: Any) -> None:
    """The page is asked for, granted and mapped, and the slice ended because the vCPU had to wait."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5123, access=2))
    (want,) = world.performed(effects.Want)
    assert (want.gpa, want.access) == (0x5000, 2)
    assert machine.ept.translate(Gpa(0x5000), write=True) is not None
    assert machine.ledger.count("write") == 1
    assert [entry.end for entry in world.slices.latest(1)] == [SliceEnd.MEMORY]


def test_a_page_that_another_vcpu_got_is_not_asked_for_again(world: Any, make_machine: Make, leave: Any) -> None:
    """A second violation of the same page finds it mapped and goes on at once."""
    machine = make_machine(vcpus=2)
    for vcpu in (0, 1):
        run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=1), vcpu=vcpu)
    assert len(world.performed(effects.Want)) == 1


def test_an_address_beyond_ram_stops_the_vm_and_says_which(world: Any, make_machine: Make, leave: Any) -> None:
    """There is neither RAM nor a device there; the other VMs do not notice."""
    machine = make_machine(memory=16 << 20)
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=16 << 20, access=1))
    assert machine.verdict is not None
    assert machine.verdict.reason == "GUEST_ADDRESS_OUTSIDE_RAM"
    assert "0x1000000" in machine.verdict.detail
    assert world.performed(effects.Want) == []


def test_a_refused_page_ends_the_machine(world: Any, make_machine: Make, leave: Any) -> None:
    """Out of memory in the host is a crash with that name."""
    machine = make_machine()
    world.refusal = "OUT_OF_MEMORY"
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=1))
    assert machine.verdict is not None and machine.verdict.reason == "OUT_OF_MEMORY"


def test_a_revocation_is_cleared_shot_down_and_acknowledged(world: Any, make_machine: Make) -> None:
    """In this order: no core may use the entry when its bits are returned."""
    machine = make_machine()
    world.say(Granted(1, Gpa(0x5000), world._next_frame(), True, True))
    leaf = machine.ept.walk(Gpa(0x5000))[-1]
    world.ram.store(leaf.address, leaf.entry | EPT_A | EPT_D)
    world.log.clear()
    world.say(Revocation(3, (Gpa(0x5000), Gpa(0x9000)), False))
    shot, answer = world.log
    assert isinstance(shot, effects.Shootdown) and shot.pages == (0x5000,)
    assert isinstance(answer, effects.Acknowledge) and answer.revocation == 3
    assert [(page.gpa, page.accessed, page.dirty) for page in answer.bits] == [(0x5000, True, True)]
    assert machine.mapped_pages == 0


def test_ages_are_sampled_and_translations_dropped(world: Any, make_machine: Make) -> None:
    """Cleared accessed bits must be set again by the next access, so cores forget what they cached."""
    machine = make_machine()
    world.say(Granted(1, Gpa(0x5000), world._next_frame(), True, True))
    leaf = machine.ept.walk(Gpa(0x5000))[-1]
    world.ram.store(leaf.address, leaf.entry | EPT_A)
    world.log.clear()
    world.say(Age(8, (Gpa(0x5000), Gpa(0x6000))))
    world.say(Age(9, (Gpa(0x5000),)))
    kinds = [type(effect).__name__ for effect in world.log]
    assert kinds == ["Shootdown", "SendAges", "SendAges"]
    assert [effect.bits[0].accessed for effect in world.performed(effects.SendAges)] == [True, False]


# ── pausing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_paused_vcpu_stands_until_it_is_resumed(world: Any, make_machine: Make, leave: Any) -> None:
    """While paused no instruction runs; afterwards the vCPU goes on in the state it had."""
    machine = make_machine()
    machine.paused = True
    run(world, machine, leave(ExitReason.BUDGET))
    assert machine.vcpus[0].state is VcpuState.PAUSED
    assert world.performed(effects.Run) == []
    assert machine.standing == 1
    world.drive(world.engine.pause(machine))
    machine.end(Verdict("POWERED_OFF", ""))
    assert machine.verdict is not None
    machine.end(Verdict("HALTED", ""))
    assert machine.verdict.reason == "POWERED_OFF"
