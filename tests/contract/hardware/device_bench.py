"""What tests of devices share: sessions, streams of drivers, rings of DMA engines, tables of the IOMMU."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc, hardware_pb2, iommu_pb2_grpc
from lamina.hardware.v1 import iommu_pb2 as iommu

from lamina_kit.bus.device_page import DevicePage
from lamina_kit.engines import engines_of
from lamina_kit.errors import LaminaError
from lamina_kit.rpc import status


def modelled_cores() -> list[str]:
    """Returns the engines with modelled cores, which run contexts of every kind."""
    return [name for name, engine in engines_of("hardware").items() if engine.cores_of == "model"]


@pytest.fixture(params=sorted(engines_of("hardware")))
def variant(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns an engine's name and the core path that starts fastest: devices do not care how instructions run."""
    missing = engines_of("hardware")[request.param].missing()
    if missing:
        pytest.skip("; ".join(missing))
    return request.param, "portable"


@pytest.fixture(params=modelled_cores())
def variant_with_cores(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns as `variant`, of modelled cores; `test_linux.py`, `test_kvm_runs.py` have the refusals of the others."""
    return request.param, "portable"


async def runs_contexts(bench: Any) -> bool:
    """Returns whether a machine runs contexts of every kind; if not, one of one stage is refused with its reason."""
    host = await bench.hosts.GetHost(hardware_pb2.GetHostRequest())
    if host.core_count and host.core_path != "kvm":
        return True
    expected = "ONE_STAGE_NOT_SUPPORTED" if host.core_count else "CORES_ABSENT"
    assert await reason(bench.create()) == ("UNIMPLEMENTED", expected)
    return False


DMA0, DMA1 = "hosts/h1/devices/dma0", "hosts/h1/devices/dma1"
PAGE = 4096


async def refusal(call: Any) -> LaminaError:
    """Returns the error with which a call, or reading a stream, is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return status.rpc_error(refused.value)


async def reason(call: Any) -> tuple[str, str]:
    """Returns code and reason with which a call is refused."""
    error = await refusal(call)
    return error.code, error.reason


class Owner:
    """A session of one owner."""

    def __init__(self, bench: Any, name: str = "h1/driver", epoch: int = 1) -> None:
        self.name = name
        self.epoch = epoch
        self._bench = bench
        self.metadata: tuple[tuple[str, str], ...] = (("lamina-session", f"{name}/{epoch}"),)

    async def __aenter__(self) -> Owner:
        stub = layer_pb2_grpc.LayerStub(self._bench.channel)
        self.stream = stub.OpenSession(layer_pb2.OpenSessionRequest(owner=self.name, epoch=self.epoch))
        await self.stream.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()


class Driver:
    """A stream that drives one device."""

    def __init__(self, bench: Any, owner: Owner, device: str = DMA0) -> None:
        self._bench = bench
        self._device = device
        self.stream = devices_pb2_grpc.DevicesStub(bench.channel).Drive(metadata=owner.metadata)

    async def __aenter__(self) -> Driver:
        self.opened = (await self.open()).opened
        extent = self.opened.device_page
        self.page = DevicePage(self._bench.bus.dma, extent.address, 4)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()

    async def open(self) -> pb.DriveResponse:
        """Takes the device; returns the first message."""
        await self.stream.write(pb.DriveRequest(open=pb.DriveOpen(device=self._device)))
        return await self.read()

    async def read(self) -> pb.DriveResponse:
        """Returns the next message."""
        response = await self.stream.read()
        assert isinstance(response, pb.DriveResponse)
        return response

    async def ring(self, tail: int, queue: int = 0) -> None:
        """Sends a doorbell."""
        bell = pb.Doorbell(queues=[pb.QueueTail(queue=queue, tail=tail)])
        await self.stream.write(pb.DriveRequest(doorbell=bell))


def descriptor(source: int, destination: int, size: int, control: int = 1) -> bytes:
    """Returns a descriptor of a DMA engine; by default a copy that ends with an interrupt."""
    return struct.pack("<IIQQQ", control, size, source, destination, 0)


class Tables:
    """Domains of the IOMMU on one machine: makes them, gives them frames, maps."""

    def __init__(self, bench: Any, owner: Owner) -> None:
        self.bench = bench
        self.owner = owner
        self.stub = iommu_pb2_grpc.IommuStub(bench.channel)

    async def create(self, **wish: Any) -> iommu.DmaDomain:
        """Makes a domain; one that `MapDma` fills gets a root unless one is given."""
        if "root_address" not in wish and wish.get("kind", 0) != iommu.DmaDomain.KIND_IDENTITY:
            wish["root_address"] = self.bench.frames(1)
        request = iommu.CreateDmaDomainRequest(dma_domain=iommu.DmaDomain(**wish))
        made: iommu.DmaDomain = await self.stub.CreateDmaDomain(request, metadata=self.owner.metadata)
        return made

    async def give(self, domain: iommu.DmaDomain, count: int = 8) -> list[int]:
        """Gives frames for tables; returns their numbers."""
        first = self.bench.frames(count) >> 12
        frames = list(range(first, first + count))
        await self.stub.AddTableFrames(iommu.AddTableFramesRequest(handle=domain.handle, frames=frames))
        return frames

    async def map(self, domain: iommu.DmaDomain, *mappings: tuple[int, int, int], read: bool = True) -> None:
        """Maps (DMA address, physical address, bytes), for writing and, by default, reading."""
        wanted = [
            iommu.DmaMapping(iova=iova, address=pa, size_bytes=size, read=read, write=True)
            for iova, pa, size in mappings
        ]
        await self.stub.MapDma(iommu.MapDmaRequest(handle=domain.handle, mappings=wanted))

    async def unmap(self, domain: iommu.DmaDomain, iova: int, size: int = PAGE) -> iommu.UnmapDmaResponse:
        """Unmaps one range."""
        ranges = [iommu.DmaRange(iova=iova, size_bytes=size)]
        response = await self.stub.UnmapDma(iommu.UnmapDmaRequest(handle=domain.handle, ranges=ranges))
        assert isinstance(response, iommu.UnmapDmaResponse)
        return response

    async def attach(self, domain: iommu.DmaDomain, device: str = DMA0) -> list[str]:
        """Attaches a device; returns its group."""
        request = iommu.AttachDeviceRequest(handle=domain.handle, device=device)
        return list((await self.stub.AttachDevice(request, metadata=self.owner.metadata)).devices)

    async def detach(self, device: str = DMA0) -> None:
        """Detaches a device."""
        await self.stub.DetachDevice(iommu.DetachDeviceRequest(device=device), metadata=self.owner.metadata)

    async def get(self, domain: iommu.DmaDomain) -> iommu.DmaDomain:
        """Returns a domain as it is now."""
        found: iommu.DmaDomain = await self.stub.GetDmaDomain(iommu.GetDmaDomainRequest(handle=domain.handle))
        return found

    async def mapped(self, *mappings: tuple[int, int, int], device: str = DMA0) -> iommu.DmaDomain:
        """Returns a domain with mappings to which a device is attached."""
        domain = await self.create()
        await self.give(domain)
        if mappings:
            await self.map(domain, *mappings)
        await self.attach(domain, device)
        return domain

    def read(self, iova: int, size: int, device: str = DMA0) -> Any:
        """Reads as a device."""
        request = iommu.ReadDmaRequest(device=device, iova=iova, size_bytes=size)
        return self.stub.ReadDma(request, metadata=self.owner.metadata)

    def write(self, iova: int, data: bytes, device: str = DMA0) -> Any:
        """Writes as a device."""
        request = iommu.WriteDmaRequest(device=device, iova=iova, data=data)
        return self.stub.WriteDma(request, metadata=self.owner.metadata)

    async def faults(self, device: str = "") -> list[iommu.DmaFault]:
        """Returns the log of refused transfers."""
        request = iommu.ListDmaFaultsRequest(device=device, page_size=1000)
        return list((await self.stub.ListDmaFaults(request)).faults)
