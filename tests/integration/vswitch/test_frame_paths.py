"""The way of a frame through switches and routers: what is told is what then happens, and telling changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.vswitch.v1 import captures_pb2 as pb
from lamina.vswitch.v1 import captures_pb2_grpc as rpc
from lamina.vswitch.v1 import networks_pb2 as nets
from lamina.vswitch.v1 import vswitch_pb2
from tests.integration.vswitch.network_bench import LAN, SWITCH, NetworkBench
from tests.integration.vswitch.refusals import refusal

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC
from lamina_net.tcp import segment

ROUTER, FAR_ROUTER = 0x0A000201, 0x0A090001
FAR = "hosts/h1/networks/far"
NAT = nets.Network.MODE_NAT
REASON = vswitch_pb2.DropReason
VERDICT = vswitch_pb2.TraceFrameResponse.Verdict

pytestmark = pytest.mark.parametrize("start", ["local"], indirect=True)


class Lan:
    """Two networks with routes to each other, a guest in each."""

    def __init__(self, bench: NetworkBench) -> None:
        self.bench = bench
        self.stub = rpc.CapturesStub(bench.running.channel)

    async def fill(self) -> Lan:
        """Make everything."""
        group = await self.bench.group("far", 7)
        await self.bench.create(mode=NAT)
        route = nets.Route(destination="10.0.2.0/24", network=LAN)
        await self.bench.create("far", mode=NAT, vlan_id=7, subnet="10.9.0.0/24", routes=[route])
        back = nets.Network(name=LAN, routes=[nets.Route(destination="10.9.0.0/24", network=FAR)])
        update = nets.UpdateNetworkRequest(network=back, update_mask=FieldMask(paths=["routes"]))
        await self.bench.networks.UpdateNetwork(update)
        self.near = await self.bench.guest(1)
        self.far = await self.bench.guest(2, group=group)
        await self.near.get_address()
        await self.far.get_address()
        return self

    async def path(self, frame: bytes, port: str = "p1", header: bytes = b"") -> pb.TraceFramePathResponse:
        """Trace a frame."""
        request = pb.TraceFramePathRequest(port=f"{SWITCH}/ports/{port}", frame=frame, offload_header=header)
        found: pb.TraceFramePathResponse = await self.stub.TraceFramePath(request)
        return found

    def frame(self, packet: ipv4.Packet, dst: bytes = b"") -> bytes:
        """Return a frame of the near guest to its router."""
        return ethernet.build(dst or self.near.router_mac, self.near.mac, ethernet.IPV4, ipv4.build(packet))

    def echo(self, to: int, **fields: Any) -> ipv4.Packet:
        """Return an echo request of the near guest."""
        return ipv4.Packet(self.near.address, to, ipv4.ICMP, icmp.build(icmp.echo_request(7, 1, b"ping")), **fields)


@pytest.fixture
async def lan(start: Any, device: Any) -> Lan:
    """Returns the networks of this file."""
    return await Lan(await NetworkBench(await start(), device).open()).fill()


def told(path: pb.TraceFramePathResponse) -> list[tuple[str, int, str, str]]:
    """Returns object, parent, verdict and the last rule of each hop."""
    return [
        (
            hop.object.rpartition("/")[2],
            hop.parent_index,
            VERDICT.Name(hop.decision.verdict).removeprefix("VERDICT_").lower(),
            hop.decision.steps[-1].rule,
        )
        for hop in path.hops
    ]


async def test_a_packet_goes_through_both_routers_and_arrives_as_told(lan: Lan) -> None:
    """Four hops: switch, router, router, switch; the frame of the last one is what the far guest gets."""
    frame = lan.frame(lan.echo(lan.far.address))
    path = await lan.path(frame)
    assert told(path) == [
        ("s1", -1, "forwarded", "output.forward"),
        ("lan", 0, "forwarded", "router.to_network"),
        ("far", 1, "forwarded", "router.neighbor"),
        ("s1", 2, "forwarded", "output.forward"),
    ]
    assert not path.loop and [hop.decision.vlan_id for hop in path.hops] == [0, 0, 7, 7]
    assert list(path.hops[3].decision.output_ports) == [f"{SWITCH}/ports/p2"]
    lan.near.device.send([frame])
    arrived = await lan.far.wait(lambda got: got if got.ethertype == ethernet.IPV4 else None)
    assert ethernet.parse(path.hops[3].decision.output_frame) == arrived


async def test_telling_changes_nothing(lan: Lan) -> None:
    """No counter moves, no address is learned, no neighbour is asked, no lease given."""

    async def state() -> Any:
        counters = await lan.stub.ListCounters(pb.ListCountersRequest(parent=SWITCH))
        macs = await lan.bench.running.switches.ListMacEntries(vswitch_pb2.ListMacEntriesRequest(parent=SWITCH))
        neighbours = await lan.bench.networks.ListNeighbors(nets.ListNeighborsRequest(parent=FAR))
        records = await lan.stub.ListFrameRecords(pb.ListFrameRecordsRequest(parent=SWITCH))
        return counters, macs, neighbours, records

    before = await state()
    for packet in (lan.echo(lan.far.address), lan.echo(FAR_ROUTER + 50), lan.echo(0x08080808)):
        await lan.path(lan.frame(packet))
        await lan.path(lan.frame(packet).replace(lan.near.mac, b"\x02\xaa\xaa\xaa\xaa\xaa"))
    assert await state() == before


@pytest.mark.parametrize(
    ("fields", "reason", "at"),
    [
        ({"to": FAR_ROUTER + 1, "ttl": 1}, "TTL_EXPIRED", "lan"),
        ({"to": FAR_ROUTER + 1, "ttl": 2}, "TTL_EXPIRED", "far"),
        ({"to": 0x0A0900FF}, "NO_ROUTE", "far"),
    ],
    ids=["first-router", "second-router", "broadcast"],
)
async def test_a_drop_is_told_as_it_then_happens(lan: Lan, fields: Any, reason: str, at: str) -> None:
    """The last hop names the router and the reason under which the frame is then counted."""
    frame = lan.frame(lan.echo(**fields))
    hop = (await lan.path(frame)).hops[-1]
    assert (hop.object, REASON.Name(hop.decision.drop_reason)) == (f"hosts/h1/networks/{at}", f"DROP_REASON_{reason}")
    assert hop.decision.verdict == vswitch_pb2.TraceFrameResponse.VERDICT_DROPPED
    lan.near.device.send([frame])
    lan.near.ping(ROUTER)
    await lan.near.icmp()
    async with asyncio.timeout(10):
        while not await lan.bench.drops(f"{SWITCH}/ports/router.{at}"):
            lan.near.ping(ROUTER)
            await lan.near.icmp()
    assert await lan.bench.drops(f"{SWITCH}/ports/router.{at}") == {reason: 1}


async def test_a_wrong_sum_is_told_with_the_right_one(lan: Lan) -> None:
    """Header of IP, ICMP message and UDP datagram are named apart; the value that is told is the one that was sent."""
    datagram = udp.build(lan.near.address, ROUTER, udp.Datagram(4000, 53, b"ask"))
    echo, asked = lan.frame(lan.echo(ROUTER)), lan.frame(ipv4.Packet(lan.near.address, ROUTER, ipv4.UDP, datagram))
    for what, frame, at in (("IP header", echo, 24), ("ICMP message", echo, 36), ("UDP datagram", asked, 40)):
        right = frame[at : at + 2].hex()
        broken = frame[:at] + bytes.fromhex("beef") + frame[at + 2 :]
        step = (await lan.path(broken)).hops[-1].decision.steps[-1]
        assert step.rule == "router.drop_checksum_bad"
        assert step.detail.endswith(f"that of the {what} is 0xbeef, and 0x{right} would be right")
    cut = (await lan.path(echo[:30])).hops[-1].decision.steps[-1]
    assert cut.rule == "router.drop_ip_malformed" and "IP header is shorter" in cut.detail


async def test_a_host_only_network_has_no_way_out(lan: Lan) -> None:
    """A packet for the outside is dropped at its router, and the reason says that nothing leaves."""
    group = await lan.bench.group("alone", 9)
    await lan.bench.create("alone", vlan_id=9, subnet="10.7.0.0/24")
    guest = await lan.bench.guest(3, group=group)
    await guest.get_address()
    packet = ipv4.build(lan.echo(0x08080808)._replace(src=guest.address))
    frame = ethernet.build(guest.router_mac, guest.mac, ethernet.IPV4, packet)
    assert told(await lan.path(frame, "p3"))[-1] == ("alone", 0, "dropped", "router.drop_host_only")


async def test_what_a_router_takes_ends_there(lan: Lan) -> None:
    """Echo, ARP, DHCP, DNS, closed ports, a damaged packet and a stranger's broadcast each end with their rule."""
    near = lan.near
    discover = udp.build(0, BROADCAST, udp.Datagram(68, 67, bytes(240)))
    closed = udp.build(near.address, ROUTER, udp.Datagram(1, 9, b""))
    names, nothing = (
        segment.build(near.address, ROUTER, segment.Segment(1, port, 0, 0, segment.SYN, 0)) for port in (53, 9)
    )
    asks = arp.request(near.mac, near.address, ROUTER)
    for frame, rule in (
        (lan.frame(lan.echo(ROUTER)), "router.echo"),
        (ethernet.build(BROADCAST_MAC, near.mac, ethernet.ARP, asks), "router.arp_answered"),
        (ethernet.build(BROADCAST_MAC, near.mac, ethernet.ARP, asks[:9]), "router.arp_malformed"),
        (lan.frame(ipv4.Packet(0, BROADCAST, ipv4.UDP, discover), BROADCAST_MAC), "router.service"),
        (lan.frame(ipv4.Packet(near.address, ROUTER, ipv4.UDP, closed)), "router.unreachable"),
        (lan.frame(ipv4.Packet(near.address, ROUTER, ipv4.TCP, names)), "router.service"),
        (lan.frame(ipv4.Packet(near.address, ROUTER, ipv4.TCP, nothing)), "router.reset"),
        (lan.frame(lan.echo(ROUTER))[:20], "router.drop_ip_malformed"),
        (lan.frame(lan.echo(lan.far.address), BROADCAST_MAC), "router.not_for_it"),
        (lan.frame(lan.echo(FAR_ROUTER + 77)), "router.neighbor_unknown"),
        (ethernet.build(lan.near.router_mac, near.mac, 0x86DD, bytes(40)), "router.not_ipv4"),
    ):
        path = await lan.path(frame)
        assert path.hops[-1].decision.steps[-1].rule == rule, rule


