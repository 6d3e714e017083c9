"""UDP datagrams. Pure.

    byte 0             2                  4        6          8
         | source port | destination port | length | checksum | payload …

Source: RFC 768; RFC 1122, 4.1.3.4.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lamina_net.packets import ipv4
from lamina_net.packets.checksum import checksum, is_right, pseudo_sum
from lamina_net.packets.refusal import Refusal

HEADER_BYTES = 8
MAX_PAYLOAD_BYTES = ipv4.MAX_PACKET_BYTES - ipv4.HEADER_BYTES - HEADER_BYTES

_LAYOUT = struct.Struct("!HHHH")


class Datagram(NamedTuple):
    """A datagram: ports 0 to 65535 (source port 0: no answer is wanted), payload."""

    source_port: int
    destination_port: int
    payload: bytes


def parse(src: int, dst: int, data: bytes) -> Datagram | Refusal:
    """Return the datagram in the payload of a packet from `src` to `dst`, or why there is none. Never raises.

    TRUNCATED, LENGTH below 8, CHECKSUM. A checksum of 0 means that the sender made none.
    """
    if len(data) < HEADER_BYTES:
        return Refusal.TRUNCATED
    source_port, destination_port, size, stored = _LAYOUT.unpack_from(data)
    if size < HEADER_BYTES:
        return Refusal.LENGTH
    if len(data) < size:
        return Refusal.TRUNCATED
    data = data[:size]
    if stored and not is_right(data, pseudo_sum(src, dst, ipv4.UDP, size)):
        return Refusal.CHECKSUM
    return Datagram(source_port, destination_port, data[HEADER_BYTES:])


def build(src: int, dst: int, datagram: Datagram) -> bytes:
    """Return the bytes of a datagram with its checksum. Raises ValueError above 65507 bytes of payload."""
    size = HEADER_BYTES + len(datagram.payload)
    if len(datagram.payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a UDP datagram cannot carry {len(datagram.payload)} bytes")
    bare = _LAYOUT.pack(datagram.source_port, datagram.destination_port, size, 0) + datagram.payload
    value = checksum(bare, pseudo_sum(src, dst, ipv4.UDP, size)) or 0xFFFF
    return b"%b%b%b" % (bare[:6], value.to_bytes(2, "big"), datagram.payload)
