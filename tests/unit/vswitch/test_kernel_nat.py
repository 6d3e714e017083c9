"""What the kernel tracks, as it tells it and as users see it; and what the router gives to it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.rng import Rng
from lamina_net.packets import ipv4, udp
from lamina_net.packets.address import Subnet, parse_address
from lamina_net.rate_limiter import RateLimiter
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.outside.kernel import (
    DESTINATION_CHANGED,
    SEEN_REPLY,
    KernelTranslation,
    Tracked,
    entry_of,
    explain_kernel,
    leaving,
)
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP
from lamina_vswitch.domain.nat.packets.tracking import SECOND_NS, State
from lamina_vswitch.domain.nat.translator import NetworkTranslator
from lamina_vswitch.domain.network.definition import Mode, NatSettings, NetworkDefinition, Outside
from lamina_vswitch.engines.linux.nat.conntrack import may_be_of, read_flow
from lamina_vswitch.engines.linux.nat.machine import _comment, _comment_in, _settings_of
from lamina_vswitch.engines.linux.netlink.requests import NESTED, attribute

INSIDE = (Subnet(0x0A050000, 24),)
GUEST, HOST, MACHINE, ROUTER = 0x0A050009, 0xC0000209, 0xC0000201, 0x0A050001
NOW_NS, WALL_NS = 500 * SECOND_NS, 9_000 * SECOND_NS


def nested(kind: int, *parts: bytes) -> bytes:
    """Returns an attribute with others within."""
    return attribute(kind | NESTED, b"".join(parts))


def ends(kind: int, source: int, destination: int, *protocol: bytes) -> bytes:
    """Returns a direction as the kernel tells it."""
    addresses = nested(1, attribute(1, source.to_bytes(4, "big")), attribute(2, destination.to_bytes(4, "big")))
    return nested(kind, addresses, nested(2, *protocol))


def ports(number: int, source: int, destination: int) -> tuple[bytes, ...]:
    """Returns protocol and ports as the kernel tells them."""
    both = attribute(2, source.to_bytes(2, "big")), attribute(3, destination.to_bytes(2, "big"))
    return attribute(1, bytes([number])), *both


def big(kind: int, number: int, size: int = 4) -> bytes:
    """Returns a number in network order."""
    return attribute(kind, number.to_bytes(size, "big"))


def told() -> bytes:
    """Returns the message about a TCP flow of a guest, masqueraded."""
    return struct.pack("=BBH", 2, 0, 0) + b"".join([
        ends(1, GUEST, HOST, *ports(TCP, 1000, 80)),
        ends(2, HOST, MACHINE, *ports(TCP, 80, 40000)),
        big(3, SEEN_REPLY),
        nested(4, nested(1, attribute(1, b"\x03"))),
        big(7, 7000),
        nested(9, big(1, 5, 8), big(2, 500, 8)),
        nested(10, big(1, 4, 8), big(2, 400, 8)),
        big(12, 77),
        nested(20, big(1, WALL_NS - SECOND_NS, 8)),
    ])  # fmt: skip


def test_a_flow_is_read_and_shown() -> None:
    """Ends, counts, state, age and what is left come from what the kernel tells."""
    flow = read_flow(told())
    assert flow is not None
    entry = entry_of(flow, INSIDE, 1, NOW_NS, WALL_NS)
    assert entry is not None
    assert (entry.inside, entry.dialled, entry.peer) == ((GUEST, 1000), (HOST, 80), (HOST, 80))
    assert (entry.outside, entry.via, entry.track.state) == ((MACHINE, 40000), None, State.ESTABLISHED)
    assert (entry.sent.packets, entry.sent.octets, entry.received.packets, entry.received.octets) == (5, 500, 4, 400)
    assert (NOW_NS - entry.began_ns, entry.ends_ns - NOW_NS) == (SECOND_NS, 7000 * SECOND_NS)


def test_an_echo_has_its_identifier_where_the_asking_side_is() -> None:
    """As in the table: the port of who asks."""
    about = attribute(1, bytes([ICMP])), big(4, 300, 2)
    body = struct.pack("=BBH", 2, 0, 0)
    body += ends(1, GUEST, HOST, *about, attribute(5, b"\x08")) + ends(2, HOST, MACHINE, *about, attribute(5, b"\0"))
    flow = read_flow(body)
    assert flow is not None
    assert (flow.source, flow.destination) == ((GUEST, 300), (HOST, 0))
    assert (flow.answer_source, flow.answer_destination) == ((HOST, 0), (MACHINE, 300))


def test_what_came_by_a_forwarded_port_is_seen_from_inside() -> None:
    """The device is inside, who came is the peer, the port is told; bytes to the device were received."""
    flow = Tracked(
        TCP, (HOST, 5000), (MACHINE, 8080), (GUEST, 80), (HOST, 5000), DESTINATION_CHANGED, 4, 100, 0, (3, 30), (2, 20)
    )
    entry = entry_of(flow, INSIDE, 1, NOW_NS, WALL_NS)
    assert entry is not None
    assert (entry.inside, entry.dialled, entry.peer) == ((GUEST, 80), (HOST, 5000), (HOST, 5000))
    assert (entry.outside, entry.via, entry.track.state) == ((MACHINE, 8080), (MACHINE, 8080), State.CLOSING)
    assert (entry.sent.octets, entry.received.octets, entry.began_ns) == (20, 30, NOW_NS)


@pytest.mark.parametrize("flow", [
    Tracked(TCP, (HOST, 1), (MACHINE, 2), (MACHINE, 2), (HOST, 1)),
    Tracked(47, (GUEST, 0), (HOST, 0), (HOST, 0), (MACHINE, 0)),
])  # fmt: skip
def test_flows_of_others_are_left_out(flow: Tracked) -> None:
    """Those of the machine itself, and protocols that no table has."""
    assert entry_of(flow, INSIDE, 1, NOW_NS, WALL_NS) is None


@pytest.mark.parametrize(("protocol", "status", "tcp_state", "state"), [
    (TCP, 0, 1, State.OPENING), (TCP, 0, 2, State.OPENING), (TCP, 0, 9, State.OPENING), (TCP, 0, 6, State.CLOSED),
    (TCP, 0, 7, State.CLOSED), (TCP, 0, 8, State.CLOSED), (TCP, 0, 5, State.CLOSING),
    (UDP, 0, 0, State.UNREPLIED), (UDP, SEEN_REPLY, 0, State.REPLIED), (ICMP, SEEN_REPLY, 0, State.REPLIED),
])  # fmt: skip
def test_states_are_the_contracts(protocol: int, status: int, tcp_state: int, state: State) -> None:
    """Each state of the kernel is one of the contract, and ends when the kernel says."""
    flow = Tracked(protocol, (GUEST, 1), (HOST, 2), (HOST, 2), (MACHINE, 1), status, tcp_state, 9)
    entry = entry_of(flow, INSIDE, 1, NOW_NS, WALL_NS)
    assert entry is not None
    assert (entry.track.state, entry.ends_ns - NOW_NS) == (state, 9 * SECOND_NS)


@given(st.integers(0, len(told())), st.binary(max_size=60), st.integers(0, len(told())))
def test_any_message_is_a_flow_or_none(cut: int, other: bytes, at: int) -> None:
    """A message that is cut, or has other bytes in it, never raises, and no flow has ports or addresses too large."""
    body = told()
    for changed in (body[:cut], body[:at] + other + body[at + len(other) :], other):
        flow = read_flow(changed)
        if flow is not None:
            assert all(address <= 0xFFFFFFFF for address, _ in (flow.source, flow.answer_source))


@given(st.integers(0, len(told())), st.binary(max_size=60), st.integers(0, len(told())))
def test_flows_of_others_are_passed_over_unread(cut: int, other: bytes, at: int) -> None:
    """Whatever a message is, one that is passed over is no flow of the network."""
    body = told()
    assert may_be_of(body, INSIDE) and not may_be_of(body, (Subnet(0x0B000000, 8),))
    assert may_be_of(body, (Subnet(HOST, 32),))
    for changed in (body[:cut], body[:at] + other + body[at + len(other) :], other):
        flow = read_flow(changed)
        if flow is not None and not may_be_of(changed, INSIDE):
            assert entry_of(flow, INSIDE, 1, NOW_NS, WALL_NS) is None


def packet(dst: str) -> bytes:
    """Returns a datagram of the guest."""
    to = parse_address(dst) or 0
    return ipv4.build(ipv4.Packet(GUEST, to, ipv4.UDP, udp.build(GUEST, to, udp.Datagram(1, 2, b"x"))))


@pytest.mark.parametrize("dst", ["127.0.0.1", "224.0.0.1", "0.0.0.1", "255.255.255.255"])
def test_the_machine_s_own_is_out_of_reach_without_rules_too(dst: str) -> None:
    """What must never get to the kernel is refused before it."""
    outcome = leaving(packet(dst))
    assert (outcome.outside, outcome.drops[0][0]) == ((), DropReason.NAT_DESTINATION_FORBIDDEN)
    assert outcome.error is not None


def test_what_leaves_leaves_as_it_is() -> None:
    """Packets go to the kernel unchanged; one that no translator reads is dropped, or the router's own."""
    good, bad = packet("192.0.2.9"), ipv4.build(ipv4.Packet(GUEST, HOST, 47, b"xxxx"))
    assert leaving(good).outside == (good,)
    assert explain_kernel(good).drop is None
    assert [reason for reason, _ in leaving(bad).drops] == [DropReason.PROTOCOL_UNSUPPORTED]
    assert explain_kernel(bad).drop is DropReason.PROTOCOL_UNSUPPORTED
    assert leaving(bad, to_gateway=True).own == (bad,)


