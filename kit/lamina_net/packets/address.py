"""IPv4 addresses and subnets. Pure.

An address is an integer, 0 to 2³² − 1, most significant byte first on the wire: integers are what masks, prefixes and
dictionaries want. A MAC address is six bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Mac = bytes
"""Six bytes."""

ANY = 0
"""0.0.0.0: this host, no address yet, every address."""
BROADCAST = 0xFFFFFFFF
LOOPBACK = 0x7F000001
BROADCAST_MAC = b"\xff" * 6
ZERO_MAC = bytes(6)

_ADDRESS = re.compile(r"(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})", re.ASCII)
_LENGTH = re.compile(r"\d|[12]\d|3[0-2]", re.ASCII)


def parse_address(text: str) -> int | None:
    """Return the address that `192.0.2.1` names, or None. Four decimal parts without leading zeros, nothing else."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    parts = [int(part) for part in match.groups()]
    return None if max(parts) > 255 else int.from_bytes(bytes(parts), "big")


def format_address(address: int) -> str:
    """Return `192.0.2.1` for an address."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def is_multicast(address: int) -> bool:
    """Tell whether an address is in 224.0.0.0/4."""
    return address >> 28 == 0xE


def is_loopback(address: int) -> bool:
    """Tell whether an address is in 127.0.0.0/8."""
    return address >> 24 == 127


def is_unicast(address: int) -> bool:
    """Tell whether an address can be one host's: not in 0.0.0.0/8, not multicast, not of class E, not broadcast."""
    return 0x01000000 <= address < 0xE0000000


def multicast_mac(address: int) -> Mac:
    """Return the MAC address that a multicast group is sent to. Source: RFC 1112, 6.4."""
    return b"\x01\x00\x5e" + (address & 0x7FFFFF).to_bytes(3, "big")


class Subnet(NamedTuple):
    """A prefix of addresses: `network` has no bit beyond `length`, 0 to 32 bits. Made by `subnet` or `parse_subnet`."""

    network: int
    length: int

    @property
    def mask(self) -> int:
        """The mask, such as 0xffffff00."""
        return BROADCAST << (32 - self.length) & BROADCAST

    @property
    def broadcast(self) -> int:
        """The directed broadcast address: every bit of the host part is one. Lengths 31 and 32 have none of meaning."""
        return self.network | (BROADCAST >> self.length)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and address & self.mask == self.network

    def __str__(self) -> str:
        return f"{format_address(self.network)}/{self.length}"


def subnet(address: int, length: int) -> Subnet:
    """Return the subnet of `length` bits, 0 to 32, that an address lies in."""
    return Subnet(address & (BROADCAST << (32 - length)), length)


def parse_subnet(text: str) -> Subnet | None:
    """Return the subnet that `192.0.2.0/24` names, or None for other text and for bits set beyond the length."""
    left, _, right = text.partition("/")
    address = parse_address(left)
    if address is None or not _LENGTH.fullmatch(right):
        return None
    found = subnet(address, int(right))
    return found if found.network == address else None
