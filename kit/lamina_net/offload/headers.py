"""Where the headers of a frame lie, and internet checksums. Parses what offloads need, and no more. Pure.

Source: RFC 791, 768, 9293, 8200, 1071; IEEE 802.1Q.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_net.packets.checksum import word_sum

ETHERNET_BYTES = 14
TAG_BYTES = 4
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_PROVIDER_VLAN = 0x88A8
MOST_TAGS = 3
"""Tags before a packet that are looked behind: a provider's, its customer's, and one that a switch put before both."""
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
TCP = 6
UDP = 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

_IPV4_BYTES = 20
_IPV6_BYTES = 40
_TCP_BYTES = 20
_UDP_BYTES = 8


@dataclass(frozen=True, slots=True)
class Headers:
    """Offsets into one frame, in bytes from its begin.

    `l3` is behind Ethernet and its VLAN tags; `version` is 4 or 6, or 0 when the frame carries no IP that can be
    trusted; `l4` and `protocol` are 0 unless a whole TCP or UDP header is there and the packet is no fragment; `end` is
    where the IP packet ends (frames may be padded), `payload` where the bytes behind the transport header begin.
    """

    l3: int
    version: int = 0
    l4: int = 0
    protocol: int = 0
    payload: int = 0
    end: int = 0


def parse(frame: bytes | bytearray | memoryview, *, stacked: bool = False) -> Headers:
    """Returns the offsets of a frame of at least 14 bytes; lengths that lie are taken as "no such header".

    At most one 802.1Q tag is looked behind, as a NIC does; with `stacked`, up to three tags, 802.1ad ones too.
    """
    ethertype, l3 = int.from_bytes(frame[12:14], "big"), ETHERNET_BYTES
    most = MOST_TAGS if stacked else 1
    while most and len(frame) >= l3 + TAG_BYTES:
        if ethertype != ETHERTYPE_VLAN and not (stacked and ethertype == ETHERTYPE_PROVIDER_VLAN):
            break
        ethertype, l3, most = int.from_bytes(frame[l3 + 2 : l3 + 4], "big"), l3 + TAG_BYTES, most - 1
    if ethertype == ETHERTYPE_IPV4:
        return _ipv4(frame, l3)
    if ethertype == ETHERTYPE_IPV6:
        return _ipv6(frame, l3)
    return Headers(l3)


def _ipv4(frame: bytes | bytearray | memoryview, l3: int) -> Headers:
    if len(frame) < l3 + _IPV4_BYTES or frame[l3] >> 4 != 4:
        return Headers(l3)
    header, total = (frame[l3] & 15) * 4, int.from_bytes(frame[l3 + 2 : l3 + 4], "big")
    if header < _IPV4_BYTES or total < header or l3 + total > len(frame):
        return Headers(l3)
    is_fragment = bool(int.from_bytes(frame[l3 + 6 : l3 + 8], "big") & 0x3FFF)
    if is_fragment:
        return Headers(l3, 4, end=l3 + total)
    return _transport(frame, l3, 4, l3 + header, frame[l3 + 9], l3 + total)


def _ipv6(frame: bytes | bytearray | memoryview, l3: int) -> Headers:
    if len(frame) < l3 + _IPV6_BYTES or frame[l3] >> 4 != 6:
        return Headers(l3)
    end = l3 + _IPV6_BYTES + int.from_bytes(frame[l3 + 4 : l3 + 6], "big")
    if end > len(frame):
        return Headers(l3)
    return _transport(frame, l3, 6, l3 + _IPV6_BYTES, frame[l3 + 6], end)


def _transport(
    frame: bytes | bytearray | memoryview, l3: int, version: int, l4: int, protocol: int, end: int
) -> Headers:
    if protocol == TCP and end - l4 >= _TCP_BYTES:
        payload = l4 + (frame[l4 + 12] >> 4) * 4
        if payload >= l4 + _TCP_BYTES and payload <= end:
            return Headers(l3, version, l4, TCP, payload, end)
    if protocol == UDP and end - l4 >= _UDP_BYTES:
        length = int.from_bytes(frame[l4 + 4 : l4 + 6], "big")
        if _UDP_BYTES <= length <= end - l4:
            return Headers(l3, version, l4, UDP, l4 + _UDP_BYTES, l4 + length)
    return Headers(l3, version, end=end)


def ones_sum(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Returns the 16-bit ones' complement sum of bytes (an odd last byte is padded with 0) on top of `start`."""
    total = word_sum(data) + start
    return total % 0xFFFF or (0xFFFF if total else 0)


def pseudo_sum(frame: bytes | bytearray | memoryview, headers: Headers, length: int) -> int:
    """Returns the sum of the pseudo header for a transport segment of `length` bytes."""
    first, size = (12, 8) if headers.version == 4 else (8, 32)
    addresses = frame[headers.l3 + first : headers.l3 + first + size]
    return ones_sum(addresses, headers.protocol + length)


def checksum_offset(headers: Headers) -> int:
    """Returns where the transport checksum lies in the frame."""
    return headers.l4 + (16 if headers.protocol == TCP else 6)


def is_ipv4_sum_good(frame: bytes | bytearray | memoryview, headers: Headers) -> bool:
    """Returns whether the checksum of the IPv4 header is right."""
    return ones_sum(frame[headers.l3 : headers.l3 + (frame[headers.l3] & 15) * 4]) == 0xFFFF


def is_transport_sum_good(frame: bytes | bytearray | memoryview, headers: Headers) -> bool:
    """Returns whether the TCP or UDP checksum is right; a UDP checksum of 0 over IPv4 means that there is none."""
    at = checksum_offset(headers)
    if headers.protocol == UDP and headers.version == 4 and frame[at : at + 2] == b"\0\0":
        return True
    segment = frame[headers.l4 : headers.end]
    return ones_sum(segment, pseudo_sum(frame, headers, len(segment))) == 0xFFFF


def fill_ipv4_sum(frame: bytearray, l3: int, header_bytes: int) -> None:
    """Writes the checksum of an IPv4 header."""
    frame[l3 + 10 : l3 + 12] = b"\0\0"
    total = ones_sum(frame[l3 : l3 + header_bytes])
    frame[l3 + 10 : l3 + 12] = (0xFFFF ^ total).to_bytes(2, "big")


def fill_transport_sum(frame: bytearray, headers: Headers) -> None:
    """Writes the TCP or UDP checksum of a whole packet."""
    at = checksum_offset(headers)
    frame[at : at + 2] = b"\0\0"
    segment = frame[headers.l4 : headers.end]
    value = 0xFFFF ^ ones_sum(segment, pseudo_sum(frame, headers, len(segment)))
    frame[at : at + 2] = (value or (0xFFFF if headers.protocol == UDP else 0)).to_bytes(2, "big")
