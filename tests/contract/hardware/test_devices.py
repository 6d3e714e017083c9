"""Devices, who drives them, and DMA memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    DMA1,
    Driver,
    Owner,
    Tables,
    reason,
    variant,
)

from lamina_hardware.domain.devices.device import DeviceKind
from lamina_hardware.domain.devices.dma_engine import DmaEngine
from lamina_kit.bus.dma import DMA_BASE

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

MIB = 1 << 20


@pytest.fixture
def devices(bench: Any) -> Any:
    """Returns the stub."""
    return devices_pb2_grpc.DevicesStub(bench.channel)


def in_file(extent: Any) -> bytes:
    """Returns the bytes of an extent, from its file."""
    with Path(extent.path).open("rb") as file:
        file.seek(extent.offset)
        return file.read(extent.size_bytes)


async def allocate(devices: Any, size: int = 4096, **more: Any) -> pb.DmaBuffer:
    """Returns DMA memory."""
    request = pb.AllocateDmaBufferRequest(size_bytes=size, owner="test", **more)
    buffer: pb.DmaBuffer = await devices.AllocateDmaBuffer(request)
    return buffer


async def test_a_machine_has_dma_engines(devices: Any) -> None:
    """Two DMA engines are there from the start, each in a group of its own, driven by nobody, with DMA blocked."""
    listed = (await devices.ListDevices(pb.ListDevicesRequest(kind=pb.Device.KIND_DMA_ENGINE))).devices
    assert [device.name for device in listed] == [DMA0, DMA1]
    first, second = listed
    assert first == await devices.GetDevice(pb.GetDeviceRequest(name=DMA0))
    assert first.iommu_group != second.iommu_group
    assert (first.handle.generation, first.vector_count, first.state) == (1, 4, pb.Device.STATE_IDLE)
    assert (first.dma_domain, first.driver, first.dma_transfers, first.dma_faults) == ("", "", 0, 0)


async def test_lists_have_pages(devices: Any) -> None:
    """Pages follow each other without a gap; a token of somebody else's is refused, and so is an unknown kind."""
    first = await devices.ListDevices(pb.ListDevicesRequest(page_size=1))
    second = await devices.ListDevices(pb.ListDevicesRequest(page_size=1, page_token=first.next_page_token))
    assert [device.name for page in (first, second) for device in page.devices] == [DMA0, DMA1]
    call = devices.ListDevices(pb.ListDevicesRequest(page_token="/"))
    assert await reason(call) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    call = devices.ListDevices(pb.ListDevicesRequest(kind=77))  # type: ignore[arg-type]
    assert await reason(call) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_a_device_that_is_not_there(devices: Any) -> None:
    """Whatever names a device that the host does not have is NOT_FOUND."""
    for name in ("hosts/h1/devices/none", "hosts/h2/devices/dma0"):
        assert await reason(devices.GetDevice(pb.GetDeviceRequest(name=name))) == ("NOT_FOUND", "DEVICE_UNKNOWN")
    call = devices.ReadConfiguration(pb.ReadConfigurationRequest(name="hosts/h1/devices/none"))
    assert await reason(call) == ("NOT_FOUND", "DEVICE_UNKNOWN")
    call = devices.ResetDevice(pb.ResetDeviceRequest(name="hosts/h1/devices/none"))
    assert await reason(call) == ("NOT_FOUND", "DEVICE_UNKNOWN")


async def test_the_configuration_space(devices: Any, bench: Any) -> None:
    """It names the device as GetDevice does; its list of capabilities ends; a driven device masters the bus."""
    device = await devices.GetDevice(pb.GetDeviceRequest(name=DMA0))
    space = (await devices.ReadConfiguration(pb.ReadConfigurationRequest(name=DMA0))).data
    assert len(space) == 256
    vendor, number, command, status = struct.unpack_from("<4H", space)
    assert (vendor, number) == (device.vendor_id, device.device_id)
    assert int.from_bytes(space[9:12], "little") == device.class_code
    assert (command & 4, status & 16) == (0, 16)
    place, seen = space[0x34], []
    while place:
        seen.append(space[place])
        place = space[place + 1]
    assert seen == [0x11, 0x10]  # MSI-X, PCI Express
    async with Owner(bench) as owner, Driver(bench, owner):
        driven = (await devices.ReadConfiguration(pb.ReadConfigurationRequest(name=DMA0))).data
        assert driven[4] & 4


