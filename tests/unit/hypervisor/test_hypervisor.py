"""The hypervisor of a host above its engine: what is recorded, what is said of it, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from tests.unit.hypervisor.conftest import World, elf_image, leaving

from lamina_hypervisor import convert
from lamina_hypervisor.domain.inventory import Inventory
from lamina_hypervisor.domain.memory.addresses import Gpa, Gva
from lamina_hypervisor.domain.memory.hold import Granted
from lamina_hypervisor.domain.memory.translation import Access
from lamina_hypervisor.domain.vm import Definition, Event, State, Verdict, Vm
from lamina_hypervisor.engines import effects
from lamina_hypervisor.hypervisor import Hypervisor
from lamina_hypervisor.io.images import Images
from lamina_hypervisor.io.runner import Runner
from lamina_hypervisor.io.store import Store
from lamina_hypervisor.metrics import families
from lamina_kit.bus.run_page import ExitReason, RunPage
from lamina_kit.driver import Performer
from lamina_kit.effects import Effect
from lamina_kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)
from lamina_kit.telemetry.events import EventLog

NAME = "hosts/h1/vms/web-1"


def kinds_of_effects() -> set[type[Effect]]:
    """Returns every effect that the engine may ask for."""
    kinds = {kind for kind in vars(effects).values() if isinstance(kind, type) and issubclass(kind, Effect)}
    return kinds - {Effect}


class Host:
    """A hypervisor over the scripted world; vCPUs run until the machine ends."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.events = EventLog("hypervisor", "h1", self.world.clock)
        self.store = Store(folder / "vms.sqlite")
        self.images = Images(folder / "images")
        self.inventory = Inventory("h1")
        slices = self.world.slices
        self.hypervisor = Hypervisor(
            self.inventory, self.store, self.images, slices, self.events, self.world.clock
        )  # fmt: skip
        engine: Any = self.world.engine
        runner = Runner(engine, self.hypervisor.ending, self.hypervisor.ended)
        runner.perform = Performer(self.world.clock)
        for kind in kinds_of_effects():
            runner.perform.on(kind, self._perform)
        self.runner = runner
        self.hypervisor.attach(runner)
        self.kicked = asyncio.Event()

    async def _perform(self, effect: Any) -> Any:
        if isinstance(effect, effects.Run) and not self.world.script:
            self.world.log.append(effect)
            await self.kicked.wait()
            self.kicked.clear()
            return leaving(ExitReason.CANCELED)(RunPage(self.world.ram.run_page(effect.context.run_page)))
        if isinstance(effect, effects.Kick):
            self.kicked.set()
        if isinstance(effect, effects.Wake):
            self.runner.perform.wake(effect.key)
        return self.world.perform(effect)

    def define(self, vm_id: str = "web-1", request_id: str = "", **fields: Any) -> Vm:
        """Defines a VM of the scripted kernel."""
        digest = self.hypervisor.upload(elf_image(), "")
        wanted = {"vcpu_count": 1, "memory_bytes": 16 << 20, "kernel_digest": digest, **fields}
        return self.hypervisor.create(Definition(vm_id, **wanted), request_id)

    def said(self, name: str = NAME) -> list[str]:
        """What the event log says of a VM, in order."""
        return [record.event for record in self.events.list(name)]


async def turns() -> None:
    """Lets everything that is ready run."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A hypervisor without VMs."""
    made = Host(tmp_path)
    yield made
    await made.hypervisor.close()
    made.store.close()


async def test_a_definition_is_recorded_once(host: Host) -> None:
    """A new VM is in the store and the log; the same request again is neither a second time."""
    first = host.define(request_id="r-1")
    again = host.define(request_id="r-1")
    assert first is again
    assert [vm.name for vm in host.store.load()] == [NAME]
    assert host.said() == ["vm.created"]
    host.store.delete(first)
    host.define(request_id="r-1")
    assert host.store.load() == []


async def test_a_kernel_has_to_be_there_and_fit(host: Host) -> None:
    """An image that is no kernel is not kept; a VM needs one that is there and fits into its RAM."""
    with pytest.raises(InvalidArgument):
        host.hypervisor.upload(b"no kernel at all", "")
    assert not list(host.images._folder.glob("*"))
    with pytest.raises(NotFound):
        host.define(kernel_digest="sha256:" + "0" * 64)
    with pytest.raises(InvalidArgument, match="is not within"):
        host.define(memory_bytes=1 << 20)
    assert host.inventory.all() == []


