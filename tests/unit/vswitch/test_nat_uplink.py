"""Translation between inside and one outside address, packet by packet."""

from __future__ import annotations

import pytest

from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.address import parse_address
from lamina_net.packets.checksum import is_right, pseudo_sum
from lamina_net.tcp import segment
from lamina_net.tcp.segment import ACK, FIN, RST, SYN, Segment
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition, Forwards
from lamina_vswitch.domain.nat.flows.ports import PortPool
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.nat.packets.tracking import State

NS = 1_000_000_000


def address(text: str) -> int:
    """Return an address."""
    parsed = parse_address(text)
    assert parsed is not None
    return parsed


GUEST, OTHER = address("10.0.2.15"), address("10.0.2.16")
OUTSIDE, PEER, STRANGER = address("198.51.100.1"), address("203.0.113.7"), address("203.0.113.8")


def udp_packet(src: int, sport: int, dst: int, dport: int, data: bytes = b"data", identification: int = 0) -> bytes:
    """Return a UDP packet."""
    body = udp.build(src, dst, udp.Datagram(sport, dport, data))
    return ipv4.build(ipv4.Packet(src, dst, ipv4.UDP, body, identification=identification))


def tcp_packet(src: int, sport: int, dst: int, dport: int, flags: int, seq: int = 7, ack: int = 0) -> bytes:
    """Return a TCP packet."""
    body = segment.build(src, dst, Segment(sport, dport, seq, ack, flags, 1000))
    return ipv4.build(ipv4.Packet(src, dst, ipv4.TCP, body))


def echo(src: int, dst: int, identifier: int, *, reply: bool = False) -> bytes:
    """Return an ICMP echo."""
    kind = icmp.ECHO_REPLY if reply else icmp.ECHO_REQUEST
    message = icmp.Message(kind, 0, identifier << 16 | 1, b"ping")
    return ipv4.build(ipv4.Packet(src, dst, ipv4.ICMP, icmp.build(message)))


def ends(packet: bytes) -> tuple[int, int, int, int]:
    """Return source address and port, destination address and port, after a check of every sum."""
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    if parsed.protocol == ipv4.ICMP:
        assert is_right(parsed.payload)
        return parsed.src, int.from_bytes(parsed.payload[4:6], "big"), parsed.dst, 0
    if parsed.protocol == ipv4.UDP:
        assert isinstance(udp.parse(parsed.src, parsed.dst, parsed.payload), udp.Datagram)
    else:
        assert isinstance(segment.parse(parsed.src, parsed.dst, parsed.payload), Segment)
    ports = parsed.payload[:4]
    return parsed.src, int.from_bytes(ports[:2], "big"), parsed.dst, int.from_bytes(ports[2:], "big")


class Nat:
    """A translator with ten outside ports."""

    def __init__(self, limit: int = 64, per_address: int = 32, ports: int = 10) -> None:
        self.table = Table(limit, per_address, self._gone)
        self.forwards = Forwards()
        self.pool = PortPool(40000, 39999 + ports, 3)
        self.nat = UplinkNat(OUTSIDE, Rewriter(self.table), self.pool, self.forwards)
        self.now_ns = 0

    def _gone(self, entry: Entry) -> None:
        self.nat.ended(entry)

    def out(self, packet: bytes) -> Outcome:
        """Send a packet out."""
        return self.nat.leaving(packet, self.now_ns)

    def back(self, packet: bytes) -> Outcome:
        """Let a packet come in."""
        return self.nat.entering(packet, self.now_ns)

    def only(self) -> Entry:
        """Return the only entry."""
        (entry,) = self.table.entries(self.now_ns)
        return entry


@pytest.fixture
def nat() -> Nat:
    """Returns a translator."""
    return Nat()


def test_udp_goes_out_and_its_answer_comes_back(nat: Nat) -> None:
    """A datagram leaves from the outside address; the answer finds its way to the guest with right sums."""
    (sent,) = nat.out(udp_packet(GUEST, 5000, PEER, 53)).outside
    assert ends(sent) == (OUTSIDE, 40003, PEER, 53)
    assert nat.only().track.state is State.UNREPLIED
    (received,) = nat.back(udp_packet(PEER, 53, OUTSIDE, 40003)).inside
    assert ends(received) == (PEER, 53, GUEST, 5000)
    assert nat.only().track.state is State.REPLIED
    assert (nat.only().sent.packets, nat.only().received.octets) == (1, 32)