async def test_a_device_that_is_not_on_the_pci_bus(power: Any) -> None:
    """It has no address and no configuration space, and is listed all the same."""
    service, bench = await power()
    service.machine.devices.plug("soc0", DeviceKind.OTHER, None, 99, DmaEngine())
    stub = devices_pb2_grpc.DevicesStub(bench.channel)
    others = (await stub.ListDevices(pb.ListDevicesRequest(kind=pb.Device.KIND_OTHER, page_size=1000))).devices
    (device,) = [other for other in others if other.name.endswith("/soc0")]
    assert (device.pci_address, device.vendor_id, device.iommu_group) == ("", 0, 99)
    call = stub.ReadConfiguration(pb.ReadConfigurationRequest(name=device.name))
    assert await reason(call) == ("UNIMPLEMENTED", "DEVICE_NOT_PCI")
    await service.stop()


async def test_a_group_is_attached_and_detached_as_one(power: Any, eventually: Callable[..., Any]) -> None:
    """Devices that the IOMMU cannot tell apart share a domain; the end of one's driving takes it from all."""
    service, bench = await power()
    service.machine.devices.plug("twin", DeviceKind.DMA_ENGINE, None, 1, DmaEngine())
    twin = "hosts/h1/devices/twin"
    async with Owner(bench) as owner, Owner(bench, "h1/other") as other:
        tables = Tables(bench, owner)
        domain = await tables.create()
        async with Driver(bench, other, twin):
            assert await reason(tables.attach(domain)) == ("FAILED_PRECONDITION", "DEVICE_DRIVEN")
        counts = bench.environment.layer.events.counts
        await eventually(lambda: counts.get("device.closed") == 1, "the end of the other's driving")
        assert await tables.attach(domain) == [DMA0, twin]
        assert list((await tables.get(domain)).devices) == [DMA0, twin]
        async with Driver(bench, owner):
            pass
        await eventually(lambda: counts.get("device.closed") == 2, "the end of the driving")
        assert not (await tables.get(domain)).devices
    await service.stop()


async def test_a_device_has_one_driver(devices: Any, bench: Any, eventually: Callable[..., Any]) -> None:
    """While one session drives a device, others cannot open or reset it; afterwards anybody can."""
    async with Owner(bench) as owner, Owner(bench, "h1/other") as other:
        async with Driver(bench, owner) as driver:
            assert driver.opened.device.driver == "h1/driver"
            assert driver.opened.device.state == pb.Device.STATE_DRIVEN
            assert driver.opened.device_page.size_bytes == 8192
            assert await reason(Driver(bench, other).open()) == ("ALREADY_EXISTS", "DEVICE_DRIVEN")
            request = pb.ResetDeviceRequest(name=DMA0)
            call = devices.ResetDevice(request, metadata=other.metadata)
            assert await reason(call) == ("FAILED_PRECONDITION", "DEVICE_DRIVEN")
            assert (await devices.ResetDevice(request, metadata=owner.metadata)).driver == "h1/driver"
        table = bench.environment
        await eventually(lambda: table.layer.events.counts.get("device.closed"), "the end of the driving")
        async with Driver(bench, other) as driver:
            assert driver.opened.device.driver == "h1/other"


async def test_how_a_stream_must_begin(bench: Any) -> None:
    """The first message opens a device that exists, once, in a session."""
    async with Owner(bench) as owner:
        driver = Driver(bench, owner)
        await driver.ring(1)
        assert await reason(driver.read()) == ("FAILED_PRECONDITION", "DRIVE_NOT_OPENED")
        assert await reason(Driver(bench, owner, "hosts/h1/devices/x").open()) == ("NOT_FOUND", "DEVICE_UNKNOWN")
        driver = Driver(bench, owner)
        await driver.open()
        await driver.stream.write(pb.DriveRequest(open=pb.DriveOpen(device=DMA0)))
        assert await reason(driver.read()) == ("FAILED_PRECONDITION", "DRIVE_NOT_OPENED")
        nobody = Owner(bench)
        nobody.metadata = ()
        assert await reason(Driver(bench, nobody).open()) == ("FAILED_PRECONDITION", "SESSION_REQUIRED")