async def test_a_vm_starts_pauses_and_stops(host: Host) -> None:
    """Each change of state is in the store when the call returns, and power is given back once."""
    host.define()
    vm = await host.hypervisor.start(NAME)
    assert (vm.state, vm.verdict, vm.start_time_ns > 10**18) == (State.RUNNING, Verdict("", ""), True)
    assert host.store.load()[0].state is State.RUNNING
    assert host.runner.names() == [NAME]
    machine = host.hypervisor.powered(NAME)
    assert host.hypervisor.machine(NAME) is machine
    await host.hypervisor.stop(NAME)
    assert (vm.state, vm.verdict.reason) == (State.STOPPED, "POWERED_OFF")
    assert [kept.state for kept in host.store.load()] == [State.STOPPED]
    assert host.runner.names() == []
    assert len(host.world.performed(effects.DeleteSpace)) == 1
    await host.hypervisor.stop(NAME)
    assert host.hypervisor.machine(NAME) is machine
    with pytest.raises(FailedPrecondition):
        host.hypervisor.powered(NAME)
    host.hypervisor.delete(NAME)
    assert host.store.load() == []
    assert host.said() == [
        "vm.created", "vm.starting", "vm.running", "vm.stopping", "vm.stopped", "vm.deleted",
    ]  # fmt: skip
    with pytest.raises(NotFound):
        host.hypervisor.machine(NAME)


async def test_a_paused_vm_goes_on(host: Host) -> None:
    """A pause returns when the vCPUs stand, a resume lets them run again, and both are recorded."""
    host.define()
    await host.hypervisor.start(NAME)
    await turns()
    vm = await asyncio.wait_for(host.hypervisor.pause(NAME), 5)
    machine: Any = host.hypervisor.powered(NAME)
    assert (vm.state, machine.paused, machine.standing) == (State.PAUSED, True, 1)
    assert host.store.load()[0].state is State.PAUSED
    before = len(host.world.performed(effects.Run))
    await turns()
    assert len(host.world.performed(effects.Run)) == before
    vm = await host.hypervisor.resume(NAME)
    await turns()
    assert (vm.state, machine.paused, machine.standing) == (State.RUNNING, False, 0)
    assert len(host.world.performed(effects.Run)) == before + 1
    machine.serial.write(1, 1)
    assert await host.hypervisor.write_serial(NAME, b"xy") == 2
    await turns()
    assert len(host.world.performed(effects.Run)) == before + 2


async def test_a_start_that_fails_says_why(host: Host) -> None:
    """A VM whose parts cannot be had is stopped with the reason, has no machine, and may be started again."""
    host.define()
    host.world.fail[effects.CreateSpace] = ResourceExhausted("full", reason="NO_FREE_FRAME")
    with pytest.raises(ResourceExhausted):
        await host.hypervisor.start(NAME)
    vm = host.inventory.get(NAME)
    assert (vm.state, vm.verdict.reason) == (State.STOPPED, "START_FAILED")
    assert "full" in vm.verdict.detail
    assert host.hypervisor.machine(NAME) is None
    host.world.fail.clear()
    assert (await host.hypervisor.start(NAME)).state is State.RUNNING


async def test_a_vm_that_starts_cannot_be_stopped(host: Host) -> None:
    """While a VM starts it refuses to stop, whoever waits for it, and a caller who gives up does not stop it."""
    host.define()
    starting = asyncio.get_running_loop().create_task(host.hypervisor.start(NAME))
    await asyncio.sleep(0)
    with pytest.raises(FailedPrecondition, match="cannot stop before it has started"):
        await host.hypervisor.stop(NAME)
    starting.cancel()
    await turns()
    assert host.inventory.get(NAME).state is State.RUNNING


