"""Overlays without a switch: bytes on the wire, remote ends and their limits, what a tunnel refuses."""

from __future__ import annotations

import pytest

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC, parse_subnet
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.overlay import remote_ends, vxlan
from lamina_vswitch.domain.overlay.end import Learning, OverlayEnd, TunnelledEnd, Way
from lamina_vswitch.domain.overlay.remote_ends import RemoteEnds
from lamina_vswitch.domain.overlay.tunnel import Tunnel

SUBNET = parse_subnet("192.0.2.0/24")
assert SUBNET is not None
OWN, OTHER, ROUTER, FAR = SUBNET.network + 1, SUBNET.network + 2, SUBNET.network + 254, 0xC6336401
MAC, OTHER_MAC = b"\x06\0\0\0\0\1", b"\x06\0\0\0\0\2"
ALICE, BOB = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
SECOND_NS = 1_000_000_000
AGEING_NS = 300 * SECOND_NS
FRAME = ethernet.build(BOB, ALICE, 0x88B5, b"hello")


class Played:
    """One end at one tunnel, with what it dropped and delivered."""

    def __init__(self, told: tuple[int, ...] = (OTHER,), *, gateway: int = 0, accept: bool = False) -> None:
        assert SUBNET is not None
        self.drops: list[DropReason] = []
        self.got: list[bytes] = []
        self.remotes = RemoteEnds(AGEING_NS, 4)
        for address in told:
            self.remotes.tell(address, (), 0)
        self.end = OverlayEnd(7, self.remotes, Learning(accept_unknown=accept), lambda: 1500, self.dropped)
        self.tunnel = Tunnel(MAC, OWN, self.dropped)
        self.there = TunnelledEnd(self.end, Way(SUBNET, gateway), self.got.append)
        self.tunnel.join(self.there)

    def dropped(self, reason: DropReason, frame: bytes, now_ns: int) -> None:
        """Note a drop."""
        self.drops.append(reason)

    def send(self, frame: bytes = FRAME, now_ns: int = 0) -> list[bytes]:
        """Send a frame of the VLAN."""
        return self.tunnel.send(self.there, frame, now_ns)

    def hear(self, frame: bytes = FRAME, *, src: int = OTHER, vni: int = 7, now_ns: int = 0) -> None:
        """Get a tunnel packet."""
        self.packet(src, vxlan.build(vni, frame), now_ns=now_ns)

    def packet(self, src: int, payload: bytes, *, port: int = 4789, more: bool = False, now_ns: int = 0) -> None:
        """Get a datagram from a host of the network below."""
        datagram = udp.build(src, OWN, udp.Datagram(50000, port, payload))
        datagram += bytes(-len(datagram) % 8) if more else b""
        packet = ipv4.build(ipv4.Packet(src, OWN, ipv4.UDP, datagram, more=more))
        self.tunnel.receive(ethernet.build(MAC, OTHER_MAC, ethernet.IPV4, packet), now_ns)

    def resolve(self, address: int = OTHER, now_ns: int = 0) -> list[bytes]:
        """Let a neighbour answer where it is."""
        reply = arp.build(arp.ArpPacket(arp.REPLY, OTHER_MAC, address, MAC, OWN))
        return self.tunnel.receive(ethernet.build(MAC, OTHER_MAC, ethernet.ARP, reply), now_ns)


def test_a_packet_is_what_linux_sends() -> None:
    """First the neighbour is asked for, then the frame goes: TTL 64, not DF, UDP checksum 0, I flag, VNI."""
    played = Played()
    (asked,) = played.send()
    assert asked[:6] == BROADCAST_MAC
    assert asked[12:14] == b"\x08\x06"
    (sent,) = played.resolve()
    frame = ethernet.parse(sent)
    assert isinstance(frame, ethernet.Frame)
    packet = ipv4.parse(frame.payload)
    assert isinstance(packet, ipv4.Packet)
    assert (packet.src, packet.dst, packet.ttl, packet.dont_fragment, packet.tos) == (OWN, OTHER, 64, False, 0)
    assert packet.payload[2:8] == (4789).to_bytes(2, "big") + (16 + len(FRAME)).to_bytes(2, "big") + b"\0\0"
    assert packet.payload[8:] == bytes.fromhex("0800000000000700") + FRAME
    assert len(sent) - len(FRAME) == vxlan.OVERHEAD_BYTES
    assert played.remotes.ends(0)[0].sent == 1


