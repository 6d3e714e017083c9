"""The life of a vCPU: where its time goes, why its slices end, who wakes whom, what each exit changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.hypervisor.conftest import Stuck, run

from lamina_hypervisor.domain.exits.time_slices import SliceEnd
from lamina_hypervisor.domain.memory.addresses import Gpa, Hpa
from lamina_hypervisor.domain.memory.hold import Granted, Refused, Revocation
from lamina_hypervisor.domain.vcpus.vcpu import VcpuState
from lamina_hypervisor.domain.vm import Verdict
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.interface import standing_key
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_kit.bus.run_page import (
    ExitReason,
)
from lamina_kit.effects import WaitFor
from lamina_kit.errors import NotFound, ResourceExhausted

Make = Callable[..., ModelMachine]
IF = 1 << 9


def woken(world: Any) -> list[tuple[str, ...]]:
    """Keys that were woken, in order."""
    return [effect.key for effect in world.performed(effects.Wake)]


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_add_up(world: Any, make_machine: Make, leave: Any) -> None:
    """A vCPU counts its exits, instructions, time on the core and time it waited for one, and where it was last."""
    machine = make_machine()
    assert machine.vcpus[0].last_core == -1
    run(world, machine, leave(ExitReason.BUDGET), leave(ExitReason.BUDGET))
    vcpu = machine.vcpus[0]
    assert (vcpu.exits, vcpu.instructions, vcpu.last_core) == (2, 20, 1)
    assert (vcpu.times.run, vcpu.times.steal) == (4000, 1000)
    assert (vcpu.times.halt, vcpu.times.memory_wait) == (0, 0)
    assert machine.ledger.total() == 2
    assert machine.ledger.total_host_time_ns() > 0


def test_a_refused_run_was_on_no_core(world: Any, make_machine: Make, leave: Any) -> None:
    """A run that its core refused counts as an exit and begins no slice."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.REFUSED))
    assert (machine.vcpus[0].last_core, machine.vcpus[0].exits) == (-1, 1)
    assert world.slices.latest(9) == []


def test_waiting_is_time_too(world: Any, make_machine: Make, leave: Any) -> None:
    """Time halted and time that memory took are counted, each on its own, and never less than nothing."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=2))
    vcpu = machine.vcpus[0]
    assert vcpu.times.memory_wait > 0
    assert vcpu.times.halt == 0
    taken = vcpu.times.memory_wait
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=2))
    assert vcpu.times.memory_wait == taken, "the page was there"
    vcpu.state, vcpu.woken = VcpuState.HALTED, True
    run(world, machine, leave(ExitReason.BUDGET))
    assert vcpu.times.halt > 0
    assert not vcpu.woken


@pytest.mark.parametrize(
    ("reason", "fields", "end"),
    [
        (ExitReason.BUDGET, {}, SliceEnd.EXPIRED),
        (ExitReason.CANCELED, {}, SliceEnd.STOPPED),
        (ExitReason.HYPERCALL, {"rax": 1, "cpl": 0}, SliceEnd.YIELDED),
        (ExitReason.HYPERCALL, {"rax": 0, "cpl": 0}, SliceEnd.STOPPED),
        (ExitReason.HLT, {"rflags": IF}, SliceEnd.HALTED),
        (ExitReason.HLT, {"rflags": 2}, SliceEnd.HALTED),
        (ExitReason.EPT_VIOLATION, {"gpa": 0x5000, "access": 1}, SliceEnd.MEMORY),
        (ExitReason.SHUTDOWN, {}, SliceEnd.STOPPED),
        (ExitReason.CPUID, {"rax": 0}, SliceEnd.OPEN),
        (ExitReason.TIMESTAMP, {}, SliceEnd.OPEN),
    ],
)
def test_each_exit_ends_its_slice_in_its_way(
    world: Any, make_machine: Make, leave: Any, reason: ExitReason, fields: dict[str, int], end: SliceEnd
) -> None:
    """A slice says why it ended; an exit that is answered at once ends none."""
    machine = make_machine()
    run(world, machine, leave(reason, **fields))
    assert [entry.end for entry in world.slices.latest(9)] == [end]


def test_a_budget_that_is_used_up_goes_on_in_a_new_slice(world: Any, make_machine: Make, leave: Any) -> None:
    """The vCPU runs on after its budget and after a yield, each time in another slice."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.BUDGET), leave(ExitReason.HYPERCALL, rax=1, cpl=0), leave(ExitReason.CPUID))
    assert machine.vcpus[0].timer.count == 3


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("access", "need"), [(1, "read"), (2, "write"), (3, "execute"), (9, "read")])
def test_violations_are_counted_by_access(world: Any, make_machine: Make, leave: Any, access: int, need: str) -> None:
    """What the guest wanted is what the ledger says; what is unknown counts as a read."""
    machine = make_machine()
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=access))
    assert machine.ledger.count(need) == 1


