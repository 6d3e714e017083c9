"""What routers do beside serving: ways between networks, errors, bounds, and what strangers cannot do to them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import layer_pb2
from lamina.vswitch.v1 import networks_pb2 as nets
from tests.integration.vswitch.guest import Guest
from tests.integration.vswitch.network_bench import LAN, SECOND_NS, SWITCH, NetworkBench

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC
from lamina_vswitch.domain.network.router.router import Router

NAT = nets.Network.MODE_NAT
ROUTER = 0x0A000201
FAR = "hosts/h1/networks/far"
FAR_ROUTER = 0x0A090001


pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


@pytest.fixture
async def bench(start: Any, device: Any) -> NetworkBench:
    """Returns a service with a switch."""
    return await NetworkBench(await start(), device).open()


async def two_networks(bench: NetworkBench) -> tuple[Guest, Guest]:
    """Make two networks with routes to each other, and return a guest in each."""
    group = await bench.group("far", 7)
    await bench.create(mode=NAT)
    route = nets.Route(destination="10.0.2.0/24", network=LAN)
    await bench.create("far", mode=NAT, vlan_id=7, subnet="10.9.0.0/24", routes=[route])
    back = nets.Network(name=LAN, routes=[nets.Route(destination="10.9.0.0/24", network=FAR)])
    await bench.networks.UpdateNetwork(nets.UpdateNetworkRequest(network=back, update_mask=FieldMask(paths=["routes"])))
    near, far = await bench.guest(1), await bench.guest(2, group=group)
    await near.get_address()
    await far.get_address()
    return near, far


async def test_networks_with_routes_reach_each_other(bench: NetworkBench) -> None:
    """A packet goes through both routers, its time to live counted down by each; the answer comes back."""
    near, far = await two_networks(bench)
    near.ping(far.address)
    arrived = await far.packet(lambda packet: packet if packet.protocol == ipv4.ICMP else None)
    assert (arrived.src, arrived.dst, arrived.ttl) == (near.address, far.address, 62)
    message = icmp.parse(arrived.payload)
    assert isinstance(message, icmp.Message)
    answer = icmp.build(icmp.echo_reply(message))
    far.send_packet(ipv4.Packet(far.address, near.address, ipv4.ICMP, answer))
    assert (await near.icmp())[1].body == b"ping"


async def test_a_packet_s_time_ends_at_either_router(bench: NetworkBench) -> None:
    """Each router tells the sender from its own address, so a trace of the way shows both."""
    near, far = await two_networks(bench)
    for ttl, router in ((1, ROUTER), (2, FAR_ROUTER)):
        near.ping(far.address, ttl=ttl)
        sender, error = await near.icmp()
        assert (sender, error.type, error.code) == (router, icmp.TIME_EXCEEDED, icmp.TTL_EXCEEDED)
    assert await bench.drops() == {"TTL_EXPIRED": 1}
    assert await bench.drops(f"{SWITCH}/ports/router.far") == {"TTL_EXPIRED": 1}


async def test_a_neighbour_who_does_not_answer_is_unreachable(bench: NetworkBench, manual_clock: Any) -> None:
    """The router asks three times, a second apart; then the sender is told and the neighbour shows as failed."""
    near, _ = await two_networks(bench)
    near.ping(FAR_ROUTER + 90)
    near.ping(ROUTER, data=b"after")
    await near.icmp()
    for _ in range(3):
        await manual_clock.advance(SECOND_NS)
    sender, error = await near.icmp()
    assert (sender, error.type, error.code) == (FAR_ROUTER, icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)
    listed = await bench.networks.ListNeighbors(nets.ListNeighborsRequest(parent=FAR))
    states = {neighbor.address: neighbor.state for neighbor in listed.neighbors}
    assert states["10.9.0.91"] == nets.Neighbor.STATE_FAILED
    assert await bench.drops(f"{SWITCH}/ports/router.far") == {"NEIGHBOR_UNREACHABLE": 1}


async def test_a_router_whose_timer_fails_goes_on(
    bench: NetworkBench, manual_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect is an event of the host and counted; the router's times come all the same, after a pause."""
    near, _ = await two_networks(bench)
    near.ping(FAR_ROUTER + 90)
    near.ping(ROUTER, data=b"after")
    await near.icmp()
    with monkeypatch.context() as broken:
        broken.setattr(Router, "tick", lambda router, now_ns: [1 // 0])
        await manual_clock.advance(SECOND_NS)
    told = await bench.running.layer.Explain(layer_pb2.ExplainRequest(object="hosts/h1"))
    assert {decision.event for decision in told.decisions} == {"switching.defect"}
    for _ in range(4):
        await manual_clock.advance(SECOND_NS)
    sender, error = await near.icmp()
    assert (sender, error.type, error.code) == (FAR_ROUTER, icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)


async def test_a_frame_that_meets_a_defect_costs_no_other(bench: NetworkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router tells of it as of a timer's, and answers the frames behind it."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    receive = Router.receive
    monkeypatch.setattr(Router, "receive", lambda *of: [1 // 0] if b"worst" in of[1] else receive(*of))
    guest.ping(ROUTER, data=b"worst")
    guest.ping(ROUTER, data=b"good")
    assert (await guest.icmp())[1].type == icmp.ECHO_REPLY
    told = await bench.running.layer.Explain(layer_pb2.ExplainRequest(object="hosts/h1"))
    assert [decision.event for decision in told.decisions] == ["switching.defect"]


async def test_errors_are_told_a_hundred_times_a_second(bench: NetworkBench, manual_clock: Any) -> None:
    """A port of the router that nobody serves is unreachable; the answers are bounded, the bound is by the clock."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    body = udp.build(guest.address, ROUTER, udp.Datagram(1000, 9, b"x"))
    for _ in range(300):
        guest.send_packet(ipv4.Packet(guest.address, ROUTER, ipv4.UDP, body))
    guest.ping(ROUTER)
    kinds: list[int] = []
    while not kinds or kinds[-1] != icmp.ECHO_REPLY:
        kinds.append((await guest.icmp())[1].type)
    assert kinds == [icmp.UNREACHABLE] * 100 + [icmp.ECHO_REPLY]
    await manual_clock.advance(SECOND_NS // 100)
    guest.send_packet(ipv4.Packet(guest.address, ROUTER, ipv4.UDP, body))
    _, error = await guest.icmp()
    assert (error.type, error.code) == (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
    guest.send_packet(ipv4.Packet(guest.address, ROUTER, 99, b"what"))
    await manual_clock.advance(SECOND_NS // 100)
    guest.send_packet(ipv4.Packet(guest.address, ROUTER, 99, b"what"))
    _, error = await guest.icmp()
    assert (error.type, error.code) == (icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE)


async def test_broken_packets_are_counted_and_not_answered(bench: NetworkBench) -> None:
    """Bad sums, cut headers and impossible sources have their reasons; IPv6 passes by in silence."""
    await bench.create()
    guest = await bench.guest(1)
    await guest.get_address()
    good = ipv4.build(ipv4.Packet(guest.address, ROUTER, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1))))
    bad_sum = good[:10] + bytes([good[10] ^ 1]) + good[11:]
    bad_icmp = ipv4.build(ipv4.Packet(guest.address, ROUTER, ipv4.ICMP, b"\x08\x00\x00\x00\x00\x00\x00\x01"))
    martian = ipv4.build(ipv4.Packet(0x7F000001, 0xC0000201, ipv4.UDP, bytes(8)))
    own = ipv4.build(ipv4.Packet(ROUTER, 0xC0000201, ipv4.UDP, bytes(8)))
    for payload in (bad_sum, bad_icmp, good[:19], martian, own):
        guest.send(guest.router_mac, ethernet.IPV4, payload)
    guest.send(guest.router_mac, ethernet.IPV6, bytes(40))
    guest.ping(ROUTER)
    assert (await guest.icmp())[1].type == icmp.ECHO_REPLY
    assert await bench.drops() == {"IP_MALFORMED": 3, "CHECKSUM_BAD": 2}


async def test_a_stranger_cannot_take_the_router_s_address(bench: NetworkBench) -> None:
    """A claim of the router's own address teaches it nothing, and a flood of claims stays within the table."""
    await bench.create(subnet="10.0.0.0/8")
    guest = await bench.guest(1)
    guest.address = 0x0A000005
    await guest.use_router(0x0A000001)
    claims = [
        arp.build(arp.ArpPacket(arp.REQUEST, guest.mac, 0x0A010000 + number, bytes(6), 0x0A000001))
        for number in range(9000)
    ]
    for start in range(0, len(claims), 3000):
        batch = claims[start : start + 3000]
        guest.device.send([ethernet.build(BROADCAST_MAC, guest.mac, ethernet.ARP, claim) for claim in batch])
        guest.ping(0x0A000001)
        await guest.icmp()
    lie = arp.announcement(guest.mac, 0x0A000001)
    guest.send(BROADCAST_MAC, ethernet.ARP, lie)
    guest.ping(0x0A000001)
    assert (await guest.icmp())[0] == 0x0A000001
    found, token = 0, ""
    while True:
        listed = await bench.networks.ListNeighbors(
            nets.ListNeighborsRequest(parent=LAN, page_size=1000, page_token=token)
        )
        assert all(neighbor.address != "10.0.0.1" for neighbor in listed.neighbors)
        found, token = found + len(listed.neighbors), listed.next_page_token
        if not token:
            break
    assert found == 8192
