"""ICMP messages and UDP datagrams."""

from __future__ import annotations

import pytest

from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.icmp import Message
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.packets.udp import Datagram

A, B = 0xC0000201, 0xC0000202
QUESTION = Packet(A, B, ipv4.UDP, udp.build(A, B, Datagram(5000, 53, b"who is there")))


def test_an_echo_byte_by_byte() -> None:
    """A request and its answer differ in the type and the checksum."""
    request = icmp.echo_request(0x1234, 7, b"abcd")
    assert icmp.build(request).hex() == "0800" + "20fe" + "12340007" + "61626364"
    assert icmp.build(icmp.echo_reply(request)).hex() == "0000" + "28fe" + "12340007" + "61626364"
    assert (request.identifier, request.sequence) == (0x1234, 7)


def test_what_is_no_message() -> None:
    """Seven bytes and a wrong checksum are refused."""
    data = icmp.build(icmp.echo_request(1, 1))
    assert icmp.parse(data[:7]) is Refusal.TRUNCATED
    assert icmp.parse(data[:4] + b"\x00\x02" + data[6:]) is Refusal.CHECKSUM


def test_an_error_quotes_the_packet() -> None:
    """Who gets an error can tell from the quotation which datagram it is about."""
    error = icmp.error(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, ipv4.build(QUESTION))
    read = icmp.parse(icmp.build(error))
    assert isinstance(read, Message)
    assert read.is_error
    assert icmp.quoted(read) == QUESTION


def test_an_error_is_no_longer_than_576_bytes() -> None:
    """Of a long packet the beginning is quoted, and is still readable."""
    error = icmp.error(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, ipv4.build(Packet(A, B, 6, bytes(1480))), 1400)
    assert ipv4.HEADER_BYTES + len(icmp.build(error)) == 576
    quoted = icmp.quoted(error)
    assert isinstance(quoted, Packet)
    assert (quoted.src, len(quoted.payload), error.next_hop_mtu) == (A, 528, 1400)


def test_a_quotation_without_ports_is_refused() -> None:
    """Fewer than eight bytes of payload tell nothing, unless the packet had no more."""
    assert icmp.quoted(Message(3, 3, 0, ipv4.build(QUESTION)[:27])) is Refusal.TRUNCATED
    assert isinstance(icmp.quoted(Message(3, 3, 0, ipv4.build(Packet(A, B, 99, b"abc")))), Packet)


@pytest.mark.parametrize(
    ("packet", "answered"),
    [
        (QUESTION, True),
        (QUESTION._replace(offset=8), False),
        (QUESTION._replace(more=True), True),
        (QUESTION._replace(src=0), False),
        (QUESTION._replace(src=0xE0000001), False),
        (QUESTION._replace(dst=0xFFFFFFFF), False),
        (QUESTION._replace(dst=0xE0000001), False),
        (Packet(A, B, ipv4.ICMP, icmp.build(icmp.echo_request(1, 1))), True),
        (Packet(A, B, ipv4.ICMP, icmp.build(icmp.error(3, 3, b""))), False),
        (Packet(A, B, ipv4.ICMP, b""), False),
    ],
)
def test_errors_about_what_may_be_answered(packet: Packet, answered: bool) -> None:
    """No error is sent about errors, later fragments and what concerns more or less than one host."""
    assert icmp.may_be_answered(packet) == answered
    assert not icmp.may_be_answered(packet, to_group=True)


def test_a_datagram_byte_by_byte() -> None:
    """Ports, length and a checksum over the pseudo header."""
    data = udp.build(A, B, Datagram(5000, 53, b"hi"))
    assert data.hex() == "1388" + "0035" + "000a" + "ffaf" + "6869"
    assert udp.parse(A, B, data) == Datagram(5000, 53, b"hi")


def test_a_datagram_for_others_is_refused() -> None:
    """The addresses are a part of the sum, so a datagram that strayed does not verify."""
    data = udp.build(A, B, Datagram(1, 2, b"x"))
    assert udp.parse(A, B + 1, data) is Refusal.CHECKSUM


def test_the_checksum_zero_means_none() -> None:
    """A sender may leave the sum out; one that comes out as 0 travels as ffff."""
    data = udp.build(A, B, Datagram(1, 2, b"x"))
    assert udp.parse(A, B + 1, data[:6] + bytes(2) + data[8:]) == Datagram(1, 2, b"x")
    bare = udp.build(A, B, Datagram(1, 2, bytes(2)))
    residue = int.from_bytes(bare[6:8], "big")
    data = udp.build(A, B, Datagram(1, 2, residue.to_bytes(2, "big")))
    assert data[6:8] == b"\xff\xff"
    assert isinstance(udp.parse(A, B, data), Datagram)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (bytes(7), Refusal.TRUNCATED),
        (bytes.fromhex("0001000200070000"), Refusal.LENGTH),
        (bytes.fromhex("0001000200090000"), Refusal.TRUNCATED),
    ],
)
def test_what_is_no_datagram(data: bytes, refusal: Refusal) -> None:
    """Cut headers and lengths that do not fit are refused."""
    assert udp.parse(A, B, data) is refusal


def test_padding_is_no_payload() -> None:
    """What lies behind the length is left out."""
    assert udp.parse(A, B, bytes.fromhex("0001000200090000") + b"abc") == Datagram(1, 2, b"a")


def test_more_than_fits_is_a_defect() -> None:
    """65507 bytes fit into a packet, one more does not."""
    assert len(udp.build(A, B, Datagram(1, 2, bytes(65507)))) == 65515
    with pytest.raises(ValueError, match="65508 bytes"):
        udp.build(A, B, Datagram(1, 2, bytes(65508)))
