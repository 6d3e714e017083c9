"""The hypervisor of one host: VMs from definition to power and back. What `server.py` calls.

State changes go one way: a method checks, moves the VM to its next state (`domain/vm.py`), writes that down, and only
then asks the engine. Nothing is held while another layer is awaited; a VM that is on its way refuses other changes by
its state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lamina_hypervisor.domain.boot import elf, protocol
from lamina_hypervisor.domain.exits.time_slices import Slice, SliceLedger
from lamina_hypervisor.domain.inventory import Inventory
from lamina_hypervisor.domain.memory.addresses import Gpa, Gva
from lamina_hypervisor.domain.memory.translation import Access, Walk
from lamina_hypervisor.domain.vm import WITH_MEMORY, WITHOUT_POWER, Definition, Event, State, Verdict, Vm
from lamina_hypervisor.engines.interface import Machine, serial_key
from lamina_hypervisor.io.images import Images
from lamina_hypervisor.io.runner import Runner
from lamina_hypervisor.io.store import Store
from lamina_kit.clock import Clock
from lamina_kit.effects import WaitFor
from lamina_kit.errors import LaminaError, OutOfRange
from lamina_kit.telemetry.events import EventLog


class Hypervisor:
    """All VMs of one host. `attach` gives it the runner before the first call."""

    def __init__(
        self, inventory: Inventory, store: Store, images: Images, slices: SliceLedger, events: EventLog, clock: Clock
    ) -> None:
        self.inventory = inventory
        self.images = images
        self._store = store
        self._slices = slices
        self._events = events
        self._clock = clock
        self._machines: dict[str, Machine] = {}
        self._starting: dict[str, asyncio.Task[Vm]] = {}
        self._runner: Runner

    def attach(self, runner: Runner) -> None:
        """Takes who runs machines."""
        self._runner = runner

    def recover(self) -> None:
        """Loads the recorded VMs; one that had power is stopped with `HYPERVISOR_RESTARTED`."""
        for slot, generation in self._store.generations():
            self.inventory.remember(slot, generation)
        for vm in self._store.load():
            self.inventory.adopt(vm)
            if vm.state not in WITHOUT_POWER:
                was = vm.state.value
                vm.verdict = Verdict("HYPERVISOR_RESTARTED", f"It was {was} when the hypervisor service ended.")
                self._move(vm, Event.LOST, rule="a VM's power is lost with its hypervisor", was=was)

    # ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────

    def upload(self, image: bytes, expected: str) -> str:
        """Keeps a kernel image that can be loaded; returns its digest."""
        elf.parse_kernel(image)
        return self.images.put(image, expected)

    def create(self, definition: Definition, request_id: str) -> Vm:
        """Defines a VM; its kernel must be there and fit into its memory."""
        kernel = elf.parse_kernel(self.images.get(definition.kernel_digest))
        elf.check_fits(kernel, protocol.KERNEL_LOWEST, definition.memory_bytes)
        vm, new = self.inventory.create(definition, request_id, self._clock.wall_ns())
        if new:
            self._store.save(vm)
            self._events.record(vm.name, "vm.created", vcpus=definition.vcpu_count, memory=definition.memory_bytes)
        return vm

    def delete(self, name: str) -> None:
        """Forgets a VM without power."""
        vm = self.inventory.get(name)
        self.inventory.delete(vm)
        self._store.delete(vm)
        self._machines.pop(name, None)
        self._events.record(name, "vm.deleted")

    # ── power ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, name: str) -> Vm:
        """Gives a VM power; returns when its vCPUs run. On an error it is stopped again.

        A caller who gives up does not stop half-way what was begun: the VM starts, or fails to, all the same.
        """
        vm = self.inventory.get(name)
        self._move(vm, Event.START)
        starting = asyncio.get_running_loop().create_task(self._start(vm), name=f"{name}/start")
        self._starting[name] = starting
        starting.add_done_callback(lambda _: self._starting.pop(name, None))
        return await asyncio.shield(starting)

    async def _start(self, vm: Vm) -> Vm:
        try:
            kernel = elf.parse_kernel(self.images.get(vm.definition.kernel_digest))
            machine = await self._runner.power_on(vm, kernel)
        except BaseException as error:
            vm.verdict = Verdict("START_FAILED", str(error) or type(error).__name__)
            self._move(vm, Event.FAILED, rule="what a VM needs could not be had", cause=vm.verdict.detail)
            raise
        self._machines[vm.name] = machine
        vm.start_time_ns = self._clock.wall_ns()
        vm.verdict = Verdict("", "")
        self._move(vm, Event.STARTED)
        self._runner.let_go(vm)
        return vm

    async def stop(self, name: str) -> Vm:
        """Takes a VM's power away; returns when everything is given back. Idempotent."""
        vm = self.inventory.get(name)
        if vm.state is State.STARTING:
            raise vm.wrong_state("it cannot stop before it has started")
        await self._runner.end(vm, Verdict("POWERED_OFF", "StopVirtualMachine took the power away."))
        return vm

    async def crash(self, name: str, cause: str) -> int:
        """Ends a VM that has power as if its guest had died; returns how many exits it had.

        Returns when everything is given back. `FailedPrecondition` `VM_STATE` without power.
        """
        machine = self.powered(name)
        exits = machine.ledger.total()
        await self._runner.end(machine.vm, Verdict("FAULT_INJECTED", f"{cause} let it die.", True, cause=cause))
        return exits

    async def pause(self, name: str) -> Vm:
        """Stops a VM's vCPUs; returns when they stand."""
        vm = self.inventory.get(name)
        self._move(vm, Event.PAUSE)
        await self._runner.pause(self._machines[name])
        return vm

    async def resume(self, name: str) -> Vm:
        """Lets a VM's vCPUs go on."""
        vm = self.inventory.get(name)
        self._move(vm, Event.RESUME)
        await self._runner.resume(self._machines[name])
        return vm

    def ending(self, machine: Machine) -> None:
        """Notes that a machine's verdict fell; the runner calls it before anything is given back."""
        self._move(machine.vm, Event.END)

    async def ended(self, machine: Machine, errors: list[LaminaError]) -> None:
        """Notes the end of a machine; the runner calls it once everything is given back."""
        vm, verdict = machine.vm, machine.verdict or Verdict("INTERNAL", "The machine ended without a verdict.", True)
        vm.verdict = verdict
        for error in errors:
            self._events.record(vm.name, "vm.release-failed", cause=error.reason, message=str(error))
        event = Event.CRASHED if verdict.crashed else Event.RELEASED
        ledger = machine.ledger
        exits: dict[str, Any] = dict(ledger.by_reason())
        self._move(
            vm,
            event,
            rule=verdict.reason.lower().replace("_", " "),
            cause=verdict.cause,
            detail=verdict.detail,
            exits=ledger.total(),
            instructions=ledger.instructions,
            **exits,
        )

    async def close(self) -> None:
        """Takes all power away, when this service stops."""
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for name in self._runner.names():
            verdict = Verdict("HYPERVISOR_STOPPED", "The hypervisor service stopped.")
            await self._runner.end(self.inventory.get(name), verdict)

    # ── looking at a VM ──────────────────────────────────────────────────────────────────────────────────────────

    def machine(self, name: str) -> Machine | None:
        """Returns a VM's machine, of the present or the latest power-on; None before the first."""
        self.inventory.get(name)
        return self._machines.get(name)

    def powered(self, name: str) -> Machine:
        """Returns the machine of a VM that has power; `FailedPrecondition` `VM_STATE` otherwise."""
        vm = self.inventory.get(name)
        vm.need(*WITH_MEMORY)
        return self._machines[name]

    def translate(self, name: str, vcpu: int, gva: Gva, access: Access) -> tuple[Machine, Walk]:
        """Returns a VM's machine and the walk of one of its addresses."""
        machine = self.powered(name)
        if not 0 <= vcpu < len(machine.vcpus):
            raise OutOfRange(
                f"{name} has no vCPU {vcpu}; it has {len(machine.vcpus)}.",
                reason="VCPU_UNKNOWN",
                next_step="List its vCPUs with ListVcpus.",
            )
        return machine, machine.translate(vcpu, gva, access)

    def guest_pages(self, name: str, start: Gpa, count: int) -> list[tuple[Gpa, int]]:
        """Returns up to `count` (address, EPT entry) of mapped pages from `start` on, by address."""
        vm = self.inventory.get(name)
        if vm.state not in WITH_MEMORY:
            return []
        pages = self._machines[name].pages(start)
        return [page for page, _ in zip(pages, range(count), strict=False)]

    def slices(self, name: str, count: int) -> list[Slice]:
        """Returns the latest slices, of one VM or of all."""
        if name:
            self.inventory.get(name)
        return self._slices.latest(count, name)

    # ── serial ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def write_serial(self, name: str, data: bytes) -> int:
        """Feeds a VM's serial port; returns the bytes that the guest has not read."""
        return await self._runner.write_serial(self.powered(name), data)

    async def read_serial(self, name: str, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        """Yields (offset, bytes) of a VM's serial log; with `follow` until the VM has no power."""
        if follow and name in self._starting:
            await asyncio.gather(asyncio.shield(self._starting[name]), return_exceptions=True)
        machine = self.machine(name)
        if machine is None:
            return
        machine.followers += follow
        try:
            while True:
                at, data = machine.serial_log.piece(offset)
                if data:
                    offset = at + len(data)
                    yield at, data
                elif follow and self._has_power(machine):
                    await self._runner.perform(WaitFor(serial_key(name)))
                else:
                    return
        finally:
            machine.followers -= follow

    def _has_power(self, machine: Machine) -> bool:
        """Whether this is a VM's present power-on, and not over yet."""
        return self._machines.get(machine.vm.name) is machine and machine.vm.state not in WITHOUT_POWER

    def _move(self, vm: Vm, event: Event, *, rule: str = "", cause: str = "", **inputs: object) -> None:
        """Moves a VM to its next state, writes that down unless a newer start does the writing, and logs it."""
        vm.apply(event)
        if not self._store.save(vm):
            cause = cause or "a newer start of the hypervisor has the records"
        state = vm.state.value.lower()
        self._events.record(vm.name, f"vm.{state}", rule=rule, cause=cause, reason=vm.verdict.reason, **inputs)
