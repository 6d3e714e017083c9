"""The outside of a NAT network under frames of strangers: nothing fails, nothing is answered that was not asked."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_net.packets import arp, ethernet, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC, parse_subnet
from lamina_net.rate_limiter import RateLimiter
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.forwards import Forwards
from lamina_vswitch.domain.nat.flows.ports import PortPool
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.outside.station import OutsideAddress, OutsideStation, Sent
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat

MAC, STRANGER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
OWN, PEER, GUEST = 0xC000_0202, 0xC000_0209, 0x0A00_0207
PARTS = st.tuples(
    st.sampled_from((MAC, BROADCAST_MAC, STRANGER, b"\1\0\x5e\0\0\1")),
    st.sampled_from((ethernet.IPV4, ethernet.ARP, 0x86DD, 0x8100)),
    st.binary(max_size=80)
    | st.builds(
        lambda src, dst, protocol, body, ttl: ipv4.build(ipv4.Packet(src, dst, protocol, body, ttl)),
        st.sampled_from((PEER, OWN, GUEST, 0, 0xFFFF_FFFF, 0xE000_0001)),
        st.sampled_from((OWN, PEER, GUEST, 0xC000_02FF)),
        st.sampled_from((ipv4.ICMP, ipv4.UDP, ipv4.TCP, 47)),
        st.binary(max_size=60),
        st.integers(0, 64),
    )
    | st.builds(partial(arp.request, STRANGER), st.sampled_from((PEER, OWN, GUEST)), st.sampled_from((OWN, PEER))),
)


class World:
    """A station, and what it dropped."""

    def __init__(self) -> None:
        self.drops: list[DropReason] = []
        subnet = parse_subnet("192.0.2.0/24")
        assert subnet is not None
        table = Table(64, 32, lambda entry: self.nat.ended(entry))
        self.nat = UplinkNat(OWN, Rewriter(table), PortPool(40_000, 40_031, 0), Forwards())
        errors, place = RateLimiter(100, 100), OutsideAddress(OWN, subnet, PEER)
        self.station = OutsideStation(MAC, place, self.nat, lambda: 1500, errors, self.dropped)

    def dropped(self, reason: DropReason, frame: bytes, now_ns: int) -> None:
        """Note a drop."""
        self.drops.append(reason)


@given(st.lists(PARTS, max_size=30))
@settings(max_examples=200, deadline=None)
def test_strangers_bring_nothing_inside(parts: list[tuple[bytes, int, bytes]]) -> None:
    """Without flows and forwards no packet goes inside, whatever comes; each frame brings few others about."""
    world = World()
    for now_ns, (dst, ethertype, payload) in enumerate(parts):
        sent = world.station.receive(ethernet.build(dst, STRANGER, ethertype, payload), now_ns)
        assert not sent.packets
        assert len(sent.frames) <= 20, "an answer, and packets that waited for a neighbour"


@given(st.integers(0, 65_535), st.integers(0, 65_535), st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_a_flow_comes_back_as_it_went(sport: int, dport: int, data: bytes) -> None:
    """What a guest sends leaves from the outside address, in frames that fit; its answer comes back to the guest."""
    world = World()
    body = udp.build(GUEST, PEER, udp.Datagram(sport, dport, data))
    outcome = world.nat.leaving(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.UDP, body, identification=5)), 0)
    asked = world.station.send(outcome.outside, 0)
    heard = arp.build(arp.ArpPacket(arp.REPLY, STRANGER, PEER, MAC, OWN))
    answered: Sent = world.station.receive(ethernet.build(MAC, STRANGER, ethernet.ARP, heard), 1)
    parts = [ethernet.parse(frame) for frame in (*asked.frames, *answered.frames)]
    packets = [
        ipv4.parse(part.payload)
        for part in parts
        if isinstance(part, ethernet.Frame) and part.ethertype == ethernet.IPV4
    ]
    assert all(isinstance(packet, ipv4.Packet) and packet.src == OWN for packet in packets)
    assert all(len(frame) <= 1514 for frame in answered.frames)
    sent = b"".join(packet.payload for packet in packets if isinstance(packet, ipv4.Packet))
    back = udp.build(PEER, OWN, udp.Datagram(dport, int.from_bytes(sent[:2], "big"), b"back"))
    reply = ipv4.build(ipv4.Packet(PEER, OWN, ipv4.UDP, back))
    (packet,) = world.station.receive(ethernet.build(MAC, STRANGER, ethernet.IPV4, reply), 2).packets
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    found = udp.parse(parsed.src, parsed.dst, parsed.payload)
    assert (parsed.dst, found) == (GUEST, udp.Datagram(dport, sport, b"back"))
