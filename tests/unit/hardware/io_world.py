"""A small machine without a service: memory, devices, IOMMU, timers; DMA engines whose ports a test sees through."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.unit.hardware.fake_physical import FakePhysical, FakeTimers

from lamina_hardware.domain.devices.device import Device, DeviceKind, DeviceTable
from lamina_hardware.domain.devices.dma import DmaPort, DmaRefused, Transfer
from lamina_hardware.domain.devices.dma_buffers import DmaBuffers
from lamina_hardware.domain.devices.dma_engine import DmaEngine
from lamina_hardware.domain.devices.pci import PciIdentity
from lamina_hardware.domain.iommu.domains import DmaDomain, DomainKind, DomainWish
from lamina_hardware.domain.iommu.iommu import Iommu
from lamina_hardware.domain.iommu.tables import Mapping
from lamina_kit.bus.dma import DMA_BASE

PAGE = 4096
PCI = PciIdentity("0000:00:10.0", 0x8086, 0x0B00, 0x088000)


def descriptor(source: int, destination: int, size: int, control: int = 1) -> bytes:
    """Returns a descriptor of a DMA engine."""
    return struct.pack("<IIQQQ", control, size, source, destination, 0)


@dataclass
class FakePorts:
    """The ports of one engine: words of its queues, and what it said."""

    dma: DmaPort
    timers: FakeTimers
    tails: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    rings: dict[int, tuple[int, int]] = field(default_factory=dict)
    interrupts: list[int] = field(default_factory=list)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    asleep: list[int] = field(default_factory=list)

    def interrupt(self, vector: int, queue: int | None = None) -> None:
        """See `DevicePorts.interrupt`."""
        self.interrupts.append(vector)

    def now_ns(self) -> int:
        """See `DevicePorts.now_ns`."""
        return self.timers.now_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Any:
        """See `DevicePorts.call_at`."""
        return self.timers.call_at(when_ns, callback)

    def record(self, event: str, **inputs: object) -> None:
        """See `DevicePorts.record`."""
        self.events.append((event, inputs))

    def tail(self, queue: int) -> int:
        """See `DevicePorts.tail`."""
        return self.tails.get(queue, 0)

    def set_head(self, queue: int, head: int) -> None:
        """See `DevicePorts.set_head`."""
        self.heads[queue] = head

    def sleep(self, queue: int) -> bool:
        """See `DevicePorts.sleep`."""
        self.asleep.append(queue)
        return False

    def ring(self, queue: int) -> tuple[int, int]:
        """See `DevicePorts.ring`."""
        return self.rings.get(queue, (0, 0))

    def set_link(self, up: bool, rate_bits_per_second: int) -> None:
        """See `DevicePorts.set_link`."""

    def set_queues(self, count: int) -> None:
        """See `DevicePorts.set_queues`."""


class World:
    """RAM of `frames` frames, DMA memory of 64 pages, and engines `e0` … in the groups given."""

    def __init__(self, frames: int = 256, groups: tuple[int, ...] = (1, 2), limit: int = 65_536) -> None:
        self.memory = FakePhysical(frames * PAGE, 64 * PAGE)
        self.timers = FakeTimers()
        self.devices = DeviceTable()
        self.buffers = DmaBuffers(DMA_BASE, 64 * PAGE)
        self.told: list[tuple[str, Transfer, DmaRefused]] = []
        self.iommu = Iommu(self.memory, self.devices, self.buffers, self.timers, self._tell, limit)
        self.ports: dict[str, FakePorts] = {}
        self._next = PAGE
        for number, group in enumerate(groups):
            self._plug(f"e{number}", group)

    def _tell(self, device: Device, transfer: Transfer, refused: DmaRefused) -> None:
        self.told.append((device.id, transfer, refused))

    def _plug(self, id: str, group: int) -> None:
        model = DmaEngine()
        device = self.devices.plug(id, DeviceKind.DMA_ENGINE, PCI, group, model)
        port = DmaPort(self.memory, lambda transfer: self.iommu.reach(device, transfer))
        self.ports[id] = FakePorts(port, self.timers)
        model.connect(self.ports[id])

    def frames(self, count: int = 1) -> int:
        """Returns the address of fresh frames."""
        address = self._next
        self._next += count * PAGE
        return address

    def domain(
        self,
        *mappings: tuple[int, int, int],
        kind: DomainKind = DomainKind.MAPPED,
        device: str = "",
        spare: int = 12,
        page_requests: bool = False,
        owner: str = "",
    ) -> DmaDomain:
        """Returns a domain with (DMA address, physical address, bytes) mapped, to which a device may be attached."""
        root = 0 if kind is DomainKind.IDENTITY else self.frames()
        made = self.iommu.create(DomainWish(kind, root, "", page_requests, owner))
        if kind is DomainKind.MAPPED:
            self.iommu.add_frames(made, [self.frames() for _ in range(spare)])
            if mappings:
                self.iommu.map(made, [Mapping(iova, pa, size, True, True) for iova, pa, size in mappings])
        if device:
            self.iommu.attach(made, self.devices.get(device), "")
        return made

    def ring(self, device: str, queue: int, tail: int) -> None:
        """Rings a doorbell."""
        self.ports[device].tails[queue] = tail
        self.devices.get(device).model.doorbell(queue, tail)
