"""Devices: what they are, who drives them, and what a model of one is given and gives. Pure.

A NIC, a disk or a DMA engine is a `DeviceModel`: behaviour without any knowledge of streams, sessions or clocks. It
does everything through `DevicePorts`:

    driver ── Drive stream, device page ──► doorbell(queue, tail) ──► model ── ports.dma ──────► IOMMU ─► memory
                                                                        │
    driver or a context's APIC ◄── route ◄──────────────────────────────┴── ports.interrupt(vector, queue)

All calls come from one event loop, so one call of a model is one undivided step: between two of them a domain may be
detached or a page unmapped, within one never. A model that waits uses `call_at` or `PageNeeded.then`, and looks
everything up again afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.devices.dma import DmaPort
from lamina_hardware.domain.devices.pci import PciIdentity
from lamina_kit.errors import NotFound

MAX_VECTORS = 256
MAX_QUEUES = 256


class DeviceKind(enum.IntEnum):
    """What a device is; the numbers are those of the contract."""

    NIC = 1
    DISK = 2
    OTHER = 3
    DMA_ENGINE = 4


class DeviceState(enum.IntEnum):
    """IDLE: nobody drives it. DRIVEN: somebody does. FAILED: it does nothing until the fault is over."""

    IDLE = 1
    DRIVEN = 2
    FAILED = 3


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Makes it not happen. Idempotent, also when it has happened."""
        ...


class DevicePorts(Protocol):
    """What a device is connected to. Times are nanoseconds since the stack's start."""

    @property
    def dma(self) -> DmaPort:
        """Its way to memory."""
        ...

    def interrupt(self, vector: int, queue: int | None = None) -> None:
        """Raises a vector: to where its route says, or over the stream.

        With a queue, the stream carries it only if the driver of that queue sleeps. Interrupts of one vector merge.
        """
        ...

    def now_ns(self) -> int:
        """Returns the time."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Has `callback` called once it is `when_ns`, never from inside this call. Reset does not cancel it."""
        ...

    def record(self, event: str, **inputs: object) -> None:
        """Writes into the layer's event log what happened to the device (`queue.stopped`)."""
        ...

    def tail(self, queue: int) -> int:
        """Returns the driver's index, 32 bits of anything; 0 while nobody drives the device."""
        ...

    def set_head(self, queue: int, head: int) -> None:
        """Shows the driver which descriptor the device takes next."""
        ...

    def sleep(self, queue: int) -> bool:
        """Asks for a doorbell; returns whether the tail has moved in the meantime: then the device is not asleep."""
        ...

    def ring(self, queue: int) -> tuple[int, int]:
        """Returns (DMA address, descriptors) from the driver's words in the device page; for DMA engines."""
        ...

    def set_link(self, up: bool, rate_bits_per_second: int) -> None:
        """Tells the driver that the link changed; a newer state replaces one that was not told."""
        ...

    def set_queues(self, count: int) -> None:
        """Tells the driver, in the device page, how many queues are configured from now on."""
        ...


class DeviceModel(Protocol):
    """The behaviour of one device. `connect` comes once, before everything else."""

    @property
    def vector_count(self) -> int:
        """Interrupt vectors, 0 to 256."""
        ...

    @property
    def queue_limit(self) -> int:
        """Most queues that it can have, 0 to 256; the device page has room for so many."""
        ...

    @property
    def queue_count(self) -> int:
        """Queues that are configured now: doorbells of others are refused."""
        ...

    def connect(self, ports: DevicePorts) -> None:
        """Gives it what it works with."""
        ...

    def reset(self) -> None:
        """Brings it into its state after power-on: nothing is under way afterwards. Idempotent."""
        ...

    def doorbell(self, queue: int, tail: int) -> None:
        """Says that there may be work in a configured queue. `tail` is what the driver wrote: hostile.

        Raises a `LaminaError` for a tail that its ring does not have; it ends the driver's stream.
        """
        ...


@dataclass(slots=True, eq=False)
class Device:
    """One device of the host.

    `id` is the last part of its name; `pci` is None for one that is not on the PCI bus; `group` is what the IOMMU
    cannot tell apart from it. `domain` is the key of its DMA domain, 0 for none: its DMA is blocked. `driver` is the
    owner of the session that drives it, empty for nobody. `refusals` counts the next transfers that an injected fault
    refuses, `cause` names that fault.
    """

    id: str
    handle: Handle
    kind: DeviceKind
    pci: PciIdentity | None
    group: int
    model: DeviceModel
    domain: int = 0
    driver: str = ""
    state: DeviceState = DeviceState.IDLE
    transfers: int = 0
    faults: int = 0
    refusals: int = 0
    cause: str = ""


@dataclass(slots=True)
class DeviceTable:
    """The devices of a host. A place (an id) keeps its slot; its generation counts the devices that had it."""

    _devices: dict[str, Device] = field(default_factory=dict)
    _slots: dict[str, Handle] = field(default_factory=dict)

    def plug(self, id: str, kind: DeviceKind, pci: PciIdentity | None, group: int, model: DeviceModel) -> Device:
        """Puts a device into a place that is free."""
        assert id not in self._devices, f"{id} is taken"
        before = self._slots.get(id, Handle(len(self._slots) + 1, 0))
        handle = self._slots[id] = Handle(before.id, before.generation + 1)
        device = self._devices[id] = Device(id, handle, kind, pci, group, model)
        return device

    def unplug(self, device: Device) -> None:
        """Takes a device away; its place stays known."""
        del self._devices[device.id]

    def has(self, device: Device) -> bool:
        """Returns whether a device is still in its place."""
        return self._devices.get(device.id) is device

    def get(self, id: str) -> Device:
        """Returns a device. Raises `NotFound` `DEVICE_UNKNOWN`."""
        found = self._devices.get(id)
        if found is None:
            raise NotFound(
                f"This host has no device {id}.",
                reason="DEVICE_UNKNOWN",
                next_step="List them with `Devices.ListDevices`.",
            )
        return found

    def entries(self) -> list[Device]:
        """Returns all devices in the order of their names."""
        return [self._devices[id] for id in sorted(self._devices)]

    def group(self, number: int) -> list[Device]:
        """Returns the devices of an IOMMU group in the order of their names."""
        return [device for device in self.entries() if device.group == number]