def test_the_mapping_does_not_depend_on_the_peer_and_the_filter_does(nat: Nat) -> None:
    """Two peers see one outside port, and a stranger who uses it is dropped."""
    for peer in (PEER, STRANGER):
        (sent,) = nat.out(udp_packet(GUEST, 5000, peer, 53)).outside
        assert ends(sent)[1] == 40003
    third = nat.back(udp_packet(address("203.0.113.9"), 53, OUTSIDE, 40003))
    assert third.drops[0][0] is DropReason.NAT_NO_ENTRY
    assert nat.back(udp_packet(PEER, 54, OUTSIDE, 40003)).drops[0][0] is DropReason.NAT_NO_ENTRY


def test_a_udp_sum_of_zero_stays_zero_and_a_wrong_one_wrong(nat: Nat) -> None:
    """What the sender did not protect stays unprotected; what came broken stays broken."""
    for stored in (b"\x00\x00", b"\x12\x34"):
        packet = bytearray(udp_packet(GUEST, 5000, PEER, 53))
        packet[26:28] = stored
        (sent,) = nat.out(bytes(packet)).outside
        body = sent[20:]
        if stored == b"\x00\x00":
            assert sent[26:28] == stored
        else:
            assert not is_right(body, pseudo_sum(OUTSIDE, PEER, ipv4.UDP, len(body)))


def test_echo_is_translated_by_its_identifier(nat: Nat) -> None:
    """A ping leaves with another identifier, and its reply has the guest's again."""
    (sent,) = nat.out(echo(GUEST, PEER, 77)).outside
    assert ends(sent) == (OUTSIDE, 40003, PEER, 0)
    (reply,) = nat.back(echo(PEER, OUTSIDE, 40003, reply=True)).inside
    assert ends(reply) == (PEER, 77, GUEST, 0)
    nat.now_ns = 60 * NS
    assert nat.table.entries(nat.now_ns) == []


def test_an_echo_reply_that_is_all_zero_has_a_right_sum(nat: Nat) -> None:
    """An empty reply to an echo of identifier and sequence number 0 sums to nothing: its checksum is 0xffff, not 0."""
    request = icmp.build(icmp.Message(icmp.ECHO_REQUEST, 0, 0, b""))
    (sent,) = nat.out(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.ICMP, request))).outside
    reply = icmp.build(icmp.Message(icmp.ECHO_REPLY, 0, ends(sent)[1] << 16, b""))
    (received,) = nat.back(ipv4.build(ipv4.Packet(PEER, OUTSIDE, ipv4.ICMP, reply))).inside
    assert received[20:] == b"\0\0\xff\xff\0\0\0\0" and ends(received) == (PEER, 0, GUEST, 0)


def test_tcp_states_follow_the_flags(nat: Nat) -> None:
    """SYN, SYN-ACK, FIN both ways: opening, established, closing, closed, each with its own time."""
    steps = [
        (True, SYN, State.OPENING, 240),
        (False, SYN | ACK, State.ESTABLISHED, 7440),
        (True, ACK, State.ESTABLISHED, 7440),
        (True, FIN | ACK, State.CLOSING, 240),
        (False, ACK, State.CLOSING, 240),
        (False, FIN | ACK, State.CLOSED, 10),
    ]
    for inside, flags, state, seconds in steps:
        if inside:
            assert nat.out(tcp_packet(GUEST, 5000, PEER, 80, flags)).outside
        else:
            assert nat.back(tcp_packet(PEER, 80, OUTSIDE, 40003, flags)).inside
        assert (nat.only().track.state, nat.only().ends_ns) == (state, nat.now_ns + seconds * NS)
        nat.now_ns += NS
    assert nat.out(tcp_packet(GUEST, 5000, PEER, 80, SYN)).outside
    assert nat.only().track.state is State.OPENING


def test_a_reset_that_is_not_believed_ends_nothing(nat: Nat) -> None:
    """After a reset an entry lasts 10 s, unless the side that was reset goes on as if nothing had been."""
    nat.out(tcp_packet(GUEST, 5000, PEER, 80, SYN))
    nat.back(tcp_packet(PEER, 80, OUTSIDE, 40003, SYN | ACK))
    nat.back(tcp_packet(PEER, 80, OUTSIDE, 40003, RST))
    assert nat.only().track.state is State.CLOSED
    nat.out(tcp_packet(GUEST, 5000, PEER, 80, ACK))
    assert nat.only().track.state is State.ESTABLISHED


@pytest.mark.parametrize("flags", [0, SYN | FIN, SYN | RST, FIN, ACK, SYN | ACK, RST])
def test_only_a_syn_begins_a_tcp_flow(nat: Nat, flags: int) -> None:
    """Anything else makes no entry and is counted."""
    assert nat.out(tcp_packet(GUEST, 5000, PEER, 80, flags)).drops[0][0] is DropReason.NAT_STATE
    assert len(nat.table) == 0


