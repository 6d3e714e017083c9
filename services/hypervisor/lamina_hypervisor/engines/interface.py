"""What a hypervisor engine is. Pure.

Vocabulary:

    VM        a definition, and while it has power a `Machine`
    vCPU      one execution context of the hardware layer, under the VM's EPT
    EPT       the table that maps guest physical to host physical addresses; its entries are words of host RAM
    exit      the moment a core gives a vCPU back, with a reason
    hold      the stream on which the MMU grants the VM's pages and takes them back
    verdict   why a VM loses its power

An engine is synchronous: its steps are generators that yield the effects of `effects.py`. Preconditions:

- `power_on` comes first; its machine is handed to every other method. When it raises, nothing is left behind.
- While a machine has power, one driver runs `run_vcpu` for each vCPU, and every message of the hold stream is given to
  the `receive` of the `OpenHold` effect in the stream's order, one after the other.
- When a machine's verdict is set, or to end it, the drivers are stopped and `power_off` runs, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from lamina_hypervisor.domain.boot.elf import Kernel
from lamina_hypervisor.domain.devices.serial import Serial
from lamina_hypervisor.domain.devices.serial_log import SerialLog
from lamina_hypervisor.domain.exits.ledger import ExitLedger
from lamina_hypervisor.domain.memory.addresses import Gpa, Gva
from lamina_hypervisor.domain.memory.translation import Access, Walk
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu
from lamina_hypervisor.domain.vm import Verdict, Vm
from lamina_hypervisor.engines.effects import Space
from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError


class Machine(Protocol):
    """A VM with power."""

    vm: Vm
    vcpus: list[Vcpu]
    serial: Serial
    serial_log: SerialLog
    ledger: ExitLedger
    verdict: Verdict | None
    paused: bool
    followers: int
    """How many readers want to be woken, by `serial_key`, when the log grows."""

    @property
    def eptp(self) -> int:
        """Address of the EPT's root in host RAM."""

    @property
    def mapped_pages(self) -> int:
        """Guest pages that the EPT maps."""

    @property
    def table_frames(self) -> int:
        """Frames that the EPT's tables use."""

    @property
    def space(self) -> Space | None:
        """The VM's RAM in the MMU."""

    @property
    def run_group(self) -> str:
        """The vCPUs' run group."""

    def pages(self, start: Gpa) -> Iterator[tuple[Gpa, int]]:
        """Yields (address, EPT entry) of the pages mapped from `start` on, by address."""

    def translate(self, vcpu: int, gva: Gva, access: Access) -> Walk:
        """Returns the walk of an address by the tables of one vCPU, without side effects."""

    def end(self, verdict: Verdict) -> None:
        """Sets the verdict, unless one is set already."""


class Engine(Protocol):
    """An engine of this layer. `missing()` gives the reasons why it cannot run here; none means that it can."""

    name: ClassVar[str]
    capabilities: ClassVar[tuple[str, ...]]

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run on this machine."""

    def power_on(self, vm: Vm, kernel: Kernel) -> Step[Machine]:
        """Makes the VM's memory and vCPUs and loads its kernel. An error of a layer below leaves nothing behind."""

    def run_vcpu(self, machine: Machine, number: int) -> Step[None]:
        """Runs one vCPU until it is off or the machine's verdict is set."""

    def write_serial(self, machine: Machine, data: bytes) -> Step[int]:
        """Feeds the serial port and interrupts vCPU 0; returns the bytes that the guest has not read yet."""

    def pause(self, machine: Machine) -> Step[None]:
        """Stops all vCPUs between two instructions; ends when they stand."""

    def resume(self, machine: Machine) -> Step[None]:
        """Lets them go on."""

    def power_off(self, machine: Machine) -> Step[list[LaminaError]]:
        """Gives everything back; returns the errors of layers that had lost it already."""


def serial_key(vm: str) -> tuple[str, str]:
    """Returns the key that readers of a VM's serial log wait for."""
    return ("serial", vm)


def standing_key(vm: str) -> tuple[str, str]:
    """Returns the key that a pause of a VM waits for."""
    return ("standing", vm)
