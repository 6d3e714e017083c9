"""Addresses and subnets as text and as numbers."""

from __future__ import annotations

import pytest

from lamina_net.packets.address import (
    Subnet,
    format_address,
    is_loopback,
    is_multicast,
    is_unicast,
    multicast_mac,
    parse_address,
    parse_subnet,
    subnet,
)


@pytest.mark.parametrize("text", ["0.0.0.0", "10.0.2.15", "127.0.0.1", "255.255.255.255"])
def test_text_and_number(text: str) -> None:
    """What is parsed is formatted as it was."""
    address = parse_address(text)
    assert address is not None
    assert format_address(address) == text


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.4.5", "256.0.0.1", "01.2.3.4", "1.2.3.4\n", "१.2.3.4"])
def test_other_text_is_no_address(text: str) -> None:
    """Leading zeros, spaces, other digits, numbers above 255 and other counts of parts are refused."""
    assert parse_address(text) is None


def test_a_subnet_has_mask_and_broadcast() -> None:
    """The mask, the broadcast address and membership follow from the length."""
    net = parse_subnet("192.0.2.128/25")
    assert net == Subnet(0xC0000280, 25)
    assert net is not None
    assert (net.mask, net.broadcast, str(net)) == (0xFFFFFF80, 0xC00002FF, "192.0.2.128/25")
    assert 0xC0000281 in net
    assert 0xC0000201 not in net


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/", "10.0.0/8", "0.0.0.0/-1"])
def test_other_text_is_no_subnet(text: str) -> None:
    """Bits beyond the length and lengths that cannot be are refused."""
    assert parse_subnet(text) is None


def test_the_shortest_and_longest_prefix() -> None:
    """A prefix of 0 bits has every address, one of 32 a single one."""
    assert subnet(0x0A000001, 0) == Subnet(0, 0)
    assert 0xFFFFFFFF in Subnet(0, 0)
    assert subnet(0x0A000001, 32).broadcast == 0x0A000001


def test_kinds_of_addresses() -> None:
    """Class D is multicast, 127 loopback, and neither class E nor network 0 is a host."""
    assert is_multicast(0xE0000001)
    assert is_loopback(0x7F123456)
    assert [is_unicast(a) for a in (0, 0x00FFFFFF, 0x01000000, 0xDFFFFFFF, 0xE0000000, 0xFFFFFFFF)] == [
        False, False, True, True, False, False,
    ]  # fmt: skip


def test_a_group_has_its_mac_address() -> None:
    """The lower 23 bits of a group are its MAC address (RFC 1112, 6.4)."""
    assert multicast_mac(0xE08B0C0D).hex(":") == "01:00:5e:0b:0c:0d"