def test_a_page_without_the_right_is_asked_for_again(world: Any, make_machine: Make, leave: Any) -> None:
    """A page that may be read is asked for when it is to be written or executed, and not when it is read."""
    machine = make_machine()
    world.say(Granted(1, Gpa(0x5000), world._next_frame(), False, False))
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5008, access=1))
    assert world.performed(effects.Want) == []
    world.refusal = "NOT_YOURS"
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5008, access=3))
    assert [(want.gpa, want.access) for want in world.performed(effects.Want)] == [(0x5000, 3)]
    assert machine.verdict is not None
    assert (machine.verdict.reason, machine.verdict.crashed) == ("NOT_YOURS", True)
    assert "0x5000" in machine.verdict.detail


def test_the_last_byte_of_ram_is_ram(world: Any, make_machine: Make, leave: Any) -> None:
    """The last page is granted; the first byte behind it is outside, which names the vCPU, what it wanted and RAM."""
    machine = make_machine(memory=16 << 20)
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=(16 << 20) - 1, access=1))
    assert machine.verdict is None
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=16 << 20, access=3))
    assert machine.verdict is not None and machine.verdict.crashed
    assert machine.verdict.detail == (
        "vCPU 0 wants to execute guest physical address 0x1000000, where there is neither RAM (0 to 0xffffff) "
        "nor a device."
    )


def test_tables_are_kept_ahead(world: Any, make_machine: Make, leave: Any) -> None:
    """After a fault at least four spare tables are there, so that the next grants need not wait."""
    machine = make_machine()
    for number in range(6):
        run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=number << 21, access=2))
        assert machine.ept.spare >= 4
    for more in world.performed(effects.AllocateTables)[1:]:
        assert (more.owner, more.count) == (machine.owner, 4)
    assert machine.mapped_pages == 6


def test_a_grant_that_waits_for_tables_is_installed(world: Any, make_machine: Make, leave: Any) -> None:
    """A grant that came when no table was left is installed once tables came, and what it lacked was asked for."""
    machine = make_machine()
    machine.ept._spare.clear()
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=2))
    assert world.performed(effects.AllocateTables)[-1].count == 7
    assert machine.ept.translate(Gpa(0x5000), write=True) is not None
    assert machine.vcpus[0].state is VcpuState.RUNNABLE


def test_a_revocation_of_nothing_is_acknowledged_and_not_shot(world: Any, make_machine: Make) -> None:
    """Pages that are not held need no shootdown; the answer is empty, and other messages change nothing."""
    machine = make_machine()
    world.log.clear()
    world.say(Revocation(4, (Gpa(0x9000),), True))
    (answer,) = world.log
    assert (answer.vm, answer.revocation, answer.bits) == (machine.name, 4, ())
    world.log.clear()
    world.say(Refused(1, "OUT_OF_MEMORY"))
    assert world.log == []


