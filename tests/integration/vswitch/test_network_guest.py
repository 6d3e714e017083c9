"""Guests on a network: an address by DHCP, names, echo, errors; leases that renew, end, and outlive a kill."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.vswitch.v1 import networks_pb2 as nets
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, SWITCH, NetworkBench

from lamina_net.packets import ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC, format_address, parse_address
from lamina_vswitch.domain.network.dhcp.message import Option


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch."""
    return await NetworkBench(await start(), device).open()


def at(text: str) -> int:
    """Return an address as a number."""
    address = parse_address(text)
    assert address is not None
    return address


async def test_a_guest_gets_an_address_and_is_told_the_network(bench: NetworkBench) -> None:
    """DISCOVER and REQUEST bring the lowest address and what goes with it; the lease shows."""
    network = await bench.create()
    guest = await bench.guest(1)
    ack = await guest.get_address(host_name=b"alice")
    assert format_address(guest.address) == "10.0.2.2"
    assert ack.options[Option.SUBNET_MASK] == bytes([255, 255, 255, 0])
    assert ack.address(Option.ROUTER) == ack.address(Option.DNS_SERVER) == at("10.0.2.1")
    assert (ack.options[Option.DOMAIN_NAME], ack.options[Option.INTERFACE_MTU]) == (b"lab", bytes([5, 220]))
    assert int.from_bytes(ack.options[Option.LEASE_TIME], "big") == 3600
    assert guest.router_mac.hex(":") == network.gateway_mac_address
    (lease,) = await bench.leases()
    assert lease == nets.Lease(
        name=f"{LAN}/leases/10-0-2-2",
        address="10.0.2.2/24",
        mac_address="02:00:00:00:00:01",
        port=f"{SWITCH}/ports/p1",
        host_name="alice",
        origin=nets.Lease.ORIGIN_DHCP,
        end_time_ns=3600 * SECOND_NS,
        gateway_address="10.0.2.1",
        dns_addresses=["10.0.2.1"],
        mtu_bytes=1500,
    )


async def test_a_guest_pings_the_router_and_sees_it_as_a_neighbour(bench: NetworkBench) -> None:
    """The router answers echo requests, also fragmented ones, and lists the guest in its ARP table."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    guest.ping(guest.router, data=b"hello")
    sender, reply = await guest.icmp()
    assert (sender, reply.type, reply.body) == (guest.router, icmp.ECHO_REPLY, b"hello")
    whole = ipv4.Packet(
        guest.address, guest.router, ipv4.ICMP, icmp.build(icmp.echo_request(7, 2, bytes(3000))), identification=5
    )
    parts = ipv4.fragment(whole, 1500)
    assert isinstance(parts, list) and len(parts) == 3
    for part in reversed(parts):
        guest.send_packet(part)
    first = await guest.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    assert first.more and first.offset == 0
    listed = await bench.networks.ListNeighbors(nets.ListNeighborsRequest(parent=LAN))
    assert [(n.address, n.mac_address) for n in listed.neighbors] == [("10.0.2.2", "02:00:00:00:00:01")]


async def test_nothing_leaves_a_host_only_network(bench: NetworkBench) -> None:
    """Packets to other subnets are dropped with their reason and answered by an error, and nobody else sees them."""
    other = await bench.group("other", 7)
    await bench.create()
    far = await bench.create("far", subnet="10.9.0.0/24", vlan_id=7)
    guest, stranger = await bench.guest(1), await bench.guest(2, group=other)
    await guest.get_address()
    await stranger.get_address()
    for to in ("10.9.0.1", format_address(stranger.address), "192.0.2.1", "127.0.0.1", "169.254.1.1"):
        guest.ping(at(to), data=b"leak")
        sender, error = await guest.icmp()
        assert (sender, error.type, error.code) == (guest.router, icmp.UNREACHABLE, icmp.NET_UNREACHABLE), to
    assert await bench.drops() == {"HOST_ONLY": 5}
    way_out = guest.router_mac, bytes.fromhex(far.gateway_mac_address.replace(":", "")), stranger.mac, BROADCAST_MAC
    packets = [
        ipv4.build(ipv4.Packet(src, dst, protocol, b"leak" * 9, more=more))
        for src in (guest.address, stranger.address, at("10.9.0.1"), 0)
        for dst in (stranger.address, at("10.9.0.255"), at("224.0.0.251"), BROADCAST, at("10.0.2.255"))
        for protocol in (ipv4.UDP, ipv4.TCP, 47)
        for more in (False, True)
    ]
    packets += [udp_packet(guest.address, stranger.address, port) for port in (53, 67, 4789)]
    for tci in (None, 0, 7):
        guest.tci = tci
        for mac in way_out:
            for packet in packets:
                guest.send(mac, ethernet.IPV4, packet)
            guest.send(mac, ethernet.IPV6, b"leak" * 20)
            guest.send(mac, 0x88A8, b"\0\x07\x08\0" + packets[0])
    guest.tci = None
    guest.ping(guest.router)
    while (await guest.icmp())[1].type != icmp.ECHO_REPLY:
        pass  # answers to what went before
    stranger.ping(stranger.router)
    await stranger.icmp()
    assert stranger.seen and all(b"leak" not in frame for frame in stranger.seen)


def udp_packet(src: int, dst: int, port: int) -> bytes:
    """Return a datagram that would leave."""
    return ipv4.build(ipv4.Packet(src, dst, ipv4.UDP, udp.build(src, dst, udp.Datagram(4000, port, b"leak"))))


async def test_a_guest_resolves_names(bench: NetworkBench) -> None:
    """Leases and told records are answered; own domains know what does not exist; other names are refused."""
    await bench.create()
    alice, bob = await bench.guest(1), await bench.guest(2)
    await alice.get_address(host_name=b"Alice")
    await bob.get_address(host_name=b"bob")
    record = nets.DnsRecord(dns_name="*.web.lab", type=nets.DnsRecord.TYPE_CNAME, answers=["alice.lab"])
    await bench.networks.UpdateDnsRecords(
        nets.UpdateDnsRecordsRequest(parent=LAN, source="orchestrator", revision=3, dns_records=[record])
    )
    _, _, records = await bob.ask("alice.lab", 1)
    assert records == [("alice.lab", 1, bytes([10, 0, 2, 2]))]
    _, _, records = await bob.ask("2.2.0.10.in-addr.arpa", 12)
    assert records == [("2.2.0.10.in-addr.arpa", 12, b"alice.lab")]
    flags, _, records = await bob.ask("shop.web.lab", 1)
    assert records == [("shop.web.lab", 5, b"alice.lab"), ("alice.lab", 1, bytes([10, 0, 2, 2]))]
    flags, _, records = await bob.ask("nobody.lab", 1)
    assert (flags & 15, [(owner, kind) for owner, kind, _ in records]) == (3, [("lab", 6)])
    flags, _, records = await bob.ask("alice.lab", 28)
    assert (flags & 15, [(owner, kind) for owner, kind, _ in records]) == (0, [("lab", 6)])
    flags, _, records = await bob.ask("example.org", 1)
    assert (flags & 15, records) == (5, [])
