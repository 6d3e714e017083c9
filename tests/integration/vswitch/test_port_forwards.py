"""Forwarded ports over the contract: programs of this machine reach guests; whose a port is; starts and repeats."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.vswitch.v1 import translations_pb2 as pb
from tests.integration.vswitch.nat_bench import LOOPBACK, NatBench
from tests.integration.vswitch.network_bench import LAN
from tests.integration.vswitch.refusals import refusal

from lamina_kit.clock import RealClock
from lamina_net.packets import ipv4, udp
from lamina_net.packets.address import parse_address

pytestmark = pytest.mark.real_time("host sockets are of the machine, and so is their time")


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