def test_ports_follow_flows() -> None:
    """Frames of one flow have one source port, and a thousand flows have many."""

    def frame(port: int, text: bytes) -> bytes:
        datagram = udp.build(1, 2, udp.Datagram(port, 80, text))
        return ethernet.build(BOB, ALICE, ethernet.IPV4, ipv4.build(ipv4.Packet(1, 2, ipv4.UDP, datagram)))

    assert vxlan.source_port(frame(1, b"a")) == vxlan.source_port(frame(1, b"bcd"))
    ports = {vxlan.source_port(frame(port, b"")) for port in range(1000)}
    assert len(ports) > 900
    assert min(ports) >= 49152


def test_an_end_behind_a_router_is_reached_through_it() -> None:
    """Outside the subnet the router is asked for; without a router the frame is dropped as NO_ROUTE."""
    played = Played((FAR,), gateway=ROUTER)
    (asked,) = played.send()
    question = arp.parse(asked[14:])
    assert isinstance(question, arp.ArpPacket)
    assert question.target == ROUTER
    assert len(played.resolve(ROUTER)) == 1
    alone = Played((FAR,))
    assert alone.send() == []
    assert alone.drops == [DropReason.NO_ROUTE]


def test_a_silent_neighbour_costs_its_frames() -> None:
    """After three questions without an answer the frame is dropped where it came from, and no timer is left."""
    played = Played()
    played.send()
    for _ in range(3):
        due_ns = played.tunnel.next_wakeup_ns
        assert due_ns is not None
        played.tunnel.tick(due_ns)
    assert played.drops == [DropReason.NEIGHBOR_UNREACHABLE]
    assert played.tunnel.next_wakeup_ns is None


def test_a_frame_without_remote_ends_has_no_destination() -> None:
    """An overlay that knows nobody drops with the switch's own reason."""
    played = Played(())
    assert played.send() == []
    assert played.drops == [DropReason.NO_DESTINATION]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(13), DropReason.RUNT),
        (ethernet.build(BOB, ALICE, 0x88B5, bytes(1501)), DropReason.OVERSIZE),
        (ethernet.build(BOB, ALICE, 0x88B5, b"", tci=5), DropReason.VLAN_MISMATCH),
        (BOB + ALICE + b"\x81\0", DropReason.VLAN_TRUNCATED),
        (ethernet.build(BOB, BROADCAST_MAC, 0x88B5, b""), DropReason.SOURCE_INVALID),
    ],
)
def test_frames_that_a_switch_would_refuse_teach_nothing(frame: bytes, reason: DropReason) -> None:
    """Runts, giants, tagged frames and impossible sources are counted; no end and no address is learned."""
    played = Played(accept=True)
    played.hear(frame)
    played.hear(frame, src=FAR)
    assert played.drops == [reason, reason]
    assert played.got == []
    assert [(end.address, end.received) for end in played.remotes.ends(0)] == [(OTHER, 1)]
    assert played.remotes.macs(0) == []


def test_the_longest_frame_fits_both_ways() -> None:
    """A frame of the MTU goes out and in; one byte more is FRAGMENT_NEEDED on the way out."""
    played = Played()
    longest = ethernet.build(BOB, ALICE, 0x88B5, bytes(1500))
    played.hear(longest)
    assert played.got == [longest]
    assert len(played.send(longest)) == 1
    assert played.send(longest + b"\0") == []
    assert played.drops == [DropReason.FRAGMENT_NEEDED]


def test_strangers_and_broken_packets_have_their_reasons() -> None:
    """Unknown peer, own address, unknown VNI, bad header, fragment, other port: each has its reason, none delivers."""
    played = Played()
    played.hear(src=FAR)
    played.hear(src=OWN)
    played.hear(vni=8)
    played.packet(OTHER, bytes(20))
    played.packet(OTHER, b"\x08\0\0\0")
    played.packet(OTHER, vxlan.build(7, FRAME), more=True)
    played.packet(OTHER, vxlan.build(7, FRAME), port=4790)
    assert played.drops == [
        *[DropReason.TUNNEL_PEER_UNKNOWN] * 2,
        DropReason.TUNNEL_VNI_UNKNOWN,
        *[DropReason.TUNNEL_MALFORMED] * 3,
        DropReason.PROTOCOL_UNSUPPORTED,
    ]
    assert played.got == []


def test_reserved_bits_are_not_looked_at() -> None:
    """Bits that RFC 7348 reserves are ignored; without the I flag nothing is valid."""
    assert vxlan.parse(bytes.fromhex("ff11223300000744") + FRAME) == (7, FRAME)
    assert vxlan.parse(bytes.fromhex("f711223300000744")) is Refusal.OPERATION
    assert vxlan.parse(bytes(7)) is Refusal.TRUNCATED