@pytest.mark.parametrize(
    "message",
    [
        pb.DriveRequest(doorbell=pb.Doorbell(queues=[pb.QueueTail(tail=70000)])),
        pb.DriveRequest(doorbell=pb.Doorbell(queues=[pb.QueueTail(), pb.QueueTail()])),
        pb.DriveRequest(doorbell=pb.Doorbell(queues=[pb.QueueTail(queue=n) for n in range(257)])),
        pb.DriveRequest(mask=pb.VectorMask(masked=[4])),
        pb.DriveRequest(mask=pb.VectorMask(unmasked=[-1])),
        pb.DriveRequest(mask=pb.VectorMask(masked=[0] * 257)),
    ],
)
async def test_what_a_driver_may_not_say(bench: Any, message: pb.DriveRequest) -> None:
    """Messages with too many entries, repeated queues, or numbers out of range end the stream."""
    async with Owner(bench) as owner, Driver(bench, owner) as driver:
        await driver.stream.write(message)
        assert await reason(driver.read()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_doorbells_of_queues_and_tails_that_do_not_exist(bench: Any) -> None:
    """They end the stream."""
    async with Owner(bench) as owner:
        async with Driver(bench, owner) as driver:
            await driver.ring(1, queue=4)
            assert await reason(driver.read()) == ("OUT_OF_RANGE", "QUEUE_UNKNOWN")
        async with Driver(bench, owner, DMA1) as driver:
            await driver.ring(256)
            assert await reason(driver.read()) == ("OUT_OF_RANGE", "TAIL_OUTSIDE_RING")


async def test_the_device_page_of_a_device_after_reset(bench: Any, devices: Any) -> None:
    """It has magic, version, queues and offset where the contract says, indices 0, and both sides asleep."""
    async with Owner(bench) as owner, Driver(bench, owner) as driver:
        extent = driver.opened.device_page
        data = in_file(extent)
        assert struct.unpack_from("<8sIII", data) == (b"LAMDEVPG", 1, 4, 4096)
        for queue in range(4):
            words = struct.unpack_from("<II", data, 4096 + 128 * queue)
            assert words == (0, 1) == struct.unpack_from("<II", data, 4096 + 128 * queue + 64)
        driver.page.set_tail(0, 9)
        await devices.ResetDevice(pb.ResetDeviceRequest(name=DMA0), metadata=owner.metadata)
        assert driver.page.tail(0) == 0


async def test_dma_memory_lies_beyond_ram(devices: Any, bench: Any) -> None:
    """It is contiguous, zeroed, in the bus's file, and at no address that RAM has; a request id repeats it."""
    one = await allocate(devices, 2 * MIB, request_id="r1")
    assert one == await allocate(devices, 2 * MIB, request_id="r1")
    two = await allocate(devices)
    assert one.address >= DMA_BASE > bench.bus.size
    assert one.address + 2 * MIB <= two.address or two.address + 4096 <= one.address
    assert in_file(one.extent) == bytes(2 * MIB)
    bench.bus.dma.write(one.address, b"dirt")
    assert in_file(one.extent)[:4] == b"dirt"
    await devices.FreeDmaBuffer(pb.FreeDmaBufferRequest(handle=one.handle))
    again = await allocate(devices, 2 * MIB)
    assert again.address == one.address
    assert again.handle != one.handle
    assert in_file(again.extent) == bytes(2 * MIB)


async def test_dma_memory_has_bounds(devices: Any) -> None:
    """Sizes and owners out of range are refused, so is more than there is, and a handle that is no longer one."""
    for size in (0, 4095, 4097, 257 * MIB):
        assert (await reason(allocate(devices, size)))[0] == "INVALID_ARGUMENT"
    for owner in ("", "x" * 128):
        call = devices.AllocateDmaBuffer(pb.AllocateDmaBufferRequest(size_bytes=4096, owner=owner))
        assert (await reason(call))[0] == "INVALID_ARGUMENT"
    held = [await allocate(devices, 256 * MIB) for _ in range(4)]
    assert await reason(allocate(devices, 256 * MIB)) == ("RESOURCE_EXHAUSTED", "DMA_MEMORY_EXHAUSTED")
    for buffer in held:
        await devices.FreeDmaBuffer(pb.FreeDmaBufferRequest(handle=buffer.handle))
    for handle in (held[0].handle, handle_pb2.Handle(id=99, generation=1)):
        call = devices.FreeDmaBuffer(pb.FreeDmaBufferRequest(handle=handle))
        assert await reason(call) == ("FAILED_PRECONDITION", "HANDLE_STALE")