def test_a_write_only_revocation_leaves_the_page_readable(world: Any, make_machine: Make) -> None:
    """The right to write goes and the page stays, with the shootdown on this VM's table."""
    machine = make_machine()
    world.say(Granted(1, Gpa(0x5000), world._next_frame(), True, True))
    world.log.clear()
    world.say(Revocation(4, (Gpa(0x5000),), True))
    assert machine.ept.translate(Gpa(0x5000)) is not None
    assert machine.ept.translate(Gpa(0x5000), write=True) is None
    (shot,) = world.performed(effects.Shootdown)
    assert (shot.eptp, shot.pages) == (Hpa(machine.eptp), (0x5000,))


# ── halts, wake-ups, pauses ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_wake_up_reaches_the_vcpu_that_is_named(world: Any, make_machine: Make, leave: Any) -> None:
    """The call wakes exactly the vCPU in RBX; one that does not exist is an unknown call."""
    machine = make_machine(vcpus=3)
    page = run(world, machine, leave(ExitReason.HYPERCALL, rax=2, rbx=2, cpl=0))
    assert [vcpu.woken for vcpu in machine.vcpus] == [False, False, True]
    assert woken(world) == [machine.vcpu_key(2)]
    assert page.rax == 0
    page = run(world, machine, leave(ExitReason.HYPERCALL, rax=2, rbx=3, cpl=0))
    assert page.rax == (1 << 64) - 1000
    assert machine.ledger.count("unknown") == 1


def test_serial_input_wakes_vcpu_0_alone(world: Any, make_machine: Make, leave: Any) -> None:
    """Another vCPU that is halted sleeps on; input without an enabled interrupt wakes nobody."""
    machine = make_machine(vcpus=2)
    for vcpu in machine.vcpus:
        vcpu.state = VcpuState.HALTED
    world.log.clear()
    assert world.drive(world.engine.write_serial(machine, b"ab")) == 2
    assert world.log == []
    machine.serial.write(1, 1)
    assert world.drive(world.engine.write_serial(machine, b"c")) == 3
    assert woken(world) == [machine.vcpu_key(0)]
    assert world.performed(effects.Kick) == []
    run(world, machine, leave(ExitReason.BUDGET), vcpu=1)
    assert machine.vcpus[1].exits == 0
    assert world.log[-1] == WaitFor(machine.vcpu_key(1))
    page = run(world, machine, leave(ExitReason.BUDGET), leave(ExitReason.BUDGET, event=0))
    assert machine.vcpus[0].exits == 2
    assert page.event & 0xFF in (0, 0x24)


def test_only_vcpu_0_gets_the_serial_interrupt(world: Any, make_machine: Make, leave: Any) -> None:
    """The port interrupts the first vCPU; the others never see its vector."""
    machine = make_machine(vcpus=2)
    machine.serial.write(1, 1)
    machine.serial.feed(b"x")
    page = run(world, machine, leave(ExitReason.BUDGET), vcpu=1)
    assert page.event == 0
    assert (machine.vcpus[1].offered, machine.vcpus[1].interrupts) == (False, 0)


def test_pausing_stops_those_that_run_and_wakes_those_that_sleep(world: Any, make_machine: Make) -> None:
    """Each vCPU is woken, running ones are made to exit, and the pause ends when all with power stand."""
    machine = make_machine(vcpus=3)
    machine.vcpus[1].running = True
    machine.vcpus[2].state = VcpuState.OFF
    world.log.clear()
    with pytest.raises(Stuck):
        world.drive(world.engine.pause(machine))
    assert machine.paused
    assert woken(world) == [machine.vcpu_key(number) for number in range(3)]
    assert [kick.context for kick in world.performed(effects.Kick)] == [machine.vcpus[1].context]
    assert world.log[-1] == WaitFor(standing_key(machine.name))
    machine.standing = 1
    with pytest.raises(Stuck):
        world.drive(world.engine.pause(machine))
    machine.standing = 2
    world.drive(world.engine.pause(machine))
    machine.standing = 0
    machine.end(Verdict("POWERED_OFF", ""))
    world.drive(world.engine.pause(machine))


