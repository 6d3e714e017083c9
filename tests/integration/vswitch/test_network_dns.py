"""DNS beyond one datagram: over TCP, from other servers, and the bounds of both."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from tests.integration.vswitch.guest import Guest, read_answer
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, NetworkBench

from lamina_net.packets import ipv4
from lamina_net.tcp.config import TcpConfig
from lamina_net.tcp.interface import Endpoint, Errno, Refused, Status
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.network.dns import name as names

pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)
ROUTER = 0x0A000201


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch."""
    return await NetworkBench(await start(), device).open()


def question(name: str, kind: int = 1) -> bytes:
    """Return a question."""
    return struct.pack("!HHHHHH", 9, 0x0100, 1, 0, 0, 0) + names.write(name, {}, 12) + struct.pack("!HH", kind, 1)


def framed(*messages: bytes) -> bytes:
    """Return messages as a stream carries them."""
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


class Caller:
    """A TCP connection of a guest to its router."""

    def __init__(self, guest: Guest, clock: Any, port: int = 53, number: int = 0) -> None:
        self.guest, self.clock = guest, clock
        self.tcp = TcpLayer(TcpConfig(), bytes([port, number]) + guest.mac)
        handle = self.tcp.connect(guest.address, Endpoint(guest.router, port), clock.now_ns(), mtu=1500)
        assert isinstance(handle, int)
        self.tcp.set_options(handle, clock.now_ns(), nodelay=True)
        self.handle = handle
        self.heard = b""
        status = self.tcp.status(handle)
        assert isinstance(status, Status)
        self.local_port = status.local.port.to_bytes(2, "big")

    async def step(self) -> None:
        """Send what there is to send, and take the next segment."""
        self.flush()

        def of(packet: ipv4.Packet) -> Any:
            return packet if packet.protocol == ipv4.TCP and packet.payload[2:4] == self.local_port else None

        packet = await self.guest.packet(of)
        self.tcp.segment(packet.src, packet.dst, packet.payload, self.clock.now_ns())
        data = self.tcp.recv(self.handle, 1 << 20, self.clock.now_ns())
        self.heard += data if isinstance(data, bytes) else b""
        self.flush()

    def flush(self) -> None:
        """Send what there is to send."""
        for segment in self.tcp.drain().packets:
            self.guest.send_packet(ipv4.Packet(segment.src, segment.dst, ipv4.TCP, segment.data))

    async def say(self, data: bytes) -> None:
        """Send bytes, once connected."""
        while isinstance(self.tcp.send(self.handle, data, self.clock.now_ns()), Refused):
            await self.step()
        self.flush()

    async def message(self) -> bytes:
        """Return the next message."""
        while len(self.heard) < 2 or len(self.heard) < 2 + int.from_bytes(self.heard[:2], "big"):
            await self.step()
        size = 2 + int.from_bytes(self.heard[:2], "big")
        found, self.heard = self.heard[2:size], self.heard[size:]
        return found

    def error(self) -> Any:
        """Return why the connection ended."""
        ready = self.tcp.poll(self.handle)
        return ready.errno if isinstance(ready, Refused) else ready.error


async def test_what_does_not_fit_a_datagram_comes_over_tcp(bench: NetworkBench, manual_clock: Any) -> None:
    """One connection asks several times, with questions cut anywhere; long answers come whole."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    answers = [f"10.1.0.{number}" for number in range(64)]
    record = nets.DnsRecord(dns_name="big.lab", type=nets.DnsRecord.TYPE_A, answers=answers)
    await bench.networks.UpdateDnsRecords(nets.UpdateDnsRecordsRequest(parent=LAN, source="me", dns_records=[record]))
    caller = Caller(guest, manual_clock)
    stream = framed(question("big.lab"), question("none.lab"))
    await caller.say(stream[:9])
    await caller.say(stream[9:])
    flags, size, records = read_answer(await caller.message())
    assert (flags & 0x0200, len(records)) == (0, 64) and size > 512
    flags, _, records = read_answer(await caller.message())
    assert (flags & 15, [kind for _, kind, _ in records]) == (3, [6])


async def test_connections_that_cost_are_cut(bench: NetworkBench, manual_clock: Any) -> None:
    """Nonsense, silence for 10 s, and a seventeenth connection are reset; other ports refuse at once."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    refused = Caller(guest, manual_clock, port=80)
    await refused.step()
    assert refused.error() == Errno.CONNREFUSED
    wrong = Caller(guest, manual_clock)
    await wrong.say(b"\xff\xff" + bytes(100))
    while wrong.error() is None:
        await wrong.step()
    assert wrong.error() == Errno.CONNRESET
    silent = Caller(guest, manual_clock)
    await silent.say(framed(question("a.lab")))
    await silent.message()
    for _ in range(11):
        await manual_clock.advance(SECOND_NS)
    while silent.error() is None:
        await silent.step()
    assert silent.error() == Errno.CONNRESET
    callers = [Caller(guest, manual_clock, number=number) for number in range(1, 18)]
    for caller in callers:
        await caller.step()
    while callers[-1].error() is None:
        await callers[-1].step()
    assert [caller.error() for caller in callers] == [None] * 16 + [Errno.CONNRESET]


class Server(asyncio.DatagramProtocol):
    """A DNS server that answers `answers` times one address for every name, and remembers what it was asked."""

    answers = 1

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        """Keep where to answer."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer, but before that with another number, as somebody would who guesses."""
        self.asked.append(data)
        head = struct.pack("!HHHHH", 0x8180, 1, self.answers, 0, 0) + data[12:]
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4"
        self._transport.sendto(bytes([data[0] ^ 1, data[1]]) + head + (record + bytes(4)) * self.answers, addr)
        self._transport.sendto(data[:2] + head + (record + bytes([1, 2, 3, 4])) * self.answers, addr)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    """Returns a server at a port of this machine."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    yield protocol, transport.get_extra_info("sockname")[1]
    transport.close()


@pytest.mark.real_time("other servers are reached by sockets of the machine")
async def test_other_names_are_asked_from_other_servers(
    bench: NetworkBench, server: tuple[Server, int], manual_clock: Any
) -> None:
    """The asker's number comes back and never leaves; own domains are not asked for; a dead server is passed over."""
    protocol, port = server
    asks = nets.DnsResponder(domains=["lab"], upstream_addresses=["127.0.0.1:9", f"127.0.0.1:{port}"])
    await bench.create(dns=asks)
    guest = await bench.guest(1)
    await guest.get_address()
    _, _, records = await guest.ask("example.org", 1)
    assert records == [("example.org", 1, bytes([1, 2, 3, 4]))]
    assert (await guest.ask("none.lab", 1))[0] & 15 == 3
    assert [names.read(each, 12) for each in protocol.asked] == [("example.org", 25)]
    caller = Caller(guest, manual_clock)
    await caller.say(framed(question("example.net")))
    assert read_answer(await caller.message())[2] == [("example.net", 1, bytes([1, 2, 3, 4]))]
    protocol.answers = 80  # more than this responder says itself: how much it may be is between asker and server
    _, size, records = await guest.ask("long.example.org", 1)
    assert size > 1232 and records == [("long.example.org", 1, bytes([1, 2, 3, 4]))] * 80
