"""Addresses in a filter: of Ethernet, IPv4 and IPv6, with the places where frames carry them.

Each function returns a predicate, or the words that say what is wrong with the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from lamina_vswitch.domain.capture import predicates as tests
from lamina_vswitch.domain.capture.predicates import Predicate
from lamina_vswitch.domain.frames.header import parse_mac

MAC_AT = {"src": 6, "dst": 0}
IPV4_AT = {"src": 12, "dst": 16}
ARP_AT = {"src": 14, "dst": 24}
IPV6_AT = {"src": 8, "dst": 24}
_OCTETS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}")
_PREFIX = re.compile(r"[0-9]{1,3}")

Network = tuple[int, int, int]
"""Value, mask, bytes of an address: 4 or 16."""


def mac_test(text: str, sides: Sequence[str]) -> Predicate | str:
    """Pass frames with an Ethernet address on one of the sides."""
    mac = parse_mac(text)
    if mac is None:
        return "is not an address such as 02:00:00:00:00:01"
    return tests.any_bytes(mac, [MAC_AT[side] for side in sides])


def host_test(text: str, protocol: str, sides: Sequence[str], shift: int) -> Predicate | str:
    """Pass packets with an IP address on one of the sides; `protocol` is `ip`, `ip6`, `arp` or empty for any."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "is not an IP address"
    size = address.max_prefixlen // 8
    return _network((int(address), (1 << 8 * size) - 1, size), protocol, sides, shift)


def network_test(text: str, protocol: str, sides: Sequence[str], shift: int) -> Predicate | str:
    """Pass packets with an address of a network on one side: `10.0.0.0/8`, `10`, `192.168.1`, `2001:db8::/32`."""
    network = _parsed(text)
    return network if isinstance(network, str) else _network(network, protocol, sides, shift)


def _network(network: Network, protocol: str, sides: Sequence[str], shift: int) -> Predicate | str:
    value, mask, size = network
    base = tests.HEADER_BYTES + shift
    if size == 16:
        if protocol not in ("", "ip6"):
            return f"is an IPv6 address, which {protocol} does not have"
        places = [base + IPV6_AT[side] for side in sides]
        return tests.both(tests.ethertype(tests.IPV6, shift), tests.any_prefix(value, mask, size, places))
    if protocol == "ip6":
        return "is an IPv4 address, which ip6 does not have"
    kinds = []
    for word, kind, at in (("ip", tests.IPV4, IPV4_AT), ("arp", tests.ARP, ARP_AT)):
        if protocol in ("", word):
            places = [base + at[side] for side in sides]
            kinds.append(tests.both(tests.ethertype(kind, shift), tests.any_prefix(value, mask, size, places)))
    return tests.either(kinds)


def _parsed(text: str) -> Network | str:
    address_text, slash, prefix_text = text.partition("/")
    if ":" in address_text:
        try:
            value, size = int(ipaddress.IPv6Address(address_text)), 16
        except ValueError:
            return "is not an IPv6 network"
        known = 128
    else:
        if not _OCTETS.fullmatch(address_text):
            return "is not a network such as 10.0.0.0/8"
        octets = [int(octet) for octet in address_text.split(".")]
        if max(octets) > 255:
            return "has an octet above 255"
        value, size = int.from_bytes(bytes(octets).ljust(4, b"\0"), "big"), 4
        known = 8 * len(octets)
    prefix = known
    if slash:
        if not _PREFIX.fullmatch(prefix_text) or int(prefix_text) > 8 * size:
            return f"has no prefix from 0 to {8 * size}"
        prefix = int(prefix_text)
    mask = (1 << 8 * size) - (1 << 8 * size - prefix)
    return "has bits behind its prefix" if value & ~mask else (value, mask, size)
