"""A modelled guest and programs of this machine: pages, datagrams, echoes, refusals, and what a change leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2 as pb
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.nat_bench import ALIAS, LOOPBACK, NatBench
from tests.integration.vswitch.network_bench import LAN

from lamina_kit.clock import RealClock
from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.address import parse_address
from lamina_net.tcp.interface import Errno

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
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))  # and kept, so that no other program gets the port meanwhile
        guest = await bench.tcp_guest()
        handle = guest.dial(ALIAS, silent.getsockname()[1])
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


async def update(bench: NatBench, **fields: Any) -> None:
    """Change fields of the network."""
    network = nets.Network(name=LAN, **fields)
    await bench.networks.UpdateNetwork(
        nets.UpdateNetworkRequest(network=network, update_mask=FieldMask(paths=list(fields)))
    )


async def test_new_destinations_hold_for_new_flows(bench: NatBench, server: tuple[int, list[bytes]]) -> None:
    """A change of what may be reached leaves open connections alone and refuses the next."""
    port, asked = server
    guest = await bench.tcp_guest()
    handle = await guest.connect(ALIAS, port)
    await update(bench, nat=nets.NatSettings(allowed_destinations=["192.0.2.0/24"], host_alias_address="10.0.2.200"))
    refused = guest.dial(ALIAS, port)
    page = await guest.exchange(handle, b"GET /")
    assert len(page) > 512_000
    assert asked == [b"GET /"]
    assert not guest.ready(refused)
    assert (await bench.drops())["NAT_DESTINATION_FORBIDDEN"] >= 1


async def test_other_ports_of_the_router_begin_anew(bench: NatBench, server: tuple[int, list[bytes]]) -> None:
    """A change of what flows stand on resets them; forwarded ports and virtual servers stay."""
    made = await bench.forward()
    wanted = pb.VirtualServer(address="10.96.0.1", protocol=pb.PROTOCOL_TCP, port=80)
    change = pb.UpdateVirtualServersRequest(parent=LAN, source="test", virtual_servers=[wanted], revision=4)
    await bench.translations.UpdateVirtualServers(change)
    guest = await bench.tcp_guest()
    handle = await guest.connect(ALIAS, server[0])
    await update(
        bench,
        nat=nets.NatSettings(first_port=50000, allowed_destinations=["127.0.0.1/32"], host_alias_address="10.0.2.200"),
    )
    await guest.until(lambda: guest.error(handle) is not None)
    assert guest.error(handle) is Errno.CONNRESET
    listed = await bench.translations.ListPortForwards(pb.ListPortForwardsRequest(parent=LAN))
    assert list(listed.port_forwards) == [made]
    listener = guest.listen(80)
    _, writer = await asyncio.open_connection(LOOPBACK, made.outside_port)
    await guest.accept(listener)
    writer.close()
    assert (await bench.translations.UpdateVirtualServers(change)).virtual_server_count == 1


async def test_a_network_that_goes_takes_its_sockets_with_it(bench: NatBench, server: tuple[int, list[bytes]]) -> None:
    """Its forwarded port is free again at once, and no socket is left."""
    made = await bench.forward()
    guest = await bench.tcp_guest()
    await guest.connect(ALIAS, server[0])
    budget = bench.running.service._translations._budget
    assert budget.open == 2
    await bench.networks.DeleteNetwork(nets.DeleteNetworkRequest(name=LAN, force=True))
    assert budget.open == 0
    with socket.socket() as program:
        program.bind((LOOPBACK, made.outside_port))
