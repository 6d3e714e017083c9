"""ICMP messages: echo, errors and what errors quote. Pure.

    byte 0      1      2          4                       8
         | type | code | checksum | rest: 4 bytes by type | body …

Source: RFC 792; RFC 1122, 3.2.2; RFC 1191 for the next hop's MTU; RFC 1812, 4.3.2.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lamina_net.packets import ipv4
from lamina_net.packets.address import is_unicast
from lamina_net.packets.checksum import checksum, is_right
from lamina_net.packets.refusal import Refusal

ECHO_REPLY = 0
UNREACHABLE = 3
SOURCE_QUENCH = 4
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12
ERRORS = frozenset({UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM})
"""Types that tell of another packet, which they quote."""

NET_UNREACHABLE = 0
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
ADMINISTRATIVELY_PROHIBITED = 13
TTL_EXCEEDED = 0
REASSEMBLY_EXCEEDED = 1

HEADER_BYTES = 8
MAX_ERROR_BYTES = 576
"""Bytes that an error's packet has at most. Source: RFC 1812, 4.3.2.3."""

_LAYOUT = struct.Struct("!BBHI")


class Message(NamedTuple):
    """A message. `rest` is the number in bytes 4 to 7: identifier and sequence of an echo, the next hop's MTU, or 0."""

    type: int
    code: int
    rest: int
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether it tells of another packet, which it quotes."""
        return self.type in ERRORS

    @property
    def identifier(self) -> int:
        """Identifier of an echo, 16 bits."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Sequence number of an echo, 16 bits."""
        return self.rest & 0xFFFF

    @property
    def next_hop_mtu(self) -> int:
        """MTU that FRAGMENTATION_NEEDED tells; 0 from routers that know no RFC 1191."""
        return self.rest & 0xFFFF


def parse(payload: bytes) -> Message | Refusal:
    """Return the message in the payload of a packet, or why there is none: TRUNCATED, CHECKSUM. Never raises."""
    if len(payload) < HEADER_BYTES:
        return Refusal.TRUNCATED
    if not is_right(payload):
        return Refusal.CHECKSUM
    kind, code, _, rest = _LAYOUT.unpack_from(payload)
    return Message(kind, code, rest, payload[HEADER_BYTES:])


def build(message: Message) -> bytes:
    """Return the bytes of a message with its checksum."""
    bare = _LAYOUT.pack(message.type, message.code, 0, message.rest) + message.body
    return b"%b%b%b" % (bare[:2], checksum(bare).to_bytes(2, "big"), bare[4:])


def echo_request(identifier: int, sequence: int, data: bytes = b"") -> Message:
    """Return the question of a ping."""
    return Message(ECHO_REQUEST, 0, identifier << 16 | sequence, data)


def echo_reply(request: Message) -> Message:
    """Return the answer to an echo request: the same but for the type."""
    return request._replace(type=ECHO_REPLY, code=0)


def error(kind: int, code: int, original: bytes, rest: int = 0) -> Message:
    """Return an error about a packet, whose beginning it quotes: as much as fits into 576 bytes. Source: RFC 1812."""
    return Message(kind, code, rest, original[: MAX_ERROR_BYTES - ipv4.HEADER_BYTES - HEADER_BYTES])


def quoted(message: Message) -> ipv4.Packet | Refusal:
    """Return the packet that an error quotes, its payload cut, or why there is none.

    TRUNCATED also when fewer than eight bytes of the payload are quoted, unless the packet had no more: without the
    ports nobody can tell whom it was about.
    """
    packet = ipv4.parse(message.body, quoted=True)
    if isinstance(packet, Refusal) or len(packet.payload) >= 8:
        return packet
    total = message.body[2] << 8 | message.body[3]
    return packet if packet.header_bytes + len(packet.payload) >= total else Refusal.TRUNCATED


def may_be_answered(packet: ipv4.Packet, *, to_group: bool = False) -> bool:
    """Tell whether an error may be sent about a packet.

    Never about an ICMP error, a fragment but the first, a packet that came in a group frame or goes to a group or
    broadcast address (`to_group`: the caller knows the subnets), or one whose source is no single host. An error about
    such would multiply. Source: RFC 1122, 3.2.2; RFC 1812, 4.3.2.7.
    """
    if to_group or packet.offset or not is_unicast(packet.src) or not is_unicast(packet.dst):
        return False
    # An ICMP packet without a type byte could be anything, so it is taken for an error.
    return packet.protocol != ipv4.ICMP or not (packet.payload[:1] == b"" or packet.payload[0] in ERRORS)
