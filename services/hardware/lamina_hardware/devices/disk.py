"""Disks as devices of the host: what the IOMMU and a list of devices see of them, and their way to memory."""

from __future__ import annotations

from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.domain.devices.device import DeviceKind, DevicePorts
from lamina_hardware.domain.devices.dma import MAX_TRANSFER, DmaRefused, PageNeeded
from lamina_hardware.domain.disk.disk import Disk
from lamina_hardware.domain.disk.transfer import NotYet, Result, TransferFailed

DISK_PCI = (0x8086, 0x0953, 0x010802)
"""Vendor, device, class: those of an NVMe drive of Intel's."""
_FIRST_GROUP = 1024
_FIRST_BUS = 2


class DiskDevice:
    """A disk on the bus. It is driven over `Disks.Transfer`, so it has neither queues nor vectors here."""

    vector_count = 0
    queue_limit = 0
    queue_count = 0

    def connect(self, ports: DevicePorts) -> None:
        """See `DeviceModel.connect`."""

    def reset(self) -> None:
        """See `DeviceModel.reset`: a disk keeps its content."""

    def doorbell(self, queue: int, tail: int) -> None:
        """See `DeviceModel.doorbell`: it has no queue that could be rung."""


class DiskDevices:
    """The devices of all disks of a host."""

    def __init__(self, devices: HostDevices) -> None:
        self._devices = devices
        self._places: dict[str, int] = {}

    def plug(self, disk: Disk) -> None:
        """Adds a disk's device at the lowest free place."""
        place = next(n for n in range(len(self._places) + 1) if n not in self._places.values())
        self._places[disk.name] = place
        identity = self._devices.own_pci(f"{_FIRST_BUS + place // 32:02x}:{place % 32:02x}.0", DISK_PCI)
        group = self._devices.own_group(_FIRST_GROUP + place)
        self._devices.plug(disk.name, DeviceKind.DISK, identity, group, DiskDevice())

    def unplug(self, disk: Disk) -> None:
        """Removes a disk's device for good: its device page is free again."""
        self._devices.unplug(self._devices.table.get(disk.name))
        self._devices.free_page(disk.name)
        del self._places[disk.name]

    def gather(self, disk: str, pieces: list[tuple[int, int]]) -> bytes:
        """Returns the bytes of pieces of memory. Raises `TransferFailed` `DMA_FAULT` or `NotYet`."""
        return b"".join(self._move(disk, address, size) for address, size in _bursts(pieces))

    def scatter(self, disk: str, pieces: list[tuple[int, int]], data: bytes) -> None:
        """Stores bytes in pieces of memory; all addresses are checked before the first byte. Raises likewise."""
        bursts, done = _bursts(pieces), 0
        for address, size in bursts:
            self._check(disk, address, size)
        for address, size in bursts:
            self._move(disk, address, size, data[done : done + size])
            done += size

    def _move(self, disk: str, address: int, size: int, data: bytes | None = None) -> bytes:
        device, memory = self._devices.table.get(disk), self._devices.memory
        try:
            if device.domain:
                port = self._devices.dma_of(device)
                if data is None:
                    return port.read(address, size)
                port.write(address, data)
                return b""
        except DmaRefused as refused:
            raise TransferFailed(Result.DMA_FAULT) from refused
        except PageNeeded as needed:
            raise NotYet(needed.then) from needed
        self._check_physical(address, size)
        if data is None:
            return memory.read(address, size)
        memory.write(address, data)
        return b""

    def _check(self, disk: str, address: int, size: int) -> None:
        device = self._devices.table.get(disk)
        if not device.domain:
            self._check_physical(address, size)
            return
        try:
            self._devices.dma_of(device).check(address, size, write=True)
        except DmaRefused as refused:
            raise TransferFailed(Result.DMA_FAULT) from refused
        except PageNeeded as needed:
            raise NotYet(needed.then) from needed

    def _check_physical(self, address: int, size: int) -> None:
        if not self._devices.memory.contains(address, size):
            raise TransferFailed(Result.DMA_FAULT)


def _bursts(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns pieces of memory cut to what one DMA transfer may have."""
    return [
        (address + at, min(MAX_TRANSFER, size - at)) for address, size in pieces for at in range(0, size, MAX_TRANSFER)
    ]
