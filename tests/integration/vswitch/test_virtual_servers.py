"""Virtual servers over the contract: guests behind them, counts, sources, revisions, limits, a restart."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import translations_pb2 as pb
from lamina.vswitch.v1 import translations_pb2_grpc as rpc
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.network_bench import LAN, NetworkBench
from tests.integration.vswitch.refusals import refusal

from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.address import parse_address
from lamina_net.tcp import segment
from lamina_net.tcp.segment import ACK, RST, SYN, Segment

VIP = "10.0.2.100"
FAR_VIP = "10.96.0.1"


class Bench(NetworkBench):
    """A host-only network with virtual servers."""

    async def begin(self) -> Bench:
        """Make the network."""
        await self.open()
        await self.create()
        return self.connect()

    def connect(self) -> Bench:
        """Be ready to ask."""
        self.translations = rpc.TranslationsStub(self.running.channel)
        return self

    async def set(self, *servers: pb.VirtualServer, **fields: Any) -> pb.UpdateVirtualServersResponse:
        """Set servers in the name of `orchestrator`."""
        request = pb.UpdateVirtualServersRequest(
            **{"parent": LAN, "source": "orchestrator", "virtual_servers": servers, **fields}
        )
        answer = await self.translations.UpdateVirtualServers(request)
        assert isinstance(answer, pb.UpdateVirtualServersResponse)
        return answer

    async def listed(self) -> list[pb.VirtualServer]:
        """Return the virtual servers."""
        request = pb.ListVirtualServersRequest(parent=LAN)
        return list((await self.translations.ListVirtualServers(request)).virtual_servers)


@pytest.fixture
async def bench(start: Any, device: Any) -> Bench:
    """Returns a service with a host-only network."""
    return await Bench(await start(), device).begin()


def server(
    *backends: str, address: str = VIP, port: int = 53, protocol: pb.Protocol.ValueType = pb.PROTOCOL_UDP, **fields: Any
) -> pb.VirtualServer:
    """Return a virtual server of UDP with backends at port 5353, each of weight 1."""
    made = [pb.VirtualServerBackend(address=each, port=5353, weight=1) for each in backends]
    return pb.VirtualServer(address=address, protocol=protocol, port=port, backends=made, **fields)


def at(text: str) -> int:
    """Return an address as a number."""
    address = parse_address(text)
    assert address is not None
    return address


async def datagram(guest: Guest) -> tuple[ipv4.Packet, udp.Datagram]:
    """Return the next datagram to a guest."""

    def of(packet: ipv4.Packet) -> Any:
        found = udp.parse(packet.src, packet.dst, packet.payload) if packet.protocol == ipv4.UDP else None
        return (packet, found) if isinstance(found, udp.Datagram) and packet.dst == guest.address else None

    found: tuple[ipv4.Packet, udp.Datagram] = await guest.packet(of)
    return found


def send(guest: Guest, to: int, sport: int, dport: int, data: bytes) -> None:
    """Send a datagram."""
    body = udp.build(guest.address, to, udp.Datagram(sport, dport, data))
    guest.send_packet(ipv4.Packet(guest.address, to, ipv4.UDP, body))


@pytest.mark.parametrize("address", [VIP, FAR_VIP])
async def test_neighbours_talk_through_a_virtual_server(bench: Bench, address: str) -> None:
    """Client and backend are in one subnet, the server's address in it or not; both ways are translated, and shown."""
    client, backend = await bench.guest(1), await bench.guest(2)
    await client.get_address()
    await backend.get_address()
    await bench.set(server("10.0.2.3", address=address, description="services/default/dns"))
    if address == VIP:
        assert await client.resolve_mac(at(VIP)) == client.router_mac
    send(client, at(address), 4000, 53, b"question")
    packet, asked = await datagram(backend)
    assert (packet.src, asked.destination_port, asked.payload) == (at("10.0.2.1"), 5353, b"question")
    send(backend, packet.src, 5353, asked.source_port, b"answer")
    packet, answer = await datagram(client)
    assert (packet.src, answer) == (at(address), udp.Datagram(53, 4000, b"answer"))
    (listed,) = await bench.listed()
    assert (listed.flow_count, listed.backends[0].flow_count, listed.backends[0].open_flow_count) == (1, 1, 1)
    assert (listed.source, listed.description) == ("orchestrator", "services/default/dns")
    entries = await bench.translations.ListNatEntries(pb.ListNatEntriesRequest(parent=LAN))
    (entry,) = entries.nat_entries
    assert (entry.inside, entry.peer, entry.via) == ("10.0.2.2:4000", "10.0.2.3:5353", f"{address}:53")
    assert (entry.state, entry.expires_in_ns) == (pb.NatEntry.STATE_REPLIED, 300 * 10**9)


