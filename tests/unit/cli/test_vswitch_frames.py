"""Frames from what people type."""

from __future__ import annotations

import argparse

import pytest

from lamina_cli.commands.vswitch import frames
from lamina_cli.commands.vswitch.frames import frame_bytes, frame_of
from lamina_kit.errors import InvalidArgument
from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC
from lamina_net.tcp import segment

OWN = bytes.fromhex("020000000001")
FROM = ("--from", "02:00:00:00:00:01")
A, B = 0x0A00020F, 0x0A000201
"""10.0.2.15 and 10.0.2.1."""


def made(*words: str) -> ethernet.Frame:
    """Returns the frame of a command line, which has to be one and padded."""
    data = typed(*words)
    frame = ethernet.parse(data)
    assert len(data) >= 60 and isinstance(frame, ethernet.Frame)
    return frame


def typed(*words: str) -> bytes:
    """Returns the bytes of a command line."""
    parser = argparse.ArgumentParser()
    frames.configure(parser)
    return frame_of(parser.parse_args(words))


@pytest.mark.parametrize(
    "text", ["ffffffffffff0200", "ff:ff:ff:ff:ff:ff:02:00", "0xffffffffffff 0200", "FFFF-FFFF FFFF\n0200"]
)
def test_hexadecimal_is_read_as_tools_write_it(text: str) -> None:
    """Blanks, colons, hyphens, line ends and a leading 0x do not matter."""
    assert frame_bytes(text) == typed(text) == BROADCAST_MAC + b"\x02\0"


def test_a_frame_without_contents_has_a_type_and_zeros() -> None:
    """Without more than a source it is a broadcast of the type for experiments; a tag and addresses are as told."""
    assert made(*FROM) == ethernet.Frame(BROADCAST_MAC, OWN, 0x88B5, bytes(46))
    assert made(*FROM, "--to", "02-00-00-00-00-02", "--vlan", "7", "--type", "0x86dd") == ethernet.Frame(
        bytes.fromhex("020000000002"), OWN, 0x86DD, bytes(42), 7
    )


def test_what_a_frame_carries_is_whole() -> None:
    """ARP, echo, UDP and TCP parse, sums included, and say what was asked for."""
    assert arp.parse(made(*FROM, "--arp", "10.0.2.15", "10.0.2.1").payload) == arp.ArpPacket(1, OWN, A, bytes(6), B)
    echo = carried("--ping", "10.0.2.15", "10.0.2.1")
    message = icmp.parse(echo.payload)
    assert isinstance(message, icmp.Message) and message.type == icmp.ECHO_REQUEST
    datagram = udp.parse(A, B, carried("--udp", "10.0.2.15:40000", "10.0.2.1:53").payload)
    assert datagram == udp.Datagram(40000, 53, bytes(8))
    opening = segment.parse(A, B, carried("--tcp", "10.0.2.15:40000", "10.0.2.1:80").payload)
    assert str(opening) == "40000>80 S 0:1 win 65535"


def carried(*words: str) -> ipv4.Packet:
    """Returns the packet in a frame; its addresses have to be those that were asked for."""
    packet = ipv4.parse(made(*FROM, *words).payload)
    assert isinstance(packet, ipv4.Packet) and (packet.src, packet.dst) == (A, B)
    return packet


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "there is no frame"),
        (("xyz",), "not hexadecimal"),
        (("f",), "not hexadecimal"),
        (("--to", "02:00:00:00:00:02"), "--to describes a frame without a source"),
        (("ffff", *FROM), "given twice"),
    ],
)
def test_what_is_no_frame_is_refused(words: tuple[str, ...], told: str) -> None:
    """What is missing, malformed or said twice is named, with what to give."""
    with pytest.raises(InvalidArgument, match=told) as caught:
        typed(*words)
    assert caught.value.reason == "FRAME_MALFORMED" and caught.value.next_step


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "02:00:00:00:00"),
        ("--from", "02:00:00:00:00:zz"),
        (*FROM, "--vlan", "4096"),
        (*FROM, "--type", "0x10000"),
        (*FROM, "--arp", "10.0.2", "10.0.2.1"),
        (*FROM, "--udp", "10.0.2.15", "10.0.2.1:53"),
        (*FROM, "--tcp", "10.0.2.15:99999", "10.0.2.1:80"),
        (*FROM, "--ping", "10.0.2.15", "10.0.2.1", "--type", "1"),
    ],
)
def test_bad_words_are_misuse(words: tuple[str, ...]) -> None:
    """An address, a port, a VLAN or a type that is none ends with status 2."""
    with pytest.raises(SystemExit) as caught:
        typed(*words)
    assert caught.value.code == 2
