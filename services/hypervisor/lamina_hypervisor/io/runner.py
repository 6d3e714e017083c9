"""Runs machines: one task a vCPU, and one that takes the power away when the machine's verdict falls."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_hypervisor.domain.vm import Verdict, Vm
from lamina_hypervisor.engines.interface import Engine, Machine, serial_key, standing_key
from lamina_kit.driver import Performer, drive
from lamina_kit.errors import LaminaError
from lamina_kit.telemetry import log, trace

Ended = Callable[[Machine, list[LaminaError]], Awaitable[None]]


@dataclass
class _Powered:
    """A machine with its tasks. `ended`: its verdict fell; `released`: everything was given back; `why`: the trace of
    the call that took its power, if one did."""

    machine: Machine
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    watcher: asyncio.Task[None] | None = None
    why: trace.TraceContext | None = None


class Runner:
    """Drives the engine's steps for all machines of one host. `on_fall` is told when a machine's verdict falls,
    `on_end` once everything is given back."""

    def __init__(self, engine: Engine, on_fall: Callable[[Machine], None], on_end: Ended) -> None:
        self._engine = engine
        self._on_fall = on_fall
        self._on_end = on_end
        self._powered: dict[str, _Powered] = {}
        self._log = log.logger("hypervisor")
        self.perform: Performer

    async def power_on(self, vm: Vm, kernel: Kernel) -> Machine:
        """Makes a machine and starts its vCPUs; raises what the layers below answer, with nothing left behind."""
        machine = await drive(self._engine.power_on(vm, kernel), self.perform)
        powered = self._powered[vm.name] = _Powered(machine)
        return powered.machine

    def let_go(self, vm: Vm) -> None:
        """Starts the vCPUs of a machine that was made. What they do is caused by the start, and recorded as no span."""
        powered = self._powered[vm.name]
        loop = asyncio.get_running_loop()
        for vcpu in powered.machine.vcpus:
            name = f"{vm.name}/vcpus/{vcpu.number}"
            work = self._vcpu(powered, vcpu.number)
            powered.tasks.append(loop.create_task(work, name=name, context=_own_context()))
        watch = self._watch(powered)
        powered.watcher = loop.create_task(watch, name=f"{vm.name}/watcher", context=_own_context())

    async def end(self, vm: Vm, verdict: Verdict) -> None:
        """Takes the power away for `verdict`, unless another one fell before; returns when all is given back."""
        powered = self._powered.get(vm.name)
        if powered is not None:
            powered.machine.end(verdict)
            powered.why = powered.why or trace.current()
            powered.ended.set()
            await powered.released.wait()

    async def write_serial(self, machine: Machine, data: bytes) -> int:
        """Feeds the serial port."""
        return await drive(self._engine.write_serial(machine, data), self.perform)

    async def pause(self, machine: Machine) -> None:
        """Stops the vCPUs; returns when they stand."""
        await drive(self._engine.pause(machine), self.perform)

    async def resume(self, machine: Machine) -> None:
        """Lets the vCPUs go on."""
        await drive(self._engine.resume(machine), self.perform)

    def hold_lost(self, vm: str, error: LaminaError) -> None:
        """Ends a machine whose memory was taken away."""
        reason = "MEMORY_FENCED" if error.reason == "HOLDER_FENCED" else "HOST_UNAVAILABLE"
        self.lose(vm, Verdict(reason, str(error), crashed=True))

    def lose(self, vm: str, verdict: Verdict) -> None:
        """Ends a machine without waiting."""
        powered = self._powered.get(vm)
        if powered is not None:
            powered.machine.end(verdict)
            powered.ended.set()

    def names(self) -> list[str]:
        """Returns the VMs that have power, by name."""
        return sorted(self._powered)

    async def _vcpu(self, powered: _Powered, number: int) -> None:
        machine = powered.machine
        try:
            await drive(self._engine.run_vcpu(machine, number), self.perform)
        except Exception as error:
            self._log.exception("vcpu.failed", vm=machine.vm.name, vcpu=number)
            detail = f"vCPU {number} met a defect of the hypervisor: {type(error).__name__}: {error}"
            machine.end(Verdict("INTERNAL", detail, crashed=True))
        finally:
            if machine.verdict is not None:
                powered.ended.set()

    async def _watch(self, powered: _Powered) -> None:
        """Waits for the verdict, then stops the vCPUs and gives everything back."""
        await powered.ended.wait()
        if powered.why is not None:
            trace.follow(powered.why)
        self._on_fall(powered.machine)
        for task in powered.tasks:
            task.cancel()
        await asyncio.gather(*powered.tasks, return_exceptions=True)
        self.perform.wake(standing_key(powered.machine.vm.name))
        errors = await drive(self._engine.power_off(powered.machine), self.perform)
        del self._powered[powered.machine.vm.name]
        try:
            await self._on_end(powered.machine, errors)
        finally:
            self.perform.wake(serial_key(powered.machine.vm.name))
            powered.released.set()


def _own_context() -> contextvars.Context:
    """Returns a context in which the present trace goes on unsampled: a VM runs longer than a request is recorded."""
    context = contextvars.Context()
    if (present := trace.current()) is not None:
        context.run(trace.follow, present.unsampled(), trace.worker())
    return context
