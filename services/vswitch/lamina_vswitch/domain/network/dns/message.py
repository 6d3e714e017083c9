"""DNS messages: a question is read, an answer is written. Bounds first.

    byte 0    2       4         6         8         10        12
         | id | flags | QDCOUNT | ANCOUNT | NSCOUNT | ARCOUNT | question, answers, authority, additional

Source: RFC 1035, 4; RFC 6891 for the size that an asker takes (EDNS).
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import NamedTuple

from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.network.dns import name

PORT = 53
HEADER_BYTES = 12
PLAIN_BYTES = 512
"""Longest answer over UDP for an asker that names no size."""
MOST_BYTES = 1232
"""Longest answer over UDP at all: what fits a packet everywhere. Source: DNS flag day 2020."""
MAX_QUERY_BYTES = 4096
CLASS_IN = 1
CLASS_ANY = 255
TYPE_OPT = 41
TYPE_SOA = 6
TYPE_ANY = 255

_HEADER = struct.Struct("!HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_MAX_RECORDS = 64


class Type(enum.IntEnum):
    """Types of records that are served. Source: RFC 1035, 3.2.2; RFC 3596; RFC 2782."""

    A = 1
    CNAME = 5
    PTR = 12
    AAAA = 28
    SRV = 33


class Code(enum.IntEnum):
    """Outcomes. Source: RFC 1035, 4.1.1."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class Query(NamedTuple):
    """A question. `size` is how long an answer over UDP may be; `edns` says that the asker named one."""

    id: int
    name: str
    type: int
    recursion: bool
    size: int
    edns: bool


class Record(NamedTuple):
    """A record of an answer. `data` is text: an address, a name, or `PRIORITY WEIGHT PORT TARGET`."""

    name: str
    type: int
    ttl: int
    data: str


class Reply(NamedTuple):
    """An answer to a query. `soa` is the domain whose start of authority goes along, empty for none."""

    code: Code
    answers: tuple[Record, ...] = ()
    authoritative: bool = False
    soa: str = ""
    soa_ttl: int = 0
    recursion_available: bool = False


def parse(data: bytes) -> Query | Code | Refusal:
    """Return the question, a code to answer with when the message is a question but a wrong one, or why it is none.

    Never raises. What is not a question (too short, or an answer) is not answered at all.
    """
    if not HEADER_BYTES <= len(data) <= MAX_QUERY_BYTES:
        return Refusal.TRUNCATED if len(data) < HEADER_BYTES else Refusal.LENGTH
    ident, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        return Refusal.OPERATION
    if flags & 0x7800:
        return Code.NOTIMP
    if questions != 1 or answers or authority or additional > _MAX_RECORDS:
        return Code.FORMERR
    found = name.read(data, HEADER_BYTES)
    if isinstance(found, Refusal) or found[1] + 4 > len(data):
        return Code.FORMERR
    kind, group = struct.unpack_from("!HH", data, found[1])
    if group not in (CLASS_IN, CLASS_ANY):
        return Code.REFUSED
    size = _edns_size(data, found[1] + 4, additional)
    if isinstance(size, Code):
        return size
    limit = min(max(size or PLAIN_BYTES, PLAIN_BYTES), MOST_BYTES)
    return Query(ident, found[0], kind, bool(flags & _RD), limit, size is not None)


def _edns_size(data: bytes, place: int, count: int) -> int | Code | None:
    for _ in range(count):
        found = name.read(data, place)
        if isinstance(found, Refusal) or found[1] + 10 > len(data):
            return Code.FORMERR
        kind, size, _, length = struct.unpack_from("!HHIH", data, found[1])
        place = found[1] + 10 + length
        if place > len(data):
            return Code.FORMERR
        if kind == TYPE_OPT:
            return int(size)
    return None


def failure(data: bytes, code: Code) -> bytes:
    """Return the answer to a message that `parse` gave a code for: its id and the code, nothing else."""
    ident, flags = struct.unpack_from("!HH", data)
    return _HEADER.pack(ident, _QR | flags & (0x7800 | _RD) | code, 0, 0, 0, 0)


def build(query: Query, reply: Reply, limit: int) -> bytes:
    """Return the bytes of an answer of at most `limit` bytes: without records and truncated when it does not fit."""
    whole = _build(query, reply, truncated=False)
    return whole if len(whole) <= limit else _build(query, reply._replace(answers=(), soa=""), truncated=True)


def _build(query: Query, reply: Reply, *, truncated: bool) -> bytes:
    flags = _QR | (_AA if reply.authoritative else 0) | (_TC if truncated else 0) | reply.code
    flags |= (_RD if query.recursion else 0) | (_RA if reply.recursion_available else 0)
    counts = (1, len(reply.answers), 1 if reply.soa else 0, 1 if query.edns else 0)
    parts = _HEADER.pack(query.id, flags, *counts)
    known: dict[str, int] = {}
    parts += name.write(query.name, known, len(parts)) + struct.pack("!HH", query.type, CLASS_IN)
    for record in reply.answers:
        parts += _head(record.name, record.type, record.ttl, known, len(parts))
        data = _data(record, known, len(parts) + 2)
        parts += len(data).to_bytes(2, "big") + data
    if reply.soa:
        parts += _head(reply.soa, TYPE_SOA, reply.soa_ttl, known, len(parts))
        data = _soa(reply.soa, reply.soa_ttl, known, len(parts) + 2)
        parts += len(data).to_bytes(2, "big") + data
    if query.edns:
        parts += b"\0" + struct.pack("!HHIH", TYPE_OPT, MOST_BYTES, 0, 0)
    return parts


def _head(owner: str, kind: int, ttl: int, known: dict[str, int], place: int) -> bytes:
    return name.write(owner, known, place) + struct.pack("!HHI", kind, CLASS_IN, ttl)


def _data(record: Record, known: dict[str, int], place: int) -> bytes:
    if record.type == Type.A:
        return ipaddress.IPv4Address(record.data).packed
    if record.type == Type.AAAA:
        return ipaddress.IPv6Address(record.data).packed
    if record.type == Type.SRV:
        priority, weight, port, target = record.data.split(" ")
        return struct.pack("!HHH", int(priority), int(weight), int(port)) + name.write(target, {}, 0)
    return name.write(record.data, known, place)


def _soa(domain: str, ttl: int, known: dict[str, int], place: int) -> bytes:
    """Return the start of authority of an own domain; its last number says how long a name's absence may be kept."""
    data = name.write(f"ns.{domain}", known, place)
    data += name.write(f"hostmaster.{domain}", known, place + len(data))
    return data + struct.pack("!IIIII", 1, 7200, 1800, 86_400, ttl)