def test_a_stranger_that_is_accepted_is_learned_and_fades() -> None:
    """Accepted, it is an end with an address behind it until it was silent for the ageing time."""
    played = Played(accept=True)
    played.hear(src=FAR)
    assert played.remotes.addresses(AGEING_NS - 1) == [OTHER, FAR]
    assert played.remotes.lookup(ALICE, AGEING_NS - 1) == FAR
    end = played.remotes.end(FAR, SECOND_NS)
    assert end is not None
    assert (end.configured, end.age_ns, end.received) == (False, SECOND_NS, 1)
    assert played.remotes.addresses(AGEING_NS) == [OTHER]
    assert played.remotes.lookup(ALICE, AGEING_NS) is None
    assert not played.remotes.forget(FAR, AGEING_NS)


def test_what_is_told_wins_over_what_is_seen_and_over_what_was_told() -> None:
    """A told address stays where it was told, until it is told elsewhere; forgetting its end forgets it."""
    played = Played()
    assert played.remotes.tell(FAR, (ALICE,), 0)
    played.hear()
    assert played.remotes.lookup(ALICE, 0) == FAR
    assert played.remotes.tell(OTHER, (ALICE, BOB), 0)
    assert played.remotes.lookup(ALICE, 0) == OTHER
    assert [end.macs for end in played.remotes.ends(0)] == [(ALICE, BOB), ()]
    assert played.remotes.tell(OTHER, (), 0)
    assert played.remotes.macs(0) == []
    played.hear()
    assert played.remotes.forget(OTHER, 0)
    assert played.remotes.macs(0) == []


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned addresses and ends stop at their limits and push nobody out; what is told takes a learned end's place."""
    monkeypatch.setattr(remote_ends, "MAX_ENDS", 3)
    played = Played(accept=True)
    for number in range(6):
        source = b"\x02\0\0\0\1" + bytes([number])
        played.hear(ethernet.build(BOB, source, 0x88B5, b""), src=FAR + number, now_ns=number)
    assert len(played.got) == 6
    assert played.remotes.addresses(6) == [OTHER, FAR, FAR + 1]
    assert {each.address for each in played.remotes.macs(6)} == {FAR, FAR + 1}
    for number in range(6):
        played.hear(ethernet.build(BOB, b"\x02\0\0\0\2" + bytes([number]), 0x88B5, b""))
    assert len(played.remotes.macs(6)) == 4
    assert played.remotes.tell(FAR + 9, (), 6)
    assert played.remotes.addresses(6) == [OTHER, FAR + 1, FAR + 9]
    assert played.remotes.tell(FAR + 8, (), 6)
    assert not played.remotes.tell(FAR + 7, (), 6)
    assert played.remotes.addresses(AGEING_NS * 2) == [OTHER, FAR + 8, FAR + 9]


def test_less_learning_forgets_what_was_learned() -> None:
    """No learning forgets all that was learned and learns no more; strangers that are refused again are forgotten."""
    played = Played(accept=True)
    played.hear(src=FAR)
    played.end.set_learning(Learning(), 1)
    assert played.remotes.addresses(1) == [OTHER]
    played.hear()
    assert played.remotes.lookup(ALICE, 1) == OTHER
    played.end.set_learning(Learning(nothing=True, accept_unknown=True), 2)
    played.hear(src=FAR)
    assert len(played.got) == 3
    assert played.remotes.macs(2) == []
    assert played.remotes.addresses(2) == [OTHER]


def test_a_shorter_ageing_time_holds_at_once() -> None:
    """What was silent for longer than the new time is gone."""
    played = Played(accept=True)
    played.hear(src=FAR)
    played.remotes.resize(SECOND_NS, 4, SECOND_NS)
    assert played.remotes.addresses(SECOND_NS) == [OTHER]
    assert played.remotes.macs(SECOND_NS) == []


def test_a_ping_of_the_tunnels_address_is_answered() -> None:
    """The other host can find out that the address is there."""
    played = Played()
    echo = icmp.build(icmp.echo_request(1, 2, b"data"))
    packet = ipv4.build(ipv4.Packet(OTHER, OWN, ipv4.ICMP, echo))
    (answer,) = played.tunnel.receive(ethernet.build(MAC, OTHER_MAC, ethernet.IPV4, packet), 0)
    back = ipv4.parse(answer[14:])
    assert isinstance(back, ipv4.Packet)
    assert answer[:6] == OTHER_MAC
    assert icmp.parse(back.payload) == icmp.Message(icmp.ECHO_REPLY, 0, 1 << 16 | 2, b"data")


def test_an_end_that_left_sends_no_more() -> None:
    """What still waits for a neighbour when its end leaves is not counted at an end that is gone."""
    played = Played()
    played.send()
    played.tunnel.leave(played.there)
    assert played.tunnel.is_unused
    for now_ns in range(1, 5):
        played.tunnel.tick(now_ns * SECOND_NS)
    assert played.drops == []
