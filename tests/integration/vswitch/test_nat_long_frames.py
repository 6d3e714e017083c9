"""NAT and long frames: a guest whose device takes them, through the service, up and down."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.vswitch.v1 import backends_pb2, rings_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.nat_bench import ALIAS, LOOPBACK, NatBench
from tests.integration.vswitch.ring_device import SWITCH, RingDevice

from lamina_kit.clock import RealClock
from lamina_net.aio import NetShell
from lamina_net.ip.routes import Route
from lamina_net.offload.long_packets import LongFrame, long_frame
from lamina_net.packets.address import Subnet, parse_address
from lamina_net.stack import Stack, StackConfig
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Refused

pytestmark = pytest.mark.real_time("host sockets are of the machine, and so is their time")

HEADER = struct.Struct("<BBHHHHHHHI")
GUEST, ROUTER = parse_address("10.0.2.99") or 0, parse_address("10.0.2.1") or 0
OFFLOADS = backends_pb2.Offloads(checksum=True, tcp4_segments=True)
SIZE = 1_000_000


class LongGuest:
    """A stack whose device takes long frames and leaves sums out."""

    def __init__(self, device: RingDevice) -> None:
        self.device = device
        self.longest = {"sent": 0, "came": 0}
        stack = Stack(b"long", StackConfig(tcp=TcpConfig(burst=65_160)))
        stack.internet.add_interface("eth0", bytes.fromhex("020000000099"), 1500).takes_long = True
        assert stack.internet.add_address("eth0", GUEST, 24)
        stack.internet.routes.add(Route(Subnet(0, 0), "eth0", via=ROUTER))
        self.shell = NetShell(stack, RealClock(), self._transmit)
        self._carrying = asyncio.get_running_loop().create_task(self._carry())

    async def close(self) -> None:
        """End."""
        self._carrying.cancel()
        await self.shell.close()

    def _transmit(self, _: str, frame: bytes) -> None:
        self.longest["sent"] = max(self.longest["sent"], len(frame))
        header = bytes(HEADER.size)
        if isinstance(frame, LongFrame):
            header = HEADER.pack(1, 1, frame.header_bytes, frame.segment_bytes, frame.tcp_at, 16, 0, 0, 0, 0)
        self.device.send([bytes(frame)], offload_headers=header)

    async def _carry(self) -> None:
        while True:
            batch: rings_pb2.DeviceBatch = (await self.device.call.read()).batch
            frames = list(batch.frames)
            for number, frame in enumerate(frames):
                self.longest["came"] = max(self.longest["came"], len(frame))
                if batch.offload_headers:
                    load = HEADER.unpack_from(batch.offload_headers, number * HEADER.size)
                    frames[number] = long_frame(frame, load[3]) if load[0] & 1 else frame
            self.shell.frames("eth0", frames)


@pytest.fixture
async def bench(start: Any, device: Any) -> AsyncIterator[NatBench]:
    """Returns a service with a NAT network."""
    start.clock = RealClock()
    opened = NatBench(await start(), device)
    await opened.open()
    yield await opened.nat()
    opened.stop()


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """Returns the port of a server of this machine that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    served = await asyncio.start_server(serve, LOOPBACK, 0)
    yield served.sockets[0].getsockname()[1]
    served.close()  # from Python 3.12.1 on, waiting for it is waiting for its callers, who end later


async def test_a_million_bytes_up_and_down_in_long_frames(bench: NatBench, echo: int) -> None:
    """Both ways frames are far longer than the MTU, every byte arrives, and the table counts packets of the wire."""
    made = await bench.running.ports.CreatePort(pb.CreatePortRequest(parent=SWITCH, port_id="long"))
    guest = LongGuest(await RingDevice(bench.running, made.handle, offloads=OFFLOADS).plug_in())
    shell, data = guest.shell, bytes(range(250)) * (SIZE // 250)
    async with asyncio.timeout(30):
        handle = shell.stack.sockets.open_tcp()
        assert not isinstance(handle, Refused)
        assert await shell.connect(handle, Endpoint(ALIAS, echo)) is None
        sending = asyncio.get_running_loop().create_task(shell.send_all(handle, data))
        got = b""
        while len(got) < SIZE:
            piece = await shell.recv(handle, 1 << 20)
            assert not isinstance(piece, Refused) and piece
            got += piece
        assert await sending is None
    assert got == data
    assert guest.longest["sent"] > 20_000 and guest.longest["came"] > 20_000
    (entry,) = await bench.entries()
    assert entry.received_packets > SIZE // 1448 and entry.sent_packets > SIZE // 1448
    assert SIZE < entry.received_bytes < SIZE * 1.1 and SIZE < entry.sent_bytes < SIZE * 1.1
    await guest.close()
