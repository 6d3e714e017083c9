"""A modelled guest and programs of this machine: pages, datagrams, echoes, forwarded ports, refusals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import translations_pb2_grpc as rpc
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.network_bench import LAN, NetworkBench, refusal
from tests.integration.vswitch.tcp_guest import TcpGuest

from lamina_kit.clock import RealClock
from lamina_net import icmp, ipv4, udp
from lamina_net.address import parse_address
from lamina_net.tcp.interface import Errno

pytestmark = pytest.mark.real_time("host sockets are of the machine, and so is their time")

ALIAS = parse_address("10.0.2.200") or 0
LOOPBACK = "127.0.0.1"


class NatBench(NetworkBench):
    """A NAT network to host sockets, in which guests find this machine at 10.0.2.200."""

    guests: list[TcpGuest]

    def stop(self) -> None:
        """Stop the guests with a TCP."""
        for guest in self.guests:
            guest.stop()

    async def tcp_guest(self, number: int = 1) -> TcpGuest:
        """Return a guest with an address and a TCP."""
        self.guests.append(TcpGuest(await self.joined(number)))
        return self.guests[-1]

    async def nat(self, **settings: Any) -> NatBench:
        """Make the network."""
        self.connect()
        wanted = {"allowed_destinations": ["127.0.0.1/32"], "host_alias_address": "10.0.2.200", **settings}
        await self.create(mode=nets.Network.MODE_NAT, nat=nets.NatSettings(**wanted), dhcp=nets.DhcpServer())
        return self

    def connect(self) -> None:
        """Be ready to ask."""
        self.guests = []
        self.translations = rpc.TranslationsStub(self.running.channel)

    async def joined(self, number: int = 1) -> Guest:
        """Return a guest with an address."""
        guest = await self.guest(number)
        await guest.get_address()
        return guest

    async def entries(self) -> list[pb.NatEntry]:
        """Return the translation table."""
        return list((await self.translations.ListNatEntries(pb.ListNatEntriesRequest(parent=LAN))).nat_entries)

    async def forward(self, **fields: Any) -> pb.PortForward:
        """Forward a free port of the machine to port 80 of the first guest, unless told otherwise."""
        defaults = {"protocol": pb.PROTOCOL_TCP, "inside_address": "10.0.2.2", "inside_port": 80}
        wanted = pb.PortForward(**{**defaults, **fields})
        request = pb.CreatePortForwardRequest(parent=LAN, port_forward_id="web", port_forward=wanted)
        made = await self.translations.CreatePortForward(request)
        assert isinstance(made, pb.PortForward)
        return made


@pytest.fixture
async def start_real(start: Any) -> Any:
    """Returns what starts the service on the machine's clock."""
    start.clock = RealClock()
    return start


@pytest.fixture
async def bench(start_real: Any, device: Any) -> AsyncIterator[NatBench]:
    """Returns a service with a NAT network."""
    opened = NatBench(await start_real(), device)
    await opened.open()
    yield await opened.nat()
    opened.stop()


@pytest.fixture
async def server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Returns the port of a server of this machine that answers each request with a page, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read())
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(range(256)) * 2000)
        await writer.drain()
        writer.close()

    served = await asyncio.start_server(serve, LOOPBACK, 0)
    yield served.sockets[0].getsockname()[1], asked
    served.close()
    await served.wait_closed()


async def test_a_guest_fetches_a_page_from_a_server_on_this_machine(
    bench: NatBench, server: tuple[int, list[bytes]]
) -> None:
    """Half a megabyte comes whole, the request arrives whole, and the table shows the flow and its end."""
    port, asked = server
    guest = await bench.tcp_guest()
    handle = await guest.connect(ALIAS, port)
    (entry,) = await bench.entries()
    assert (entry.inside.rpartition(":")[0], entry.peer) == ("10.0.2.2", f"{LOOPBACK}:{port}")
    assert entry.state == pb.NatEntry.STATE_ESTABLISHED
    assert entry.outside.startswith(f"{LOOPBACK}:")
    page = await guest.exchange(handle, b"GET / HTTP/1.0\r\n\r\n")
    assert page == b"HTTP/1.0 200 OK\r\n\r\n" + bytes(range(256)) * 2000
    assert asked == [b"GET / HTTP/1.0\r\n\r\n"]
    (entry,) = await bench.entries()
    assert entry.state == pb.NatEntry.STATE_CLOSED
    assert entry.received_bytes > 512_000


async def test_a_refused_connection_is_refused(bench: NatBench) -> None:
    """A port at which nobody listens resets the guest's SYN."""
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        port = unused.getsockname()[1]
    guest = await bench.tcp_guest()
    handle = guest.dial(ALIAS, port)
    await guest.until(lambda: guest.error(handle) is not None)
    assert guest.error(handle) is Errno.CONNREFUSED


async def test_what_is_not_allowed_is_told(bench: NatBench, server: tuple[int, list[bytes]]) -> None:
    """A destination that is not named gets an ICMP error and a drop with its reason; no socket is opened."""
    guest = await bench.joined()
    guest.send_packet(ipv4.Packet(guest.address, parse_address("192.0.2.1") or 0, ipv4.UDP, udp_payload(guest, 9)))
    _, message = await guest.icmp()
    assert (message.type, message.code) == (icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)
    assert await bench.drops() == {"NAT_DESTINATION_FORBIDDEN": 1}
    assert await bench.entries() == []


