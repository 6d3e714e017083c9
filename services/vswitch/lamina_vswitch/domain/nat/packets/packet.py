"""What translation reads of an IPv4 packet: addresses, ports, TCP flags, and where in a datagram a fragment lies.

Nothing here checks sums: what came broken has to stay broken. Lengths are checked before anything is read.

    IPv4   version:4 IHL:4 | TOS | total length | identification | flags:3 offset:13 | TTL | protocol | sum | src | dst
    TCP    source port | destination port | sequence | acknowledgment | offset:4 … flags:8 | window | sum | urgent
    UDP    source port | destination port | length | sum
    ICMP   type | code | sum | identifier | sequence          (echo; an error has 4 unused bytes, then what it quotes)

Source: RFC 791, 3.1; RFC 9293, 3.1; RFC 768; RFC 792.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from lamina_vswitch.domain.frames.drop_reasons import DropReason

ICMP, TCP, UDP = 1, 6, 17
ECHO_REPLY, ECHO_REQUEST = 0, 8
ERROR_TYPES = (3, 4, 11, 12)
"""Destination unreachable, source quench, time exceeded, parameter problem: each quotes the packet it is about."""
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

MIN_HEADER_BYTES = 20
_MORE_FRAGMENTS = 0x2000
_OFFSET_MASK = 0x1FFF
_IPV4 = struct.Struct("!BBHHHBBHII")
_PORTS = struct.Struct("!HH")
_FIRST_BYTES = {TCP: 20, UDP: 8, ICMP: 8}
"""Bytes of transport header that an unfragmented packet, or a first fragment, has to hold (RFC 1858, 4.2)."""


class FlowKey(NamedTuple):
    """A direction of a flow: protocol number, then address (0 to 2^32 - 1) and port of source and destination.

    The identifier of an ICMP echo is the port of the side that asks; the other side's is 0.
    """

    protocol: int
    src: int
    src_port: int
    dst: int
    dst_port: int

    def reversed(self) -> FlowKey:
        """Return the other direction."""
        return FlowKey(self.protocol, self.dst, self.dst_port, self.src, self.src_port)


class Kind(enum.Enum):
    """What a packet is to a translator."""

    FLOW = enum.auto()
    """Of a flow, with its ports: unfragmented, or the first fragment."""
    LATER = enum.auto()
    """A later fragment: it has no ports."""
    ERROR = enum.auto()
    """An ICMP error, which quotes a packet of a flow."""


class View(NamedTuple):
    """A packet as translation sees it.

    `header` is the length of the IP header in bytes, `total` that of the packet; a longer buffer has padding. `flags`
    are TCP's; for ICMP the type of the message; 0 for UDP. `offset` is where a fragment's payload lies in its datagram,
    in bytes; `more` says that others follow.
    """

    kind: Kind
    key: FlowKey
    header: int
    total: int
    flags: int
    identification: int
    offset: int
    more: bool

    @property
    def fragmented(self) -> bool:
        """Whether this is a fragment, the first or a later one."""
        return self.more or self.offset > 0


def read(packet: bytes) -> View | DropReason:
    """Return what translation needs of a packet, or why it cannot be translated. Never raises."""
    head = _head(packet, quoted=False)
    if head is None:
        return DropReason.IP_MALFORMED
    if head.key.protocol not in _FIRST_BYTES:
        return DropReason.PROTOCOL_UNSUPPORTED
    if head.offset:
        return head
    at, room = head.header, head.total - head.header
    if room < _FIRST_BYTES[head.key.protocol]:
        return DropReason.IP_MALFORMED
    if head.key.protocol == ICMP:
        return _icmp(packet, head)
    if head.key.protocol == TCP:
        data_offset = (packet[at + 12] >> 4) * 4
        if data_offset < 20 or (data_offset > room and not head.more):
            return DropReason.IP_MALFORMED
        return _with_ports(packet, head)._replace(flags=packet[at + 13])
    length = int.from_bytes(packet[at + 4 : at + 6], "big")
    if length < 8 or (length > room and not head.more):
        return DropReason.IP_MALFORMED
    return _with_ports(packet, head)


def read_quoted(packet: bytes) -> View | None:
    """Return what an ICMP error quotes, a packet cut behind 8 bytes of transport header or later, or None.

    Never raises. Source: RFC 792; RFC 5508, 4.2.
    """
    head = _head(packet, quoted=True)
    if head is None or head.offset or len(packet) < head.header + 8 or head.key.protocol not in _FIRST_BYTES:
        return None
    if head.key.protocol != ICMP:
        return _with_ports(packet, head)
    view = _icmp(packet, head)
    return view if isinstance(view, View) and view.kind is Kind.FLOW else None


def _head(packet: bytes, *, quoted: bool) -> View | None:
    """Read the IP header; a quoted packet may be shorter than its header says."""
    if len(packet) < MIN_HEADER_BYTES:
        return None
    first, _, total, identification, place, _, protocol, _, src, dst = _IPV4.unpack_from(packet)
    header = (first & 0x0F) * 4
    if first >> 4 != 4 or header < MIN_HEADER_BYTES or total < header or len(packet) < header:
        return None
    if quoted:
        total = min(total, len(packet))
    if total > len(packet):
        return None
    offset, more = (place & _OFFSET_MASK) * 8, bool(place & _MORE_FRAGMENTS)
    payload = total - header
    if not quoted and (more or offset) and (not payload or offset + payload > 65535 or (more and payload % 8)):
        return None
    kind = Kind.LATER if offset else Kind.FLOW
    return View(kind, FlowKey(protocol, src, 0, dst, 0), header, total, 0, identification, offset, more)


def _with_ports(packet: bytes, head: View) -> View:
    src_port, dst_port = _PORTS.unpack_from(packet, head.header)
    return head._replace(key=head.key._replace(src_port=src_port, dst_port=dst_port))


def _icmp(packet: bytes, head: View) -> View | DropReason:
    kind, identifier = packet[head.header], int.from_bytes(packet[head.header + 4 : head.header + 6], "big")
    head = head._replace(flags=kind)
    if kind == ECHO_REQUEST:
        return head._replace(key=head.key._replace(src_port=identifier))
    if kind == ECHO_REPLY:
        return head._replace(key=head.key._replace(dst_port=identifier))
    if kind in ERROR_TYPES:
        return head._replace(kind=Kind.ERROR)
    return DropReason.PROTOCOL_UNSUPPORTED
