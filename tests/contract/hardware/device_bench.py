"""What tests of devices share: sessions, streams of drivers, rings of DMA engines, tables of the IOMMU."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import devices_pb2 as pb
from lamina.hardware.v1 import devices_pb2_grpc

from lamina_kit import status
from lamina_kit.devicepage import DevicePage
from lamina_kit.engines import engines_of
from lamina_kit.errors import LaminaError


@pytest.fixture(params=sorted(engines_of("hardware")))
def variant(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns an engine's name and the core path that starts fastest: devices do not care how instructions run."""
    missing = engines_of("hardware")[request.param].missing()
    if missing:
        pytest.skip("; ".join(missing))
    return request.param, "portable"


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
