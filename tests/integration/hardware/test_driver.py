"""A driver in another process: it has sockets, the file that extents name, and nothing of Lamina's own code."""

from __future__ import annotations

import mmap
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc, hardware_pb2, iommu_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as iommu

from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build
from lamina_kit.clock import RealClock
from lamina_kit.layer.service import Environment, connect, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng

DEVICE = "hosts/h1/devices/dma0"
SESSION = (("lamina-session", "h1/driver/1"),)
TAIL, SLEEPS, HEAD, DEVICE_SLEEPS = 4096, 4100, 4160, 4164
RING_WORDS = 4104


@pytest.fixture
async def target(short_dir: Path) -> AsyncIterator[str]:
    """Returns the address of a hardware service on a free port."""
    clock, rng = RealClock(), Rng(3)
    layer = LayerState("hardware", "h1", clock, rng)
    environment = Environment("h1", clock, rng, short_dir, layer, bus_path=short_dir / "ram")
    config = HardwareConfig(cores=1, memory_bytes=16 << 20, run_pages=4, core_path="portable")
    service = build(environment, config)
    await service.start()
    served = await serve(service, ["127.0.0.1:0"], layer)
    yield served.addresses[0]
    await served.stop()
    await service.stop()


def mapped(extent: hardware_pb2.Extent) -> mmap.mmap:
    """Maps what an extent names."""
    with open(extent.path, "r+b") as file:
        return mmap.mmap(file.fileno(), extent.size_bytes, offset=extent.offset)


async def test_a_driver_below_the_mmu(target: str) -> None:
    """Rings, buffers and doorbells in mapped DMA memory, an identity domain, interrupts over the stream."""
    async with connect(target) as channel:
        session = layer_pb2_grpc.LayerStub(channel).OpenSession(
            layer_pb2.OpenSessionRequest(owner="h1/driver", epoch=1)
        )
        await session.read()
        devices, units = devices_pb2_grpc.DevicesStub(channel), iommu_pb2_grpc.IommuStub(channel)
        request = pb.AllocateDmaBufferRequest(size_bytes=1 << 20, owner="test")
        buffer = await devices.AllocateDmaBuffer(request, metadata=SESSION)
        wish = iommu.DmaDomain(kind=iommu.DmaDomain.KIND_IDENTITY)
        domain = await units.CreateDmaDomain(iommu.CreateDmaDomainRequest(dma_domain=wish), metadata=SESSION)
        attach = iommu.AttachDeviceRequest(handle=domain.handle, device=DEVICE)
        await units.AttachDevice(attach, metadata=SESSION)
        stream: Any = devices.Drive(metadata=SESSION)
        await stream.write(pb.DriveRequest(open=pb.DriveOpen(device=DEVICE)))
        opened = (await stream.read()).opened
        with mapped(buffer.extent) as memory, mapped(opened.device_page) as page:
            memory[65536 : 65536 + 5000] = bytes(range(250)) * 20
            copy = struct.pack("<IIQQ", 1, 5000, buffer.address + 65536, buffer.address + 131072)
            memory[: len(copy)] = copy
            page[RING_WORDS : RING_WORDS + 12] = struct.pack("<QI", buffer.address, 8)
            page[TAIL : TAIL + 4] = struct.pack("<I", 1)
            assert struct.unpack_from("<I", page, DEVICE_SLEEPS) == (1,)
            await stream.write(pb.DriveRequest(doorbell=pb.Doorbell(queues=[pb.QueueTail(queue=0, tail=1)])))
            told = (await stream.read()).interrupts
            assert list(told.vectors) == [0]
            assert struct.unpack_from("<I", page, HEAD) == (1,)
            assert struct.unpack_from("<II", memory, 24) == (1, 5000)
            assert memory[131072 : 131072 + 5000] == memory[65536 : 65536 + 5000]
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        device = await devices.GetDevice(pb.GetDeviceRequest(name=DEVICE))
        assert (device.driver, device.dma_domain) == ("", "")
        session.cancel()
