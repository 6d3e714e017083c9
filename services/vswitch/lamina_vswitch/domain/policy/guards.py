"""What guards look for in a frame: DHCP servers, IPv6 router advertisements, and the IPv4 address that a sender claims.

Devices are not trusted, so tags within tags are looked through, IPv6 extension headers are walked, and every length is
checked before a byte is read. What cannot be told from a cut header is told to the guard's disadvantage: a cut ARP
packet claims no address that anybody was given, and a chain of headers that does not end is taken for an advertisement.

Source: RFC 2131, 4.1 (ports 67, 68); RFC 8415, 7.2 (546, 547); RFC 7113 (evasions of router guards); RFC 826; RFC 791.
"""

from __future__ import annotations

from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
_TAGS = (0x8100, 0x88A8, 0x9100)
_MOST_TAGS = 8
_UDP, _FRAGMENT, _ICMPV6, _NOTHING = 17, 44, 58, 59
_EXTENSIONS = (0, 43, 60, 135)
_MOST_EXTENSIONS = 16
_ROUTER_ADVERTISEMENT = 134
UNSPECIFIED = bytes(4)


def packet_of(frame: bytes) -> tuple[int, bytes]:
    """Return EtherType and payload of a frame, behind all of its tags; (0, b"") when it ends within them."""
    at = HEADER_BYTES
    kind = _word(frame, at - 2)
    for _ in range(_MOST_TAGS):
        if kind not in _TAGS:
            return kind, frame[at:]
        at += TAG_BYTES
        kind = _word(frame, at - 2)
    return 0, b""


def from_dhcp_server(kind: int, packet: bytes) -> bool:
    """Tell whether only a DHCP server sends such a packet: UDP from port 67 to 68, or IPv6 from 547 to 546."""
    if kind == IPV4:
        udp = _ipv4_payload(packet) if len(packet) > 9 and packet[9] == _UDP else b""
        return len(udp) >= 4 and (_word(udp, 0), _word(udp, 2)) == (67, 68)
    if kind == IPV6:
        protocol, payload = _ipv6_payload(packet)
        return protocol == _UDP and len(payload) >= 4 and (_word(payload, 0), _word(payload, 2)) == (547, 546)
    return False


def is_router_advertisement(kind: int, packet: bytes) -> bool:
    """Tell whether a packet is an IPv6 router advertisement, or hides in its headers what it is."""
    if kind != IPV6:
        return False
    protocol, payload = _ipv6_payload(packet)
    return protocol is None or (protocol == _ICMPV6 and payload[:1] == bytes([_ROUTER_ADVERTISEMENT]))


def claimed_address(kind: int, packet: bytes) -> bytes | None:
    """Return the IPv4 address that a sender claims, empty when its header is cut; None when the frame claims none.

    A sender that has no address yet claims none: a DHCP client (0.0.0.0, port 68 to 67) and an ARP probe (RFC 5227).
    """
    if kind == ARP:
        address = packet[14:18] if len(packet) >= 28 and packet[4:6] == b"\x06\x04" else b""
        return None if address == UNSPECIFIED else address
    if kind != IPV4:
        return None
    address = packet[12:16] if len(packet) >= 20 else b""
    if address == UNSPECIFIED and packet[9] == _UDP:
        udp = _ipv4_payload(packet)
        if len(udp) >= 4 and (_word(udp, 0), _word(udp, 2)) == (68, 67):
            return None
    return address


def _ipv4_payload(packet: bytes) -> bytes:
    """Return what follows an IPv4 header; empty for a later fragment or a header that is cut."""
    if len(packet) < 20 or _word(packet, 6) & 0x1FFF:
        return b""
    return packet[max(packet[0] & 15, 5) * 4 :]


def _ipv6_payload(packet: bytes) -> tuple[int | None, bytes]:
    """Return the upper-layer protocol of an IPv6 packet and what follows its headers.

    (None, b"") when the first part of a packet ends within its headers; (59, b""), where 59 says that nothing follows,
    for a later fragment.
    """
    if len(packet) < 40:
        return None, b""
    protocol, at = packet[6], 40
    for _ in range(_MOST_EXTENSIONS):
        if protocol != _FRAGMENT and protocol not in _EXTENSIONS:
            return (protocol, packet[at:]) if at < len(packet) or protocol == _NOTHING else (None, b"")
        if len(packet) < at + 8:
            return None, b""
        if protocol == _FRAGMENT:
            if _word(packet, at + 2) & 0xFFF8:
                return _NOTHING, b""
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return None, b""


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
