"""IPv4 packets: header, options, fragments, forwarding."""

from __future__ import annotations

import pytest

from lamina_net.packets import ipv4
from lamina_net.packets.checksum import checksum
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal

HEADER = bytes.fromhex("4500 0073 0000 4000 4011 b861 c0a80001 c0a800c7")
PACKET = HEADER + bytes(range(95))
ROUTER_ALERT, RECORD_ROUTE = bytes.fromhex("94040000"), bytes.fromhex("07070400000000")


def resummed(data: bytes) -> bytes:
    """Return a packet with the checksum that its 20 bytes of header want."""
    bare = data[:10] + bytes(2) + data[12:20]
    return data[:10] + checksum(bare).to_bytes(2, "big") + data[12:]


def test_a_packet_byte_by_byte() -> None:
    """A well-known header is read and built again, and what follows the packet is padding."""
    packet = ipv4.parse(PACKET + b"padding")
    assert packet == Packet(0xC0A80001, 0xC0A800C7, ipv4.UDP, bytes(range(95)), dont_fragment=True)
    assert isinstance(packet, Packet)
    assert ipv4.build(packet) == PACKET


@pytest.mark.parametrize(
    ("place", "new", "refusal"),
    [
        (0, "65", Refusal.VERSION),
        (0, "44", Refusal.LENGTH),
        (2, "0013", Refusal.LENGTH),
        (2, "0074", Refusal.TRUNCATED),
        (8, "41", Refusal.CHECKSUM),
    ],
)
def test_packets_that_cannot_be(place: int, new: str, refusal: Refusal) -> None:
    """Another version, lengths that do not fit and a wrong checksum are refused."""
    changed = bytes.fromhex(new)
    assert ipv4.parse(PACKET[:place] + changed + PACKET[place + len(changed) :]) is refusal


@pytest.mark.parametrize(("flags", "accepted"), [("1ff3", False), ("3ff3", False), ("0010", True), ("2001", False)])
def test_fragments_that_cannot_be(flags: str, accepted: bool) -> None:
    """A part beyond 65535 bytes, or in the middle and not a multiple of eight long, is refused."""
    data = resummed(PACKET[:6] + bytes.fromhex(flags) + PACKET[8:])
    assert (ipv4.parse(data) is not Refusal.FRAGMENT) == accepted


def test_options_come_and_go() -> None:
    """Options of up to 40 bytes are kept as they are."""
    packet = Packet(1, 2, ipv4.ICMP, b"data", options=ROUTER_ALERT * 10)
    assert ipv4.parse(ipv4.build(packet)) == packet
    assert packet.header_bytes == 60


def test_what_cannot_be_built() -> None:
    """A caller that asks for too much, or for options that fill no word, has a defect."""
    with pytest.raises(ValueError, match="65536 bytes"):
        ipv4.build(Packet(1, 2, 3, bytes(65516)))
    with pytest.raises(ValueError, match="23 bytes of header"):
        ipv4.build(Packet(1, 2, 3, b"", options=b"\x01\x01\x01"))


def test_fragments_are_multiples_of_eight_and_fit() -> None:
    """A packet of 3000 bytes over an MTU of 1500 goes in three parts that are one again."""
    packet = Packet(1, 2, ipv4.UDP, bytes(range(250)) * 12, identification=9)
    parts = ipv4.fragment(packet, 1500)
    assert isinstance(parts, list)
    assert [(part.offset, len(part.payload), part.more) for part in parts] == [
        (0, 1480, True), (1480, 1480, True), (2960, 40, False),
    ]  # fmt: skip
    assert b"".join(part.payload for part in parts) == packet.payload
    assert all(isinstance(ipv4.parse(ipv4.build(part)), Packet) for part in parts)


def test_a_fragment_is_fragmented_further() -> None:
    """The last part of a part that is not the last still has more behind it."""
    parts = ipv4.fragment(Packet(1, 2, 3, bytes(160), offset=800, more=True), 100)
    assert isinstance(parts, list)
    assert [(part.offset, part.more) for part in parts] == [(800, True), (880, True)]


def test_later_fragments_keep_the_copied_options() -> None:
    """Router alert is copied, record route is not (RFC 791, 3.1)."""
    options = RECORD_ROUTE + ROUTER_ALERT + b"\x00"
    parts = ipv4.fragment(Packet(1, 2, 3, bytes(200), options=options), 100)
    assert isinstance(parts, list)
    assert parts[0].options == options
    assert {part.options for part in parts[1:]} == {ROUTER_ALERT}


def test_what_may_not_be_fragmented_is_too_big() -> None:
    """DF and a smaller MTU exclude each other."""
    assert ipv4.fragment(Packet(1, 2, 3, bytes(1481), dont_fragment=True), 1500) is Refusal.TOO_BIG
    assert ipv4.fragment(Packet(1, 2, 3, bytes(1480), dont_fragment=True), 1500) != Refusal.TOO_BIG


@pytest.mark.parametrize("ttl", [2, 64, 255])
def test_forwarding_takes_a_hop(ttl: int) -> None:
    """A forwarded packet has one hop less and the checksum that a whole sum gives."""
    packet = Packet(1, 2, ipv4.UDP, b"data", ttl=ttl)
    assert ipv4.forwarded(ipv4.build(packet)) == ipv4.build(packet._replace(ttl=ttl - 1))


@pytest.mark.parametrize("ttl", [0, 1])
def test_the_last_hop_ends_a_packet(ttl: int) -> None:
    """What would leave with no hop left is refused."""
    assert ipv4.forwarded(ipv4.build(Packet(1, 2, 3, b"", ttl=ttl))) is Refusal.TTL
