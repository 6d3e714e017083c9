"""A VM with power, as the model engine keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lamina_hypervisor.domain.devices.ports import PortBus
from lamina_hypervisor.domain.devices.serial import Serial
from lamina_hypervisor.domain.devices.serial_log import SerialLog
from lamina_hypervisor.domain.exits.ledger import ExitLedger
from lamina_hypervisor.domain.memory.addresses import Gpa, Gva
from lamina_hypervisor.domain.memory.ept import Ept, TableMemory
from lamina_hypervisor.domain.memory.hold import Holder
from lamina_hypervisor.domain.memory.translation import Access, Walk, walk
from lamina_hypervisor.domain.vcpus.processor import Processor
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu
from lamina_hypervisor.domain.vm import Verdict, Vm
from lamina_hypervisor.engines.effects import Space
from lamina_kit.rng import Rng

SERIAL_REGISTERS = 8


class Host(TableMemory, Protocol):
    """The host's RAM with its run pages; the kit's memory bus is one."""

    def read(self, pa: int, n: int) -> bytes:
        """Returns `n` bytes at `pa`."""

    def run_page(self, index: int) -> memoryview:
        """Returns a run page, 4096 writable bytes."""


class ModelMachine:
    """A VM with power. Made by `power_on`, which fills it in bit by bit: what is None was not made yet."""

    def __init__(self, vm: Vm, host: Host, processor: Processor, ept: Ept, rng: Rng, start_ns: int) -> None:
        self.vm = vm
        self.host = host
        self.processor = processor
        self.rng = rng
        self.start_ns = start_ns
        self.ept = ept
        self.holder = Holder(ept)
        self.ledger = ExitLedger()
        self.serial = Serial()
        self.serial_log = SerialLog()
        self.ports = PortBus()
        for port in vm.definition.serial_ports:
            self.ports.attach(port, SERIAL_REGISTERS, self.serial)
        self.vcpus: list[Vcpu] = []
        self.verdict: Verdict | None = None
        self.paused = False
        self.standing = 0
        self.followers = 0
        self.space: Space | None = None
        self.run_group = ""
        self.holding = False

    @property
    def name(self) -> str:
        """Name of the VM."""
        return self.vm.name

    @property
    def owner(self) -> str:
        """What the MMU is told about who owns the EPT's frames."""
        return table_owner(self.vm, self.start_ns)

    @property
    def eptp(self) -> int:
        """Address of the EPT's root in host RAM."""
        return self.ept.root << 12

    @property
    def mapped_pages(self) -> int:
        """Guest pages that the EPT maps."""
        return self.ept.mapped

    @property
    def table_frames(self) -> int:
        """Frames that the EPT's tables use."""
        return len(self.ept.tables)

    def pages(self, start: Gpa) -> Iterator[tuple[Gpa, int]]:
        """Yields (address, EPT entry) of the pages mapped from `start` on, by address."""
        return self.ept.pages(start)

    def translate(self, vcpu: int, gva: Gva, access: Access) -> Walk:
        """Returns the walk of an address by the tables of one vCPU, without side effects."""
        return walk(self.host, self.ept, self.vcpus[vcpu].page.cr3, gva, access)

    def end(self, verdict: Verdict) -> None:
        """Sets the verdict, unless one is set already."""
        if self.verdict is None:
            self.verdict = verdict

    def vcpu_key(self, number: int) -> tuple[str, str, str]:
        """Returns the key that a vCPU waits for while it stands."""
        return ("vcpu", self.name, str(number))


def table_owner(vm: Vm, start_ns: int) -> str:
    """Returns who owns the table frames of one power-on: another one each time, or a request to free frames that was
    late, or came twice, would free those of the next."""
    return f"hypervisor vm {vm.definition.vm_id} ept {start_ns}"
