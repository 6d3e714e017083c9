"""A vswitch service over both wires, and a device to plug into its ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lamina.common.v1 import layer_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb
from lamina.vswitch.v1 import vswitch_pb2_grpc as rpc

from lamina_kit.layer.service import Environment, Served, connect, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.server import build


@dataclass
class Running:
    """One start of the service: what it recorded, and stubs over the wire under test."""

    service: Any
    state: LayerState
    channel: Any
    switches: Any
    ports: Any
    layer: Any
    served: Served | None

    async def stop(self) -> None:
        """Stop serving, then the service."""
        await self.channel.close()
        if self.served is not None:
            await self.served.stop(0)
        await self.service.stop()


class Starter:
    """Starts the service, again and again in the same folder if a test wants."""

    def __init__(self, wire: str, state_dir: Path, clock: Any) -> None:
        self.wire, self.state_dir, self.clock = wire, state_dir, clock
        self.running: list[Running] = []

    async def __call__(self, config: VswitchConfig | None = None, channels: dict[str, Any] | None = None) -> Running:
        """Start the service."""
        state = LayerState("vswitch", "h1", self.clock, Rng("test"))
        environment = Environment("h1", self.clock, Rng("test"), self.state_dir, state, channels or {})
        service = build(environment, config or VswitchConfig())
        await service.start()
        served = await serve(service, ["127.0.0.1:0"], state) if self.wire == "sockets" else None
        channel = connect(served.addresses[0]) if served else local(service, state)
        stubs = (rpc.SwitchesStub(channel), rpc.PortsStub(channel), layer_pb2_grpc.LayerStub(channel))
        self.running.append(Running(service, state, channel, *stubs, served))
        return self.running[-1]


@pytest.fixture(params=["local", "sockets"])
async def start(request: pytest.FixtureRequest, tmp_path: Path, manual_clock: Any) -> AsyncIterator[Starter]:
    """Returns what starts the service over one of the two wires."""
    starter = Starter(request.param, tmp_path, manual_clock)
    yield starter
    for running in starter.running:
        await running.stop()


class Device:
    """A device behind a port: sends batches, collects what comes."""

    def __init__(self, ports: Any, handle: Any, **options: Any) -> None:
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._outgoing.put_nowait(pb.AttachRequest(open=pb.AttachOpen(handle=handle, **options)))
        self.call = ports.Attach(self._requests())
        self.opened: pb.AttachOpened | None = None

    async def _requests(self) -> AsyncIterator[pb.AttachRequest]:
        while (item := await self._outgoing.get()) is not None:
            yield item

    async def next(self) -> pb.AttachResponse:
        """Return the next message; the test's deadline is ten seconds."""
        async with asyncio.timeout(10):
            response = await self.call.read()
        assert isinstance(response, pb.AttachResponse), "the stream has ended"
        return response

    async def plug_in(self) -> Device:
        """Wait until the device is attached."""
        self.opened = (await self.next()).opened
        return self

    def send(self, frames: Iterable[bytes]) -> None:
        """Send one batch."""
        self._outgoing.put_nowait(pb.AttachRequest(frames=pb.FrameBatch(frames=frames)))

    def send_message(self, message: pb.AttachRequest) -> None:
        """Send any message."""
        self._outgoing.put_nowait(message)

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self._outgoing.put_nowait(None)

    async def receive(self, count: int) -> list[bytes]:
        """Return the next `count` frames."""
        frames: list[bytes] = []
        while len(frames) < count:
            response = await self.next()
            frames.extend(response.frames.frames)
        return frames


@pytest.fixture
def device() -> type[Device]:
    """Returns the class of devices."""
    return Device