def test_impossible_segments_of_a_flow_are_dropped(nat: Nat) -> None:
    """A peer that never sent SYN cannot send FIN, and nobody SYN with FIN."""
    nat.out(tcp_packet(GUEST, 5000, PEER, 80, SYN))
    for flags in (FIN | ACK, SYN | FIN, 0):
        assert nat.back(tcp_packet(PEER, 80, OUTSIDE, 40003, flags)).drops[0][0] is DropReason.NAT_STATE


def test_ports_run_out_and_come_back() -> None:
    """With every port taken a new flow is dropped; ten seconds after a reset its port is free again."""
    nat = Nat(ports=2)
    for sport in (1, 2):
        assert nat.out(tcp_packet(GUEST, sport, PEER, 80, SYN)).outside
    assert nat.out(tcp_packet(GUEST, 3, PEER, 80, SYN)).drops[0][0] is DropReason.NAT_PORTS_EXHAUSTED
    assert nat.out(tcp_packet(GUEST, 1, STRANGER, 80, SYN)).outside
    nat.out(tcp_packet(GUEST, 2, PEER, 80, RST))
    nat.now_ns = 10 * NS
    assert nat.out(tcp_packet(GUEST, 3, PEER, 80, SYN)).outside


def test_the_table_is_bounded_in_all_and_by_address() -> None:
    """One guest cannot take what the table has for all, and the table has an end."""
    nat = Nat(limit=3, per_address=2, ports=100)
    assert all(nat.out(udp_packet(GUEST, sport, PEER, 53)).outside for sport in (1, 2))
    assert nat.out(udp_packet(GUEST, 3, PEER, 53)).drops[0][0] is DropReason.NAT_ADDRESS_LIMIT
    assert nat.out(udp_packet(OTHER, 1, PEER, 53)).outside
    assert nat.out(udp_packet(OTHER, 2, PEER, 53)).drops[0][0] is DropReason.NAT_TABLE_FULL
    nat.now_ns = 300 * NS
    assert nat.out(udp_packet(GUEST, 3, PEER, 53)).outside
    assert len(nat.table) == 1


@pytest.mark.parametrize("cut", [28, 200])
def test_an_error_from_outside_reaches_the_guest_about_its_own_packet(nat: Nat, cut: int) -> None:
    """Outer and quoted addresses, ports and sums are translated, also where the quote is cut."""
    (sent,) = nat.out(udp_packet(GUEST, 5000, PEER, 53, bytes(100))).outside
    message = icmp.error(icmp.UNREACHABLE, icmp.HOST_UNREACHABLE, sent[:cut])
    (told,) = nat.back(ipv4.build(ipv4.Packet(STRANGER, OUTSIDE, ipv4.ICMP, icmp.build(message)))).inside
    outer = ipv4.parse(told)
    assert isinstance(outer, ipv4.Packet)
    assert (outer.src, outer.dst) == (STRANGER, GUEST)
    inner = icmp.parse(outer.payload)
    assert isinstance(inner, icmp.Message)
    assert inner.body == udp_packet(GUEST, 5000, PEER, 53, bytes(100))[:cut]


def test_an_error_from_inside_leaves_with_the_outside_address(nat: Nat) -> None:
    """A guest's port unreachable tells the peer about the packet that the peer sent."""
    nat.out(udp_packet(GUEST, 5000, PEER, 53))
    came = udp_packet(PEER, 53, OUTSIDE, 40003)
    (inside,) = nat.back(came).inside
    message = icmp.error(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, inside)
    (told,) = nat.out(ipv4.build(ipv4.Packet(GUEST, PEER, ipv4.ICMP, icmp.build(message)))).outside
    outer = ipv4.parse(told)
    assert isinstance(outer, ipv4.Packet)
    assert (outer.src, outer.dst) == (OUTSIDE, PEER)
    inner = icmp.parse(outer.payload)
    assert isinstance(inner, icmp.Message)
    assert inner.body == came


def test_a_forwarded_port_lets_the_outside_in(nat: Nat) -> None:
    """A flow from outside to a forwarded port reaches its inside address, and answers leave from that port."""
    nat.forwards.add(ForwardDefinition("n", "web", ipv4.TCP, (OUTSIDE, 8080), (GUEST, 80)))
    (came,) = nat.back(tcp_packet(PEER, 9, OUTSIDE, 8080, SYN)).inside
    assert ends(came) == (PEER, 9, GUEST, 80)
    (answer,) = nat.out(tcp_packet(GUEST, 80, PEER, 9, SYN | ACK)).outside
    assert ends(answer) == (OUTSIDE, 8080, PEER, 9)
    assert nat.only().via == (OUTSIDE, 8080)
    nat.forwards.remove("web")
    assert nat.back(tcp_packet(PEER, 9, OUTSIDE, 8080, ACK)).inside, "connections that came through it go on"


