"""Between contract and domain, for devices and DMA memory."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import hardware_pb2

from lamina_hardware.domain.contexts.context import Handle
from lamina_hardware.domain.devices.device import MAX_QUEUES, MAX_VECTORS, Device, DeviceKind
from lamina_hardware.domain.devices.dma_buffers import DmaBuffer
from lamina_hardware.domain.devices.drive import Interrupts, Link, Told
from lamina_hardware.domain.devices.pci import PciIdentity
from lamina_hardware.names import Names
from lamina_kit.bus.device_page import page_bytes
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.checks import Checks

MAX_BUFFER = 256 << 20
_MAX_OWNER = 127
NO_PCI = PciIdentity("", 0, 0, 0)
_MAX_TAIL = 65_535


def handle(found: Handle) -> handle_pb2.Handle:
    """Returns a handle as a message."""
    return handle_pb2.Handle(id=found.id, generation=found.generation)


def device(found: Device, names: Names) -> pb.Device:
    """Returns a device as a message."""
    pci = found.pci or NO_PCI
    return pb.Device(
        name=names.format_device(found.id),
        handle=handle(found.handle),
        kind=int(found.kind),  # type: ignore[arg-type]
        pci_address=pci.address,
        vendor_id=pci.vendor,
        device_id=pci.device,
        class_code=pci.class_code,
        iommu_group=found.group,
        dma_domain=names.format_dma_domain(found.domain),
        driver=found.driver,
        vector_count=found.model.vector_count,
        state=int(found.state),  # type: ignore[arg-type]
        dma_transfers=found.transfers,
        dma_faults=found.faults,
    )


def device_kind(value: int) -> DeviceKind | None:
    """Returns the kind that a list is of, None for all. Raises `InvalidArgument` for one that does not exist."""
    with Checks() as check:
        check.one_of("kind", value, (0, *(int(kind) for kind in DeviceKind)))
    return DeviceKind(value) if value else None


def doorbell(message: pb.Doorbell) -> list[tuple[int, int]]:
    """Returns (queue, tail) of each queue. Raises `InvalidArgument` for too many, or one twice."""
    with Checks() as check:
        if check.that(len(message.queues) <= MAX_QUEUES, "doorbell.queues", f"has more than {MAX_QUEUES} entries"):
            numbers = [entry.queue for entry in message.queues]
            check.that(len(dict.fromkeys(numbers)) == len(numbers), "doorbell.queues", "names a queue twice")
            for entry in message.queues:
                check.range("doorbell.queues.tail", entry.tail, 0, _MAX_TAIL)
    return [(entry.queue, entry.tail) for entry in message.queues]


def mask(message: pb.VectorMask, vectors: int) -> tuple[Sequence[int], Sequence[int]]:
    """Returns vectors to mask and to unmask. Raises `InvalidArgument` for too many, or those that do not exist."""
    with Checks() as check:
        for field, given in (("mask.masked", message.masked), ("mask.unmasked", message.unmasked)):
            if check.that(len(given) <= MAX_VECTORS, field, f"has more than {MAX_VECTORS} entries"):
                check.that(
                    all(0 <= vector < vectors for vector in given), field, f"has a vector outside 0…{vectors - 1}"
                )
    return message.masked, message.unmasked


def told(found: Told) -> pb.DriveResponse:
    """Returns what a device says, as a message."""
    if isinstance(found, Interrupts):
        interrupts = pb.DeviceInterrupts(vectors=found.vectors, time_ns=found.time_ns, count=found.count)
        return pb.DriveResponse(interrupts=interrupts)
    if isinstance(found, Link):
        return pb.DriveResponse(link=pb.DeviceLink(up=found.up, rate_bits_per_second=found.rate))
    fault = pb.DeviceDmaFault(queue=found.queue, iova=found.iova, write=found.write, count=found.count)
    return pb.DriveResponse(fault=fault)


def extent(bus: MemoryBus, address: int, size: int) -> hardware_pb2.Extent:
    """Returns where callers map a piece of DMA memory."""
    offset = bus.dma.offset + address - bus.dma.base
    return hardware_pb2.Extent(path=str(bus.path), offset=offset, size_bytes=size, address=address)


def opened(found: Device, page: DmaBuffer, names: Names, bus: MemoryBus) -> pb.DriveResponse:
    """Returns the first message of a driver's stream."""
    place = extent(bus, page.address, page_bytes(found.model.queue_limit))
    return pb.DriveResponse(opened=pb.DriveOpened(device=device(found, names), device_page=place))


def check_allocation(request: pb.AllocateDmaBufferRequest) -> None:
    """Raises `InvalidArgument` for a size or an owner out of range."""
    with Checks() as check:
        check.range("size_bytes", request.size_bytes, 4096, MAX_BUFFER)
        check.aligned("size_bytes", request.size_bytes, 4096)
        check.that(bool(request.owner), "owner", "is empty")
        check.max_bytes("owner", request.owner, _MAX_OWNER)


def dma_buffer(found: DmaBuffer, bus: MemoryBus) -> pb.DmaBuffer:
    """Returns DMA memory as a message."""
    return pb.DmaBuffer(
        handle=handle(found.handle), address=found.address, extent=extent(bus, found.address, found.size)
    )