def udp_payload(guest: Guest, port: int, data: bytes = b"x", to: str = "192.0.2.1") -> bytes:
    """Return a datagram of a guest."""
    return udp.build(guest.address, parse_address(to) or 0, udp.Datagram(5000, port, data))


async def test_datagrams_go_out_and_come_back(bench: NatBench) -> None:
    """A datagram, larger than a frame, reaches a program of this machine, and its answer the guest."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind((LOOPBACK, 0))
        program.setblocking(False)
        guest = await bench.joined()
        port = program.getsockname()[1]
        body = udp_payload(guest, port, bytes(3000), "10.0.2.200")
        parts = ipv4.fragment(ipv4.Packet(guest.address, ALIAS, ipv4.UDP, body, identification=5), 1500)
        assert isinstance(parts, list)
        for part in parts:
            guest.send_packet(part)
        async with asyncio.timeout(10):
            data, peer = await loop.sock_recvfrom(program, 65536)
        assert data == bytes(3000)
        program.sendto(b"answer", peer)
        answer = await guest.packet(lambda packet: packet if packet.protocol == ipv4.UDP else None)
        assert udp.parse(answer.src, answer.dst, answer.payload) == udp.Datagram(port, 5000, b"answer")
        assert answer.src == ALIAS
        (entry,) = await bench.entries()
        assert (entry.state, entry.outside) == (pb.NatEntry.STATE_REPLIED, f"{LOOPBACK}:{peer[1]}")


def ping_sockets() -> bool:
    """Tell whether the kernel gives this process ping sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


async def test_a_guest_pings_this_machine_where_the_kernel_lets_it(bench: NatBench) -> None:
    """An echo through an unprivileged ping socket comes back with the guest's identifier, or is refused openly."""
    guest = await bench.joined()
    guest.ping(ALIAS, data=b"hello")
    sender, message = await guest.icmp()
    if ping_sockets():
        assert (sender, message.type, message.body) == (ALIAS, icmp.ECHO_REPLY, b"hello")
        assert message.identifier == 7
    else:
        assert (message.type, message.code) == (icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)


async def test_a_forwarded_port_reaches_a_server_in_a_guest(bench: NatBench) -> None:
    """A program of this machine connects to the forwarded port and talks to the guest; deleting ends no connection."""
    guest = await bench.tcp_guest()
    listener = guest.listen(80)
    made = await bench.forward()
    assert (made.name, made.outside_address) == (f"{LAN}/portForwards/web", LOOPBACK)
    assert made.outside_port > 0
    reader, writer = await asyncio.open_connection(LOOPBACK, made.outside_port)
    handle = await guest.accept(listener)
    await bench.translations.DeletePortForward(pb.DeletePortForwardRequest(name=made.name))
    writer.write(b"hello")
    writer.write_eof()
    assert await guest.exchange(handle, b"welcome") == b"hello"
    assert await reader.read() == b"welcome"
    writer.close()
    (entry,) = await bench.entries()
    assert entry.via == entry.outside == f"{LOOPBACK}:{made.outside_port}"
    assert guest.peers == {parse_address("10.0.2.1")}
    with pytest.raises(OSError):
        await asyncio.open_connection(LOOPBACK, made.outside_port)


async def test_a_flush_resets_connections(bench: NatBench, server: tuple[int, list[bytes]]) -> None:
    """The guest and the host's peer both see a reset, and the table is empty."""
    port, _ = server
    guest = await bench.tcp_guest()
    handle = await guest.connect(ALIAS, port)
    done = await bench.translations.FlushNatEntries(pb.FlushNatEntriesRequest(parent=LAN, inside_address="10.0.2.2"))
    assert done.flushed_entries == 1
    await guest.until(lambda: guest.error(handle) is not None)
    assert guest.error(handle) is Errno.CONNRESET
    assert await bench.entries() == []