async def test_offload_headers_are_heeded(lan: Lan) -> None:
    """A header that does not fit drops the frame as it would; one that fits lets it through."""
    frame = lan.frame(lan.echo(lan.far.address))
    bad = b"\x01" + bytes(5) + (2000).to_bytes(2, "little") + bytes(12)
    path = await lan.path(frame, header=bad)
    assert told(path) == [("s1", -1, "dropped", "offload.drop_offload_invalid")]
    assert len((await lan.path(frame, header=bytes(20))).hops) == 4


async def test_what_cannot_be_traced_is_refused(lan: Lan) -> None:
    """Unknown port, too long a frame and a header of another length each have their reason."""
    request = pb.TraceFramePathRequest(port=f"{SWITCH}/ports/none")
    assert await refusal(lan.stub.TraceFramePath(request)) == ("NOT_FOUND", "PORT_UNKNOWN")
    for fields in ({"frame": bytes(65536)}, {"offload_header": bytes(19)}):
        request = pb.TraceFramePathRequest(port=f"{SWITCH}/ports/p1", **fields)
        assert await refusal(lan.stub.TraceFramePath(request)) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


async def test_a_way_without_end_is_cut_off(lan: Lan, device: Any) -> None:
    """Two routers that send a packet to each other end it by its time to live, after 64 hops it is no more told."""
    loop = nets.Route(destination="172.16.0.0/12", network=LAN)
    for name, to in ((LAN, FAR), (FAR, LAN)):
        others = "10.9.0.0/24" if name == LAN else "10.0.2.0/24"
        routes = [nets.Route(destination=others, network=to), nets.Route(destination=loop.destination, network=to)]
        network = nets.Network(name=name, routes=routes)
        update = nets.UpdateNetworkRequest(network=network, update_mask=FieldMask(paths=["routes"]))
        await lan.bench.networks.UpdateNetwork(update)
    packet = lan.frame(lan.echo(0xAC100001, ttl=200))
    path = await lan.path(packet)
    assert path.loop and len(path.hops) == 64 and path.hops[63].parent_index == 62
    short = await lan.path(lan.frame(lan.echo(0xAC100001, ttl=9)))
    assert not short.loop and short.hops[-1].decision.drop_reason == vswitch_pb2.DROP_REASON_TTL_EXPIRED
