"""Addresses of backends, and their definitions as text."""

from __future__ import annotations

import pytest

from lamina_vswitch.domain.backend.address import SocketAddress, parse_address
from lamina_vswitch.domain.backend.definition import (
    CaptureFile,
    Datagram,
    Kind,
    Packet,
    Stream,
    Tap,
    from_text,
    kind_word,
    to_text,
)

DATAGRAMS = ("unix", "udp")


@pytest.mark.parametrize(
    ("text", "address", "is_local"),
    [
        ("unix:/run/a.sock", SocketAddress("unix", "/run/a.sock"), True),
        ("udp:127.0.0.1:0", SocketAddress("udp", "127.0.0.1", 0), True),
        ("udp:127.9.9.9:65535", SocketAddress("udp", "127.9.9.9", 65535), True),
        ("udp:[::1]:7", SocketAddress("udp", "::1", 7), True),
        ("udp:192.0.2.1:7", SocketAddress("udp", "192.0.2.1", 7), False),
        ("udp:0.0.0.0:7", SocketAddress("udp", "0.0.0.0", 7), False),
        ("udp:[2001:db8::1]:7", SocketAddress("udp", "2001:db8::1", 7), False),
    ],
)
def test_addresses_are_read_and_written(text: str, address: SocketAddress, is_local: bool) -> None:
    """Each is what its text says, whether others can reach it is known, and it is written as it was."""
    found = parse_address(text, DATAGRAMS)
    assert found == address and isinstance(found, SocketAddress)
    assert (found.is_local, str(found)) == (is_local, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "unix", "unix:", "unix:relative", "unix:/a\0b", "unix:/" + "a" * 107, "tcp:127.0.0.1:1", "udp:127.0.0.1",
        "udp:127.0.0.1:", "udp:127.0.0.1:65536", "udp:127.0.0.1:-1", "udp:127.0.0.1:٣", "udp:localhost:1", "udp:::1:1",
        "udp:[127.0.0.1]:1", "udp:[fe80::1%eth0]:1", "udp:[::1:1", "udp:127.0.0.1:0000001",
    ],
)  # fmt: skip
def test_what_is_no_address_is_said(text: str) -> None:
    """Wrong texts are refused with words, and never looked up."""
    assert isinstance(parse_address(text, DATAGRAMS), str)


@pytest.mark.parametrize(
    "kind",
    [Tap("tap0", 4, up=True), Packet("eth0"), Datagram("unix:/a", "unix:/b"), Stream("tcp:[::1]:5"), CaptureFile("/a")],
)
def test_definitions_survive_as_text(kind: Kind) -> None:
    """A kind is the same after it was written and read."""
    assert from_text(to_text(kind)) == kind and kind_word(kind) in to_text(kind)