async def test_a_crash_has_its_verdict_and_its_cause(host: Host) -> None:
    """A VM that a fault lets die is CRASHED when the call returns, with the fault as the cause; its exits are told."""
    host.define()
    await host.hypervisor.start(NAME)
    assert await host.hypervisor.crash(NAME, "faults/f1") == 0
    vm = host.inventory.get(NAME)
    assert (vm.state, vm.verdict.reason, vm.verdict.cause) == (State.CRASHED, "FAULT_INJECTED", "faults/f1")
    assert "faults/f1" in vm.verdict.detail
    with pytest.raises(FailedPrecondition):
        await host.hypervisor.crash(NAME, "faults/f2")
    assert (await host.hypervisor.start(NAME)).state is State.RUNNING


@pytest.mark.parametrize(("reason", "wanted"), [("HOLDER_FENCED", "MEMORY_FENCED"), ("HOLD_ENDED", "HOST_UNAVAILABLE")])
async def test_a_vm_whose_memory_goes_crashes(host: Host, reason: str, wanted: str) -> None:
    """A hold that is fenced and one that breaks are told apart; a VM without power does not mind."""
    host.define()
    host.runner.hold_lost(NAME, Unavailable("gone", reason=reason))
    await host.hypervisor.start(NAME)
    host.runner.hold_lost(NAME, Unavailable("gone", reason=reason))
    await turns()
    vm = host.inventory.get(NAME)
    assert (vm.state, vm.verdict.reason) == (State.CRASHED, wanted)


async def test_what_had_power_is_lost_with_the_service(host: Host, tmp_path: Path) -> None:
    """After a restart a VM that had power is stopped and says so; others are as they were; handles are not reused."""
    host.define()
    host.define("other")
    gone = host.define("gone")
    host.hypervisor.delete(gone.name)
    await host.hypervisor.start(NAME)
    again = Host(tmp_path)
    again.hypervisor.recover()
    lost, other = again.inventory.get(NAME), again.inventory.get("hosts/h1/vms/other")
    assert (lost.state, lost.verdict.reason) == (State.STOPPED, "HYPERVISOR_RESTARTED")
    assert "RUNNING" in lost.verdict.detail
    assert (other.state, other.verdict.reason) == (State.STOPPED, "CREATED")
    fresh = again.define("fresh")
    assert (fresh.slot, fresh.generation) == (gone.slot, gone.generation + 1)
    again.store.close()


async def test_closing_takes_all_power(host: Host) -> None:
    """When the service stops, every VM is stopped by it, those that are starting included."""
    host.define()
    host.define("other")
    await host.hypervisor.start(NAME)
    starting = asyncio.get_running_loop().create_task(host.hypervisor.start("hosts/h1/vms/other"))
    await asyncio.sleep(0)
    await host.hypervisor.close()
    await starting
    assert [vm.verdict.reason for vm in host.inventory.all()] == ["HYPERVISOR_STOPPED"] * 2
    assert host.runner.names() == []


async def test_a_defect_of_the_hypervisor_ends_the_vm(host: Host) -> None:
    """An error that nobody thought of crashes the VM as INTERNAL, with vCPU and type, and gives everything back."""
    host.define()

    def broken(page: RunPage) -> Any:
        raise ZeroDivisionError("odd")

    host.world.script = [broken]
    await host.hypervisor.start(NAME)
    await turns()
    verdict = host.inventory.get(NAME).verdict
    assert verdict.reason == "INTERNAL"
    assert verdict.detail.startswith("vCPU 0 met a defect of the hypervisor: ZeroDivisionError")
    assert len(host.world.performed(effects.DeleteSpace)) == 1


async def test_the_serial_log_is_followed_to_the_end(host: Host) -> None:
    """A follower gets what is there and what comes, counts as one while it reads, and ends with the power."""
    host.define()
    assert [piece async for piece in host.hypervisor.read_serial(NAME, 0, True)] == []
    await host.hypervisor.start(NAME)
    machine: Any = host.hypervisor.powered(NAME)
    machine.serial_log.append(b"one")
    read: list[tuple[int, bytes]] = []

    async def follow() -> None:
        read.extend([piece async for piece in host.hypervisor.read_serial(NAME, 1, True)])

    following = asyncio.get_running_loop().create_task(follow())
    await turns()
    assert machine.followers == 1
    assert not following.done()
    machine.serial_log.append(b"two")
    await host.hypervisor.crash(NAME, "x")
    await asyncio.wait_for(following, 5)
    assert read[0] == (1, b"ne")
    assert b"".join(data for _, data in read) == b"netwo"
    assert machine.followers == 0
    assert [piece async for piece in host.hypervisor.read_serial(NAME, 0, False)] == [(0, b"onetwo")]


