"""Parsing of Ethernet heads: bounds, tags, addresses."""

from __future__ import annotations

import pytest

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import (
    Header,
    format_mac,
    is_group,
    is_link_local,
    is_station,
    parse,
    parse_mac,
    untagged,
)

A = bytes.fromhex("020000000001")
B = bytes.fromhex("020000000002")


def test_an_untagged_header_is_read() -> None:
    """Addresses and EtherType lie where IEEE 802.3 puts them."""
    assert parse(B + A + b"\x08\x00" + bytes(46), 1500) == Header(B, A, 0x0800, None)


def test_a_tagged_header_is_read() -> None:
    """The VLAN id is the low twelve bits of the tag; priority and DEI are not part of it; the EtherType follows."""
    assert parse(B + A + b"\x81\x00\xf0\x64\x86\xdd", 1500) == Header(B, A, 0x86DD, 100)


def test_a_provider_tag_is_payload() -> None:
    """An 802.1ad tag is not looked into."""
    assert parse(B + A + b"\x88\xa8\x00\x64\x08\x00", 1500) == Header(B, A, 0x88A8, None)


@pytest.mark.parametrize(
    ("size", "head", "expected"),
    [
        (0, b"", DropReason.RUNT),
        (13, b"", DropReason.RUNT),
        (14, b"", None),
        (1514, b"", None),
        (1515, b"", DropReason.OVERSIZE),
        (17, b"\x81\x00", DropReason.VLAN_TRUNCATED),
        (18, b"\x81\x00", None),
        (1518, b"\x81\x00", None),
        (1519, b"\x81\x00", DropReason.OVERSIZE),
    ],
)
def test_lengths_are_bounded(size: int, head: bytes, expected: DropReason | None) -> None:
    """14 bytes to MTU + 14 are a frame, 18 to MTU + 18 with a tag, and everything else has its reason."""
    frame = (B + A + head + bytes(2000))[:size]
    parsed = parse(frame, 1500)
    assert parsed is expected if expected is not None else isinstance(parsed, Header)


def test_taking_a_tag_off_leaves_the_rest() -> None:
    """What is behind the tag moves to where the tag was."""
    assert untagged(B + A + b"\x81\x00\x00\x64\x08\x00payload") == B + A + b"\x08\x00payload"


def test_addresses_are_classified() -> None:
    """Group, station and link-local addresses are told apart by their bits."""
    broadcast = b"\xff" * 6
    assert is_group(broadcast) and not is_station(broadcast)
    assert is_station(A) and not is_group(A)
    assert not is_station(bytes(6))
    assert [is_link_local(bytes.fromhex(f"0180c20000{last:02x}")) for last in (0, 1, 14, 15, 16)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_addresses_are_written_and_read() -> None:
    """Text and bytes of an address belong together; upper case is read."""
    assert format_mac(A) == "02:00:00:00:00:01"
    assert parse_mac("02:00:00:00:00:01") == A
    assert parse_mac("02:AB:00:00:00:01") == bytes.fromhex("02ab00000001")


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02-00-00-00-00-01", "020000000001", "02:00:00:00:00:0g", "x" * 99]
)
def test_malformed_addresses_are_refused(text: str) -> None:
    """Only six pairs of hexadecimal digits with colons are an address."""
    assert parse_mac(text) is None