def test_hairpin_comes_back_in(nat: Nat) -> None:
    """A guest reaches another by the outside address, and each sees outside addresses only."""
    nat.forwards.add(ForwardDefinition("n", "web", ipv4.TCP, (OUTSIDE, 8080), (OTHER, 80)))
    (came,) = nat.out(tcp_packet(GUEST, 5000, OUTSIDE, 8080, SYN)).inside
    assert ends(came) == (OUTSIDE, 40003, OTHER, 80)
    (answer,) = nat.out(tcp_packet(OTHER, 80, OUTSIDE, 40003, SYN | ACK)).inside
    assert ends(answer) == (OUTSIDE, 8080, GUEST, 5000)


def pieces(packet: bytes, mtu: int = 100) -> list[bytes]:
    """Return the fragments of a packet."""
    parsed = ipv4.parse(packet)
    assert isinstance(parsed, ipv4.Packet)
    parts = ipv4.fragment(parsed, mtu)
    assert isinstance(parts, list)
    return [ipv4.build(part) for part in parts]


def joined(packets: list[bytes]) -> bytes:
    """Return the packet of which these are the fragments."""
    parsed = [each for packet in packets if isinstance(each := ipv4.parse(packet), ipv4.Packet)]
    parsed.sort(key=lambda each: each.offset)
    payload = b"".join(each.payload for each in parsed)
    return ipv4.build(parsed[0]._replace(payload=payload, more=False))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_fragments_are_translated_with_the_first(nat: Nat, order: tuple[int, ...]) -> None:
    """In whatever order they come, all leave with the addresses that the first one got, none before it."""
    packet = udp_packet(GUEST, 5000, PEER, 53, bytes(range(256)), identification=9)
    parts = pieces(packet)
    sent = [out for place in order for out in nat.out(parts[place]).outside]
    assert len(sent) == 4
    assert ends(joined(sent)) == (OUTSIDE, 40003, PEER, 53)
    assert (nat.only().sent.packets, nat.only().sent.octets) == (4, sum(map(len, parts)))


def test_a_fragment_waits_thirty_seconds(nat: Nat) -> None:
    """Without the first, later fragments are dropped after 30 s, and the first alone does not bring them back."""
    parts = pieces(udp_packet(GUEST, 5000, PEER, 53, bytes(256), identification=9))
    assert nat.out(parts[1]) == Outcome()
    nat.now_ns = 30 * NS
    outcome = nat.out(parts[0])
    assert [reason for reason, _ in outcome.drops] == [DropReason.FRAGMENT_TIMEOUT]
    assert len(outcome.outside) == 1


def test_overlapping_fragments_drop_their_datagram(nat: Nat) -> None:
    """An overlap drops what waits and what comes later, the first fragment too."""
    parts = pieces(udp_packet(GUEST, 5000, PEER, 53, bytes(256), identification=9))
    nat.out(parts[1])
    again = nat.out(parts[1])
    assert [reason for reason, _ in again.drops] == [DropReason.FRAGMENT_OVERLAP] * 2
    assert [reason for reason, _ in nat.out(parts[0]).drops] == [DropReason.FRAGMENT_OVERLAP]


def test_an_address_has_64_datagrams_under_way(nat: Nat) -> None:
    """The 65th has no room to wait; another address has."""

    def waiting(src: int, number: int) -> bytes:
        return pieces(udp_packet(src, 5000, PEER, 53, bytes(256), identification=number))[1]

    assert not any(nat.out(waiting(GUEST, number)).drops for number in range(64))
    assert nat.out(waiting(GUEST, 64)).drops[0][0] is DropReason.FRAGMENT_TIMEOUT
    assert not nat.out(waiting(OTHER, 64)).drops


@pytest.mark.parametrize("protocol", [2, 47, 50, 132])
def test_other_protocols_are_not_translated(nat: Nat, protocol: int) -> None:
    """Without ports there is nothing to tell flows apart by."""
    packet = ipv4.build(ipv4.Packet(GUEST, PEER, protocol, bytes(40)))
    assert nat.out(packet).drops[0][0] is DropReason.PROTOCOL_UNSUPPORTED