def test_a_vcpu_stands_and_goes_on_as_it_was(world: Any, make_machine: Make, leave: Any) -> None:
    """A halted vCPU that is paused says that it stands, and after the pause is halted again; a resume wakes all."""
    machine = make_machine(vcpus=2)
    machine.vcpus[0].state = VcpuState.HALTED
    machine.paused = True
    step = world.engine.run_vcpu(machine, 0)
    assert next(step) == effects.Wake(standing_key(machine.name))
    assert machine.standing == 1
    assert step.send(None) == WaitFor(machine.vcpu_key(0))
    assert machine.vcpus[0].state is VcpuState.PAUSED
    assert step.send(None) == WaitFor(machine.vcpu_key(0)), "it was woken too early"
    world.drive(world.engine.resume(machine))
    assert woken(world) == [machine.vcpu_key(0), machine.vcpu_key(1)]
    assert step.send(None) == WaitFor(machine.vcpu_key(0))
    assert (machine.vcpus[0].state, machine.standing) == (VcpuState.HALTED, 0)
    step.close()


def test_a_vcpu_that_runs_stands_at_its_next_exit(world: Any, make_machine: Make, leave: Any) -> None:
    """A pause while a vCPU runs takes hold before its next instruction; it was running until it exited."""
    machine = make_machine()
    seen: list[bool] = []

    def pausing(page: Any) -> Any:
        seen.append(machine.vcpus[0].running)
        machine.paused = True
        return leave(ExitReason.CPUID)(page)

    run(world, machine, pausing, leave(ExitReason.CPUID))
    assert seen == [True]
    assert (machine.vcpus[0].exits, machine.vcpus[0].running) == (1, False)
    assert machine.vcpus[0].state is VcpuState.PAUSED


def test_a_machine_that_ends_lets_its_vcpus_go(world: Any, make_machine: Make, leave: Any) -> None:
    """When the verdict falls a vCPU that stands or sleeps does no more, and the first verdict counts."""
    machine = make_machine(vcpus=2)
    machine.end(Verdict("POWERED_OFF", "first"))
    machine.end(Verdict("HALTED", "second"))
    for number in (0, 1):
        world.drive(world.engine.run_vcpu(machine, number))
    assert world.performed(effects.Run) == []
    assert machine.verdict == Verdict("POWERED_OFF", "first")


def test_a_vm_is_off_when_its_last_vcpu_is(world: Any, make_machine: Make, leave: Any) -> None:
    """A vCPU that halts for good does not run again, and a halted one keeps the VM on."""
    machine = make_machine(vcpus=2)
    run(world, machine, leave(ExitReason.HLT, rflags=IF), vcpu=1)
    run(world, machine, leave(ExitReason.HLT, rflags=2))
    assert machine.verdict is None
    run(world, machine, leave(ExitReason.BUDGET))
    assert machine.vcpus[0].exits == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ResourceExhausted("full", reason="NO_FREE_FRAME"), "OUT_OF_MEMORY"),
        (NotFound("gone", reason="CONTEXT_UNKNOWN"), "HOST_UNAVAILABLE"),
    ],
)
def test_a_layer_that_fails_is_named(world: Any, make_machine: Make, leave: Any, error: Exception, reason: str) -> None:
    """Memory that is used up, and any other failure below, end the machine as a crash with the vCPU's number."""
    machine = make_machine()
    world.fail[effects.Want] = error
    run(world, machine, leave(ExitReason.EPT_VIOLATION, gpa=0x5000, access=2))
    assert machine.verdict is not None
    assert (machine.verdict.reason, machine.verdict.crashed) == (reason, True)
    assert machine.verdict.detail.startswith("vCPU 0: ")
    assert not machine.vcpus[0].running
