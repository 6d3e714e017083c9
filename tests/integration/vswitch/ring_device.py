"""A device behind a port that says what it can: `PortRings.AttachDevice`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from lamina.vswitch.v1 import backends_pb2, rings_pb2, rings_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2 as pb

SWITCH = "hosts/h1/switches/s1"
ALL = backends_pb2.Offloads(checksum=True, tcp4_segments=True, tcp6_segments=True, udp_segments=True, vlan_beside=True)


class RingDevice:
    """A device at an open stream: sends batches, collects what comes."""

    def __init__(self, running: Any, handle: Any, **options: Any) -> None:
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        opening = rings_pb2.AttachDeviceOpen(handle=handle, **options)
        self._outgoing.put_nowait(rings_pb2.AttachDeviceRequest(open=opening))
        self.call = rings(running).AttachDevice(self._requests())
        self.opened: rings_pb2.AttachDeviceOpened | None = None

    async def _requests(self) -> AsyncIterator[rings_pb2.AttachDeviceRequest]:
        while (item := await self._outgoing.get()) is not None:
            yield item

    async def next(self) -> rings_pb2.AttachDeviceResponse:
        """Return the next message."""
        async with asyncio.timeout(10):
            response = await self.call.read()
        assert isinstance(response, rings_pb2.AttachDeviceResponse), "the stream has ended"
        return response

    async def plug_in(self) -> RingDevice:
        """Wait until the device is attached."""
        self.opened = (await self.next()).opened
        return self

    def send(self, frames: Sequence[bytes], **columns: Any) -> None:
        """Send one batch."""
        batch = rings_pb2.DeviceBatch(frames=frames, **columns)
        self._outgoing.put_nowait(rings_pb2.AttachDeviceRequest(batch=batch))

    def send_message(self, message: rings_pb2.AttachDeviceRequest) -> None:
        """Send any message."""
        self._outgoing.put_nowait(message)

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self._outgoing.put_nowait(None)

    async def receive(self, count: int) -> list[bytes]:
        """Return the next `count` frames."""
        frames: list[bytes] = []
        while len(frames) < count:
            frames.extend((await self.next()).batch.frames)
        return frames


def rings(running: Any) -> Any:
    """Return the stub of `PortRings`."""
    return rings_pb2_grpc.PortRingsStub(running.channel)


async def make_ports(running: Any, *names: str, mtu_bytes: int = 0) -> list[pb.Port]:
    """Make a switch if it is missing, and ports."""
    switch = pb.CreateSwitchRequest(switch_id="s1", request_id="switch", switch=pb.Switch(mtu_bytes=mtu_bytes))
    await running.switches.CreateSwitch(switch)
    requests = [pb.CreatePortRequest(parent=SWITCH, port_id=name) for name in names]
    return [await running.ports.CreatePort(request) for request in requests]


async def counters(running: Any, port: pb.Port) -> tuple[int, dict[str, int]]:
    """Return how many frames a port sent, and its drops by the reason's name."""
    found = await running.ports.GetPortCounters(pb.GetPortCountersRequest(port=port.name))
    prefix = len("DROP_REASON_")
    return found.sent_frames, {pb.DropReason.Name(drop.reason)[prefix:]: drop.frames for drop in found.drops}