async def test_a_port_outside_belongs_to_one(bench: NatBench) -> None:
    """A program's port, another forward's and a privileged one are refused, each with its reason; so is the world."""
    with socket.socket() as program:
        program.bind((LOOPBACK, 0))
        program.listen()
        taken = program.getsockname()[1]
        assert await refusal(bench.forward(outside_port=taken)) == ("FAILED_PRECONDITION", "OUTSIDE_PORT_TAKEN")
    made = await bench.forward()
    again = pb.CreatePortForwardRequest(parent=LAN, port_forward_id="again", port_forward=made)
    assert await refusal(bench.translations.CreatePortForward(again)) == ("FAILED_PRECONDITION", "OUTSIDE_PORT_TAKEN")
    for address, expected in (("0.0.0.0", "ADDRESS_NOT_LOOPBACK"), ("192.0.2.1", "ADDRESS_NOT_LOOPBACK")):
        again.port_forward.outside_address = address
        assert (await refusal(bench.translations.CreatePortForward(again)))[1] == expected
    again.port_forward.allow_remote = True
    assert await refusal(bench.translations.CreatePortForward(again)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_a_forward_is_there_again_after_a_start(start_real: Any, device: Any) -> None:
    """A forwarded port keeps its number over a restart, and leads to the guest as before."""
    first = NatBench(await start_real(), device)
    await first.open()
    made = await (await first.nat()).forward()
    await first.running.stop()
    second = NatBench(await start_real(), device)
    second.connect()
    listed = await second.translations.ListPortForwards(pb.ListPortForwardsRequest(parent=LAN))
    assert list(listed.port_forwards) == [made]
    guest = await second.tcp_guest()
    listener = guest.listen(80)
    _, writer = await asyncio.open_connection(LOOPBACK, made.outside_port)
    await guest.accept(listener)
    writer.close()
    second.stop()


async def test_creating_a_forward_is_idempotent(bench: NatBench) -> None:
    """The same request returns the same forward; another with its id, or its name, is refused; wrong ones too."""
    wanted = pb.PortForward(protocol=pb.PROTOCOL_UDP, inside_address="10.0.2.2", inside_port=53)
    request = pb.CreatePortForwardRequest(parent=LAN, port_forward_id="dns", port_forward=wanted, request_id="r1")
    create = bench.translations.CreatePortForward
    made = await create(request)
    assert await create(request) == made
    request.port_forward.inside_port = 54
    assert await refusal(create(request)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    request.request_id = ""
    assert await refusal(create(request)) == ("ALREADY_EXISTS", "PORT_FORWARD_EXISTS")
    request.port_forward_id = "other"
    for field, value in (
        ("protocol", pb.PROTOCOL_ICMP),
        ("outside_address", "here"),
        ("outside_port", 65536),
        ("inside_address", "10.0.3.2"),
        ("inside_address", "10.0.2.1"),
        ("inside_address", "10.0.2.255"),
        ("inside_port", 0),
    ):
        wrong = pb.CreatePortForwardRequest()
        wrong.CopyFrom(request)
        setattr(wrong.port_forward, field, value)
        assert await refusal(create(wrong)) == ("INVALID_ARGUMENT", "REQUEST_INVALID"), field
    await bench.translations.DeletePortForward(pb.DeletePortForwardRequest(name=made.name))
    request.port_forward_id, request.request_id = "dns", "r1"
    assert (await create(request)).inside_port == 54, "the request id is free again"


async def test_peers_of_a_forwarded_udp_port_get_their_own_answers(bench: NatBench) -> None:
    """Two programs of this machine ask a guest through one port, and each gets its answer."""
    loop = asyncio.get_running_loop()
    guest = await bench.joined()
    made = await bench.forward(protocol=pb.PROTOCOL_UDP, inside_port=53)
    programs = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for number, program in enumerate(programs):
        program.setblocking(False)
        program.connect((LOOPBACK, made.outside_port))
        program.send(b"question %d" % number)
        packet = await guest.packet(lambda packet: packet if packet.protocol == ipv4.UDP else None)
        asked = udp.parse(packet.src, packet.dst, packet.payload)
        assert isinstance(asked, udp.Datagram)
        body = udp.build(packet.dst, packet.src, udp.Datagram(53, asked.source_port, b"to " + asked.payload))
        guest.send_packet(ipv4.Packet(packet.dst, packet.src, ipv4.UDP, body))
    async with asyncio.timeout(10):
        answers = [await loop.sock_recv(program, 100) for program in programs]
    assert answers == [b"to question 0", b"to question 1"]
    for program in programs:
        program.close()
    listed = await bench.translations.ListPortForwards(pb.ListPortForwardsRequest(parent=LAN))
    assert [each.flow_count for each in listed.port_forwards] == [2]
    assert len(await bench.entries()) == 2
    await bench.translations.DeletePortForward(pb.DeletePortForwardRequest(name=made.name))
    assert await bench.entries() == []


async def test_guests_cannot_take_the_sockets_of_the_service(bench: NatBench) -> None:
    """Beyond the budget of the process a flow is dropped with its reason, and the service goes on answering."""
    bench.running.service._translations._budget.limit = 1
    guest = await bench.joined()
    for port in (9, 10):
        guest.send_packet(ipv4.Packet(guest.address, ALIAS, ipv4.UDP, udp_payload(guest, port, to="10.0.2.200")))
    while True:
        _, message = await guest.icmp()
        if message.code == icmp.HOST_UNREACHABLE:  # the other may be told that nobody listens there
            break
    assert (await bench.drops())["NAT_PORTS_EXHAUSTED"] == 1
    assert len(await bench.entries()) == 1


async def test_an_invented_source_gets_no_flow(bench: NatBench) -> None:
    """A packet from an address that is nowhere inside opens no socket and is counted."""
    guest = await bench.joined()
    guest.send_packet(ipv4.Packet(parse_address("198.51.100.9") or 0, ALIAS, ipv4.UDP, udp_payload(guest, 9)))
    guest.ping(guest.router)
    await guest.icmp()
    assert await bench.drops() == {"NO_ROUTE": 1}
    assert await bench.entries() == []