async def test_questions_about_a_vm(host: Host) -> None:
    """vCPUs are numbered from 0; pages are listed from an address on, as many as asked; none without power."""
    host.define(vcpu_count=2)
    assert host.hypervisor.guest_pages(NAME, Gpa(0), 9) == []
    await host.hypervisor.start(NAME)
    for number in (-1, 2):
        with pytest.raises(OutOfRange):
            host.hypervisor.translate(NAME, number, Gva(0), Access())
    machine, _ = host.hypervisor.translate(NAME, 1, Gva(0), Access())
    assert machine is host.hypervisor.powered(NAME)
    for number, gpa in enumerate((0x1000, 0x5000, 0x9000)):
        host.world.say(Granted(number, Gpa(gpa), host.world._next_frame(), True, True))
    assert [gpa for gpa, _ in host.hypervisor.guest_pages(NAME, Gpa(0), 2)] == [0x1000, 0x5000]
    assert [gpa for gpa, _ in host.hypervisor.guest_pages(NAME, Gpa(0x5000), 9)] == [0x5000, 0x9000]
    with pytest.raises(NotFound):
        host.hypervisor.slices("hosts/h1/vms/none", 9)
    assert host.hypervisor.slices("", 9) == host.hypervisor.slices(NAME, 9) == []


def test_numbers_of_a_host() -> None:
    """VMs are counted by state; vCPUs and memory of those with power alone."""
    inventory = Inventory("h1")
    for number, vm_id in enumerate("abc"):
        vm, _ = inventory.create(Definition(vm_id, number + 1, 10 << number, ""), "", 0)
        if vm_id != "c":
            vm.apply(Event.START)
    states, vcpus, memory = families(inventory)
    counts = {sample.labels[0][1]: sample.value for sample in states.samples}
    assert (counts["starting"], counts["stopped"], counts["running"]) == (2, 1, 0)
    assert [sample.value for sample in (*vcpus.samples, *memory.samples)] == [3, 30]


async def test_a_vm_is_shown_as_it_is(host: Host) -> None:
    """With power a VM shows what it has below, without power why it has none, and its registers if it crashed."""
    vm = host.define(label="l", command_line="c", vcpu_count=2)
    shown = convert.vm_message(vm, None)
    assert (shown.state, shown.stop_reason, shown.weight) == (pb.VirtualMachine.STATE_STOPPED, "CREATED", 200)
    assert (shown.handle.id, shown.handle.generation) == (vm.slot, vm.generation)
    assert [(device.id, device.serial.port) for device in shown.devices] == [("serial0", 0x3F8)]
    assert not shown.HasField("crash_registers")
    await host.hypervisor.start(NAME)
    machine: Any = host.hypervisor.powered(NAME)
    shown = convert.vm_message(vm, machine)
    assert (shown.stop_reason, shown.eptp, shown.space) == ("", machine.eptp, machine.space.name)
    assert (shown.run_group, shown.table_frames, shown.mapped_pages) == (machine.run_group, 1, 0)
    vcpu = convert.vcpu_message(NAME, machine.vcpus[1], True)
    assert (vcpu.name, vcpu.number, vcpu.last_core, vcpu.context.id) == (f"{NAME}/vcpus/1", 1, -1, 2)
    assert not convert.vcpu_message(NAME, machine.vcpus[1], False).HasField("context")
    registers = machine.vcpus[0].registers
    await host.runner.end(vm, Verdict("TRIPLE_FAULT", "d", True, registers))
    shown = convert.vm_message(vm, machine)
    assert (shown.stop_reason, shown.stop_detail, shown.eptp) == ("TRIPLE_FAULT", "d", 0)
    assert (shown.crash_registers.flow.rip, shown.crash_registers.control.cr3) == (0x100000, 0xB0000)
    assert list(shown.crash_registers.general) == list(registers.general)
    assert (shown.crash_registers.gdtr.base, shown.crash_registers.flow.rflags) == (0x91000, 2)
