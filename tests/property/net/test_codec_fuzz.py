"""Whatever comes from the wire: no parser raises, and what one reads is built again into what is read alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.arp import ArpPacket
from lamina_net.packets.checksum import checksum, updated, word_sum
from lamina_net.packets.ethernet import Frame
from lamina_net.packets.icmp import Message
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.packets.udp import Datagram
from lamina_net.tcp import segment as tcp
from lamina_net.tcp.segment import Options, Segment

A, B = 0x0A000001, 0x0A000002

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
small = st.binary(max_size=80)
macs = st.binary(min_size=6, max_size=6)
words = st.lists(st.binary(min_size=4, max_size=4), max_size=10).map(b"".join)

packets = st.builds(
    Packet, u32, u32, u8, small.map(lambda data: data[: len(data) & ~7]), u8, u16, st.booleans(), st.booleans(),
    st.integers(0, 8000).map(lambda n: n * 8), u8, words,
)  # fmt: skip
options = st.builds(
    Options, st.none() | u16, st.none() | u8, st.booleans(),
    st.lists(st.tuples(u32, u32), max_size=2).map(tuple), st.none() | st.tuples(u32, u32),
).filter(lambda found: len(found.sack) < 2 or found[:3] == (None, None, False))  # fmt: skip
segments = st.builds(Segment, u16, u16, u32, u32, u8, u16, small, options, u16)

PARSERS: dict[str, Callable[[bytes], object]] = {
    "ethernet": ethernet.parse,
    "arp": arp.parse,
    "ipv4": ipv4.parse,
    "quoted ipv4": lambda data: ipv4.parse(data, quoted=True),
    "icmp": icmp.parse,
    "quoted": lambda data: icmp.quoted(Message(3, 3, 0, data)),
    "udp": lambda data: udp.parse(A, B, data),
    "tcp": lambda data: tcp.parse(A, B, data),
    "unverified tcp": lambda data: tcp.parse(A, B, data, verify=False),
    "tcp options": tcp.parse_options,
}
RESULTS = (Refusal, Frame, ArpPacket, Packet, Message, Datagram, Segment, Options)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=100)
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    """Bytes of any kind, and valid ones with some changed or cut, give a result of the parser's type or a refusal."""
    valid = st.sampled_from(
        [
            ethernet.build(bytes(6), bytes(6), 0x0800, b"payload", 7),
            arp.request(b"\x02" + bytes(5), A, B),
            ipv4.build(Packet(A, B, 17, udp.build(A, B, Datagram(1, 2, b"payload")), options=b"\x94\x04\x00\x00")),
            icmp.build(icmp.error(3, 4, ipv4.build(Packet(A, B, 6, bytes(30))), 1400)),
            udp.build(A, B, Datagram(1, 2, b"payload")),
            tcp.build(A, B, Segment(1, 2, 3, 4, 5, 6, b"x", Options(1460, 7, True, ((1, 2),), (3, 4)))),
        ]
    )
    mutated = st.tuples(valid, st.lists(st.tuples(st.integers(0, 79), u8), max_size=4), st.integers(0, 80))
    bytes_in = data.draw(small | mutated.map(lambda parts: _changed(*parts)))
    assert isinstance(PARSERS[name](bytes_in), RESULTS)


def _changed(valid: bytes, changes: list[tuple[int, int]], size: int) -> bytes:
    changed = bytearray(valid)
    for place, value in changes:
        if place < len(changed):
            changed[place] = value
    return bytes(changed[:size])


@given(macs, macs, u16.filter(lambda kind: kind != 0x8100), small, st.none() | u16)
def test_frames_go_round(dst: bytes, src: bytes, kind: int, payload: bytes, tci: int | None) -> None:
    """A frame that was built is read as its parts."""
    assert ethernet.parse(ethernet.build(dst, src, kind, payload, tci)) == Frame(dst, src, kind, payload, tci)


@given(packets, small)
def test_packets_go_round(packet: Packet, padding: bytes) -> None:
    """A packet that was built is read as its parts, unless its place is beyond the largest packet."""
    read = ipv4.parse(ipv4.build(packet) + padding)
    beyond = packet.offset + len(packet.payload) + packet.header_bytes > 65535
    assert read == (Refusal.FRAGMENT if beyond else packet)


@given(packets, u32, st.integers(68, 200))
def test_fragments_are_the_packet(packet: Packet, size: int, mtu: int) -> None:
    """Parts fit the MTU, follow one another without a gap, and end as the packet ended."""
    packet = packet._replace(payload=bytes(range(256)) * 3, offset=packet.offset & 0xFFF8, dont_fragment=False)
    packet = packet._replace(payload=packet.payload[: size % 769 & ~7])
    parts = ipv4.fragment(packet, mtu)
    assert isinstance(parts, list)
    assert all(part.header_bytes + len(part.payload) <= mtu for part in parts)
    assert b"".join(part.payload for part in parts) == packet.payload
    place = packet.offset
    for part in parts:
        assert part.offset == place
        place += len(part.payload)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [packet.more]


@given(packets.filter(lambda packet: packet.ttl > 1))
def test_forwarding_is_an_update(packet: Packet) -> None:
    """The updated checksum of a hop is the one that a whole sum gives."""
    assert ipv4.forwarded(ipv4.build(packet)) == ipv4.build(packet._replace(ttl=packet.ttl - 1))


@given(st.builds(Message, u8, u8, u32, small))
def test_messages_go_round(message: Message) -> None:
    """An ICMP message that was built is read as its parts."""
    assert icmp.parse(icmp.build(message)) == message


@given(u32, u32, st.builds(Datagram, u16, u16, small))
def test_datagrams_go_round(src: int, dst: int, datagram: Datagram) -> None:
    """A datagram that was built is read as its parts, and never without a checksum."""
    data = udp.build(src, dst, datagram)
    assert udp.parse(src, dst, data) == datagram
    assert data[6:8] != bytes(2)


@given(u32, u32, segments)
def test_segments_go_round(src: int, dst: int, segment: Segment) -> None:
    """A segment that was built is read as its parts, options included."""
    assert tcp.parse(src, dst, tcp.build(src, dst, segment)) == segment


@given(st.binary(min_size=2, max_size=3000).map(lambda data: data[: len(data) & ~1]), st.data())
def test_an_updated_checksum_is_the_whole_one(data: bytes, draws: st.DataObject) -> None:
    """RFC 1624's update agrees with the sum of all bytes wherever a field changes; a wrong sum stays as wrong."""
    place = draws.draw(st.integers(0, len(data) // 2 - 1)) * 2
    new = draws.draw(st.binary(min_size=2, max_size=2))
    changed = data[:place] + new + data[place + 2 :]
    old_field, new_field = int.from_bytes(data[place : place + 2], "big"), int.from_bytes(new, "big")
    result = updated(checksum(data), old_field, new_field)
    assert (result + word_sum(changed)) % 65535 == 0
    wrong = (checksum(data) + 1) & 0xFFFF
    assert (updated(wrong, old_field, new_field) - wrong - result + checksum(data)) % 65535 == 0