class Taken:
    """A kernel that takes packets; nothing else of it is asked."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packets: Sequence[bytes], now_ns: int) -> None:
        """Takes packets."""
        self.packets += packets


def test_invented_sources_do_not_reach_the_kernel_at_the_router_either() -> None:
    """A datagram to the router itself goes to the kernel, which may answer it, only if it is from inside."""
    subnet, taken = INSIDE[0], Taken()
    definition = NetworkDefinition("net", Mode.NAT, "lan", 0, subnet, ROUTER, nat=NatSettings(Outside.KERNEL))
    translator = NetworkTranslator(definition, 1500, Rng("test"), RateLimiter(1, 1), lambda *_: None, None)
    translator.at_kernel(cast(KernelTranslation, taken), taken.send)
    sent = {}
    for src in (GUEST, HOST, 0x7F000001):
        sent[src] = ipv4.build(ipv4.Packet(src, ROUTER, ipv4.UDP, udp.build(src, ROUTER, udp.Datagram(1, 2, b"x"))))
        translator.from_inside(sent[src], NOW_NS)
    assert taken.packets == [sent[GUEST]]
    translator.leave_kernel()
    assert translator.from_inside(packet("192.0.2.9"), NOW_NS) is None
    assert taken.packets == [sent[GUEST]]


def test_what_was_set_is_read_from_a_comment() -> None:
    """A table's comment says what to set again; of what somebody else wrote nothing is believed."""
    before = {"net/ipv4/ip_forward": "0", "net/netfilter/nf_conntrack_acct": "1"}
    before["net/ipv4/conf/all/accept_redirects"] = "0"
    text = _comment(before | {"net/netfilter/nf_conntrack_timestamp": "0"}).encode() + b"\0"
    assert len(text) <= 128  # what nf_tables keeps
    text = _comment(before).encode() + b"\0"
    assert _settings_of(_comment_in(bytes([1, 1, 9, 0, len(text)]) + text)) == before
    assert _settings_of("kernel/panic=1 net/ipv4/ip_forward=7 x") == {}


@given(st.binary(max_size=300))
def test_any_user_data_has_a_comment_or_none(data: bytes) -> None:
    """Whatever lies in a table's user data."""
    assert isinstance(_comment_in(data), str)