async def test_a_server_without_backends_refuses(bench: Bench) -> None:
    """UDP gets port unreachable, TCP a reset; both are counted at the server and at the router's port."""
    client = await bench.guest(1)
    await client.get_address()
    await bench.set(server(), server(protocol=pb.PROTOCOL_TCP, port=80))
    send(client, at(VIP), 4000, 53, b"question")
    _, message = await client.icmp()
    assert (message.type, message.code) == (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
    syn = segment.build(client.address, at(VIP), Segment(4000, 80, 7, 0, SYN, 1000))
    client.send_packet(ipv4.Packet(client.address, at(VIP), ipv4.TCP, syn))
    packet = await client.packet(lambda packet: packet if packet.protocol == ipv4.TCP else None)
    reset = segment.parse(packet.src, packet.dst, packet.payload)
    assert isinstance(reset, Segment)
    assert (packet.src, reset.flags, reset.acknowledgment) == (at(VIP), RST | ACK, 8)
    assert await bench.drops() == {"NO_BACKEND": 2}
    assert [each.refused_flow_count for each in await bench.listed()] == [1, 1]


async def test_a_flush_forgets_flows_and_servers_stay(bench: Bench) -> None:
    """A table is flushed by inside address or in all, again without harm."""
    client, other = await bench.guest(1), await bench.guest(2)
    for guest in (client, other):
        await guest.get_address()
    backend = await bench.guest(3)
    await backend.get_address()
    await bench.set(server("10.0.2.4"))
    for guest in (client, other):
        send(guest, at(VIP), 4000, 53, b"question")
        await datagram(backend)
    flush = bench.translations.FlushNatEntries
    assert (await flush(pb.FlushNatEntriesRequest(parent=LAN, inside_address="10.0.2.2"))).flushed_entries == 1
    assert (await flush(pb.FlushNatEntriesRequest(parent=LAN))).flushed_entries == 1
    assert (await flush(pb.FlushNatEntriesRequest(parent=LAN))).flushed_entries == 0
    assert len(await bench.listed()) == 1


async def test_sources_and_revisions(bench: Bench) -> None:
    """A change at or below the newest revision changes nothing; another source keeps off; all goes or none."""
    answer = await bench.set(server("10.0.2.3"), server(port=54), revision=5)
    assert (answer.revision, answer.virtual_server_count) == (5, 2)
    answer = await bench.set(revision=5, replace_all=True)
    assert (answer.revision, answer.virtual_server_count) == (5, 2)
    refused = bench.set(server(port=55), server(port=54), source="user")
    assert await refusal(refused) == ("FAILED_PRECONDITION", "VIRTUAL_SERVER_OWNED")
    assert [each.port for each in await bench.listed()] == [53, 54]
    await bench.set(server(port=56), source="user")
    answer = await bench.set(server(port=57), revision=6, replace_all=True)
    assert (answer.revision, answer.virtual_server_count) == (6, 1)
    await bench.set(removed_virtual_servers=[server(port=57), server(port=99)])
    assert [(each.port, each.source) for each in await bench.listed()] == [(56, "user")]


async def test_servers_outlive_a_restart(start: Any, device: Any) -> None:
    """Definitions and revisions are durable; counts and flows are not."""
    first = await Bench(await start(), device).begin()
    await first.set(server("10.0.2.3", affinity_seconds=60), server(address=FAR_VIP), revision=3)
    before = await first.listed()
    await first.running.stop()
    second = Bench(await start(), device).connect()
    assert await second.listed() == before
    assert (await second.set(revision=3)).revision == 3
    client = await second.guest(1)
    await client.get_address()
    assert await client.resolve_mac(at(VIP)) == client.router_mac


async def test_lists_come_in_pages_and_in_order(bench: Bench) -> None:
    """Address, protocol, port; each server once, whatever the size of a page."""
    wanted = [
        server(address=address, protocol=protocol, port=port)
        for address in ("10.0.2.99", VIP)
        for protocol in (pb.PROTOCOL_TCP, pb.PROTOCOL_UDP)
        for port in (9, 80, 443)
    ]
    await bench.set(*reversed(wanted))
    seen, token = [], ""
    while True:
        request = pb.ListVirtualServersRequest(parent=LAN, page_size=5, page_token=token)
        answer = await bench.translations.ListVirtualServers(request)
        seen += [(each.address, each.protocol, each.port) for each in answer.virtual_servers]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [(each.address, each.protocol, each.port) for each in wanted]


WRONG: list[dict[str, Any]] = [
    {"source": ""},
    {"source": "Up"},
    {"revision": -1},
    {"virtual_servers": [server(address="10.0.2")]},
    {"virtual_servers": [server(address="10.0.2.1")]},
    {"virtual_servers": [server(address="224.0.0.1")]},
    {"virtual_servers": [server(protocol=pb.PROTOCOL_ICMP)]},
    {"virtual_servers": [server(protocol=pb.PROTOCOL_UNSPECIFIED)]},
    {"virtual_servers": [server(port=0)]},
    {"virtual_servers": [server(port=65536)]},
    {"virtual_servers": [server("")]},
    {"virtual_servers": [server("10.0.2.3", "10.0.2.3")]},
    {"virtual_servers": [server(affinity_seconds=86401)]},
    {"virtual_servers": [server(description="x" * 254)]},
    {"virtual_servers": [server(), server()]},
    {"virtual_servers": [server()], "removed_virtual_servers": [server()]},
    {"virtual_servers": [server(port=n) for n in range(1, 1002)]},
    {"removed_virtual_servers": [server(port=n) for n in range(1, 1002)]},
]


async def test_wrong_changes_are_refused_whole(bench: Bench) -> None:
    """Every bound of the contract holds, and nothing of a refused change is left."""
    for fields in WRONG:
        assert await refusal(bench.set(**fields)) == ("INVALID_ARGUMENT", "REQUEST_INVALID"), fields
    many = [pb.VirtualServerBackend(address="10.0.2.3", port=n, weight=1) for n in range(1, 1002)]
    wanted = pb.VirtualServer(address=VIP, protocol=pb.PROTOCOL_TCP, port=80, backends=many)
    assert (await refusal(bench.set(wanted)))[0] == "INVALID_ARGUMENT"
    heavy = pb.VirtualServerBackend(address="10.0.2.3", port=1, weight=1001)
    wanted = pb.VirtualServer(address=VIP, protocol=pb.PROTOCOL_TCP, port=80, backends=[heavy])
    assert (await refusal(bench.set(wanted)))[0] == "INVALID_ARGUMENT"
    assert await bench.listed() == []


async def test_calls_about_no_network_say_so(bench: Bench) -> None:
    """Every call tells an unknown network, a name that is none, and a page that is wrong."""
    stub, nowhere = bench.translations, "hosts/h1/networks/none"
    forward = pb.PortForward(protocol=pb.PROTOCOL_TCP, inside_address="10.0.2.2", inside_port=80)
    calls: list[Any] = [
        lambda parent: stub.ListNatEntries(pb.ListNatEntriesRequest(parent=parent)),
        lambda parent: stub.FlushNatEntries(pb.FlushNatEntriesRequest(parent=parent)),
        lambda parent: stub.ListPortForwards(pb.ListPortForwardsRequest(parent=parent)),
        lambda parent: stub.ListVirtualServers(pb.ListVirtualServersRequest(parent=parent)),
        lambda parent: bench.set(parent=parent),
        lambda parent: stub.CreatePortForward(
            pb.CreatePortForwardRequest(parent=parent, port_forward_id="web", port_forward=forward)
        ),
    ]
    for call in calls:
        assert await refusal(call(nowhere)) == ("NOT_FOUND", "NETWORK_UNKNOWN")
        assert await refusal(call("networks/lan")) == ("INVALID_ARGUMENT", "NAME_MALFORMED")
    assert await refusal(calls[5](LAN)) == ("FAILED_PRECONDITION", "NETWORK_NOT_NAT")
    for request in (
        pb.ListNatEntriesRequest(parent=LAN, inside_address="here"),
        pb.ListNatEntriesRequest(parent=LAN, page_size=-1),
    ):
        assert await refusal(stub.ListNatEntries(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    paged = pb.ListNatEntriesRequest(parent=LAN, page_token="?")
    assert await refusal(stub.ListNatEntries(paged)) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
    gone = pb.DeletePortForwardRequest(name=f"{LAN}/portForwards/web")
    assert await refusal(stub.DeletePortForward(gone)) == ("NOT_FOUND", "PORT_FORWARD_UNKNOWN")


async def test_a_bridged_network_translates_nothing(bench: Bench) -> None:
    """Without a router there is no table to list or flush, and no virtual server."""
    bench.running.service._networks.uplinks = AnUplink()
    await bench.group("other", 7)
    await bench.create("out", mode=nets.Network.MODE_BRIDGE, subnet=None, dhcp=None, dns=None, vlan_id=7)
    parent = "hosts/h1/networks/out"
    stub = bench.translations
    for call in (
        stub.ListNatEntries(pb.ListNatEntriesRequest(parent=parent)),
        stub.FlushNatEntries(pb.FlushNatEntriesRequest(parent=parent)),
        bench.set(server(), parent=parent),
    ):
        assert await refusal(call) == ("FAILED_PRECONDITION", "NETWORK_UNROUTED")
    assert not (await stub.ListPortForwards(pb.ListPortForwardsRequest(parent=parent))).port_forwards
    assert not (await stub.ListVirtualServers(pb.ListVirtualServersRequest(parent=parent))).virtual_servers


class AnUplink:
    """Uplinks of a host where every switch has one, which carries nothing."""

    def reaches(self, switch: str, uplink: str) -> bool:
        """There is one."""
        return True

    def carries(self, switch: str, vlan: int) -> bool:
        """It carries nothing."""
        return False
