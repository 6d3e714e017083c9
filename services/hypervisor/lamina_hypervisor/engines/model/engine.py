"""The model engine: VMs on the modelled cores and memory, deterministic, without privileges. Pure."""

from __future__ import annotations

from typing import ClassVar

from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_hypervisor.domain.exits.time_slices import SliceLedger
from lamina_hypervisor.domain.vcpus.vcpu import VcpuState
from lamina_hypervisor.domain.vm import Vm
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.interface import standing_key
from lamina_hypervisor.engines.model.dispatch import Dispatcher
from lamina_hypervisor.engines.model.machine import Host, ModelMachine
from lamina_hypervisor.engines.model.power import build, release
from lamina_hypervisor.engines.model.vcpu_loop import VcpuLoop
from lamina_kit.clock import Clock
from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng


class ModelEngine:
    """See `engines/interface.py`. `host` is the host's RAM; time and randomness come from `clock` and `rng`."""

    name: ClassVar[str] = "model"
    capabilities: ClassVar[tuple[str, ...]] = ("ept", "exit-ledger", "overcommit", "pause", "serial", "translate")

    @classmethod
    def missing(cls) -> list[str]:
        """Returns no reasons: what the model needs, the hardware layer has."""
        return []

    def __init__(self, host: Host, clock: Clock, rng: Rng, slices: SliceLedger) -> None:
        self._host = host
        self._clock = clock
        self._rng = rng
        self._slices = slices
        self._loop = VcpuLoop(clock, Dispatcher())

    def power_on(self, vm: Vm, kernel: Kernel) -> Step[ModelMachine]:
        """Makes the VM's memory and vCPUs and loads its kernel."""
        return build(self._host, self._slices, self._rng.child(vm.name), vm, kernel, self._clock.now_ns())

    def run_vcpu(self, machine: ModelMachine, number: int) -> Step[None]:
        """Runs one vCPU until it is off or the machine's verdict is set."""
        return self._loop.run(machine, machine.vcpus[number])

    def write_serial(self, machine: ModelMachine, data: bytes) -> Step[int]:
        """Feeds the serial port and interrupts vCPU 0."""
        pending = machine.serial.feed(data)
        if machine.serial.interrupt:
            first = machine.vcpus[0]
            yield effects.Wake(machine.vcpu_key(0))
            if first.running:
                yield effects.Kick(first.context)
        return pending

    def pause(self, machine: ModelMachine) -> Step[None]:
        """Stops all vCPUs between two instructions; ends when they stand or the machine ends."""
        machine.paused = True
        for vcpu in machine.vcpus:
            yield effects.Wake(machine.vcpu_key(vcpu.number))
            if vcpu.running:
                yield effects.Kick(vcpu.context)
        while machine.verdict is None and machine.standing < self._powered(machine):
            yield WaitFor(standing_key(machine.name))

    def resume(self, machine: ModelMachine) -> Step[None]:
        """Lets all vCPUs go on."""
        machine.paused = False
        for vcpu in machine.vcpus:
            yield effects.Wake(machine.vcpu_key(vcpu.number))

    def power_off(self, machine: ModelMachine) -> Step[list[LaminaError]]:
        """Gives everything back; returns the errors of layers that had lost it already."""
        return release(machine)

    @staticmethod
    def _powered(machine: ModelMachine) -> int:
        return sum(vcpu.state is not VcpuState.OFF for vcpu in machine.vcpus)
