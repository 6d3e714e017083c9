"""IPv4 packets: header, options, fragments. Pure.

    byte 0        1      2              4       6              8      9      10         12     16     20
         |ver|ihl | tos  | total length | ident | flags|offset | ttl  | prot | checksum | src  | dst  | options, payload

Source: RFC 791; RFC 6864 for the identification.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lamina_net.packets.checksum import checksum, is_right, updated
from lamina_net.packets.refusal import Refusal

ICMP = 1
TCP = 6
UDP = 17
HEADER_BYTES = 20
MAX_PACKET_BYTES = 65535
MIN_MTU = 68
"""Least MTU of a link. Source: RFC 791, 3.2."""
DEFAULT_TTL = 64

_LAYOUT = struct.Struct("!BBHHHBBHII")
_DF = 0x4000
_MF = 0x2000
_OFFSET = 0x1FFF
_COPIED = 0x80


class Packet(NamedTuple):
    """A packet. `offset` is the fragment's place in bytes, a multiple of 8; `options` has 0 to 40 bytes, padded to 4.

    `tos` is the byte of DSCP and ECN. The packet is a fragment when `more` is set or `offset` is not zero.
    """

    src: int
    dst: int
    protocol: int
    payload: bytes
    ttl: int = DEFAULT_TTL
    identification: int = 0
    dont_fragment: bool = False
    more: bool = False
    offset: int = 0
    tos: int = 0
    options: bytes = b""

    @property
    def is_fragment(self) -> bool:
        """Whether this is a part of a packet only."""
        return self.more or self.offset > 0

    @property
    def header_bytes(self) -> int:
        """Bytes of the header, 20 to 60."""
        return HEADER_BYTES + len(self.options)


def parse(data: bytes, *, quoted: bool = False) -> Packet | Refusal:
    """Return the packet in `data`, or why there is none. Never raises.

    What follows the total length is padding of the frame and left out. TRUNCATED, VERSION, LENGTH of header or packet,
    CHECKSUM, FRAGMENT. `quoted`: the packet stands in an ICMP error, so its payload may be cut and its checksum, which
    a router on the way may have touched, is not looked at.
    """
    if len(data) < HEADER_BYTES:
        return Refusal.TRUNCATED
    first, tos, total, identification, flags, ttl, protocol, _, src, dst = _LAYOUT.unpack_from(data)
    if first >> 4 != 4:
        return Refusal.VERSION
    header = (first & 15) << 2
    if header < HEADER_BYTES or total < header:
        return Refusal.LENGTH
    if len(data) < (header if quoted else total):
        return Refusal.TRUNCATED
    if not quoted and not is_right(data[:header]):
        return Refusal.CHECKSUM
    offset = (flags & _OFFSET) << 3
    more = bool(flags & _MF)
    if offset + total - header > MAX_PACKET_BYTES - header or (more and (total - header) & 7 and not quoted):
        return Refusal.FRAGMENT
    options = data[HEADER_BYTES:header]
    dont = bool(flags & _DF)
    return Packet(src, dst, protocol, data[header:total], ttl, identification, dont, more, offset, tos, options)


def build(packet: Packet) -> bytes:
    """Return the bytes of a packet with its checksum. Raises ValueError for more than 65535 bytes or odd options."""
    header, total = packet.header_bytes, packet.header_bytes + len(packet.payload)
    if total > MAX_PACKET_BYTES or header > 60 or header & 3:
        raise ValueError(f"an IPv4 packet of {total} bytes with {header} bytes of header cannot be")
    flags = (_DF if packet.dont_fragment else 0) | (_MF if packet.more else 0) | packet.offset >> 3
    first = 0x40 | header >> 2
    fields = (first, packet.tos, total, packet.identification, flags, packet.ttl, packet.protocol)
    bare = _LAYOUT.pack(*fields, 0, packet.src, packet.dst) + packet.options
    return b"%b%b%b%b" % (bare[:10], checksum(bare).to_bytes(2, "big"), bare[12:], packet.payload)


def fragment(packet: Packet, mtu: int) -> list[Packet] | Refusal:
    """Return a packet in parts that fit into `mtu` bytes, at least 68, each; alone when it fits as it is.

    TOO_BIG when it does not fit and says DF. A fragment is fragmented further. The first part keeps all options, later
    ones those whose copied flag is set. Source: RFC 791, 3.2.
    """
    if packet.header_bytes + len(packet.payload) <= mtu:
        return [packet]
    if packet.dont_fragment:
        return Refusal.TOO_BIG
    parts: list[Packet] = []
    place, options = 0, packet.options
    while place < len(packet.payload):
        room = mtu - HEADER_BYTES - len(options)
        end = len(packet.payload) if len(packet.payload) - place <= room else place + (room & ~7)
        more = packet.more or end < len(packet.payload)
        payload = packet.payload[place:end]
        parts.append(packet._replace(payload=payload, more=more, offset=packet.offset + place, options=options))
        place, options = end, _copied(packet.options)
    return parts


def _copied(options: bytes) -> bytes:
    """Return the options that every fragment carries, padded to four bytes. A broken option ends the walk."""
    kept, place = b"", 0
    while place < len(options):
        kind = options[place]
        if kind == 0:
            break
        size = 1 if kind == 1 else options[place + 1] if place + 1 < len(options) else 0
        if size == 0 or (kind != 1 and size < 2) or place + size > len(options):
            break
        if kind & _COPIED:
            kept += options[place : place + size]
        place += size
    return kept + bytes(-len(kept) & 3)


def forwarded(data: bytes) -> bytes | Refusal:
    """Return a packet, parsed before, with its time to live one less and its checksum updated; TTL when it ends.

    Source: RFC 1812, 5.3.1; RFC 1624.
    """
    ttl = data[8]
    if ttl <= 1:
        return Refusal.TTL
    word = data[8] << 8 | data[9]
    new = updated(data[10] << 8 | data[11], word, word - 0x100)
    return b"%b%c%c%b%b" % (data[:8], ttl - 1, data[9], new.to_bytes(2, "big"), data[12:])
