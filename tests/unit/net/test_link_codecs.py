"""Ethernet frames and ARP packets, byte by byte."""

from __future__ import annotations

import pytest

from lamina_net.packets import arp, ethernet
from lamina_net.packets.arp import ArpPacket
from lamina_net.packets.ethernet import Frame
from lamina_net.packets.refusal import Refusal

ALICE, BOB = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
REQUEST = bytes.fromhex("0001 0800 06 04 0001 02000000000a c0000201 000000000000 c0000202")


def test_a_frame_is_its_parts() -> None:
    """An untagged frame has addresses, type and payload."""
    data = BOB + ALICE + b"\x08\x00hello"
    assert ethernet.parse(data) == Frame(BOB, ALICE, ethernet.IPV4, b"hello")
    assert ethernet.build(BOB, ALICE, ethernet.IPV4, b"hello") == data


def test_a_tag_lies_before_the_type() -> None:
    """A tagged frame tells its tag, and the type behind it."""
    data = BOB + ALICE + b"\x81\x00\xa0\x64\x08\x06rest"
    assert ethernet.parse(data) == Frame(BOB, ALICE, ethernet.ARP, b"rest", 0xA064)
    assert ethernet.build(BOB, ALICE, ethernet.ARP, b"rest", 0xA064) == data


@pytest.mark.parametrize("data", [b"", bytes(13), bytes(12) + b"\x81\x00\x00\x01\x08"])
def test_short_frames_are_refused(data: bytes) -> None:
    """A frame or a tag that is cut has no header."""
    assert ethernet.parse(data) is Refusal.TRUNCATED


def test_a_request_byte_by_byte() -> None:
    """A request is the 28 bytes of RFC 826; padding of the frame does not matter."""
    packet = ArpPacket(arp.REQUEST, ALICE, 0xC0000201, bytes(6), 0xC0000202)
    assert arp.request(ALICE, 0xC0000201, 0xC0000202) == arp.build(packet) == REQUEST
    assert arp.parse(REQUEST + bytes(18)) == packet


def test_a_reply_turns_the_request_round() -> None:
    """The answer goes to who asked, and tells the MAC address of what was asked for."""
    packet = arp.parse(REQUEST)
    assert isinstance(packet, ArpPacket)
    answer = arp.parse(arp.reply_to(packet, BOB))
    assert answer == ArpPacket(arp.REPLY, BOB, 0xC0000202, ALICE, 0xC0000201)


def test_announcements_and_probes() -> None:
    """Who announces itself asks for its own address; who probes claims none."""
    announced, probe = arp.parse(arp.announcement(ALICE, 7)), arp.parse(arp.request(ALICE, 0, 7))
    assert isinstance(announced, ArpPacket)
    assert isinstance(probe, ArpPacket)
    assert (announced.is_gratuitous, announced.is_probe) == (True, False)
    assert (probe.is_gratuitous, probe.is_probe) == (False, True)


@pytest.mark.parametrize(
    ("place", "new", "refusal"),
    [
        (0, "0006", Refusal.VERSION),
        (2, "86dd", Refusal.VERSION),
        (4, "08", Refusal.VERSION),
        (5, "10", Refusal.VERSION),
        (6, "0003", Refusal.OPERATION),
        (8, "010000000000", Refusal.ADDRESS),
        (8, "000000000000", Refusal.ADDRESS),
        (14, "ffffffff", Refusal.ADDRESS),
        (14, "e0000001", Refusal.ADDRESS),
    ],
)
def test_packets_that_cannot_be(place: int, new: str, refusal: Refusal) -> None:
    """Other hardware, other operations and senders that nobody can answer are refused."""
    changed = bytes.fromhex(new)
    assert arp.parse(REQUEST[:place] + changed + REQUEST[place + len(changed) :]) is refusal


def test_a_cut_packet_is_refused() -> None:
    """27 bytes are no packet."""
    assert arp.parse(REQUEST[:27]) is Refusal.TRUNCATED
