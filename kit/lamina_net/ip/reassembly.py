"""Putting fragments together again, bounded in time, number and bytes. Pure.

A datagram whose fragments overlap is given up with all that still comes of it: overlaps have no honest use, and systems
differ in which bytes win. An exact repetition of a fragment is left out. A datagram waits 30 s from its first fragment
on, whichever that was; when there is no room, the oldest goes.

Source: RFC 791, 3.2; RFC 815; RFC 1858; RFC 5722; RFC 3168, 5.3 for ECN.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

from lamina_net.packets.ipv4 import MAX_PACKET_BYTES, Packet
from lamina_net.packets.refusal import Refusal

LIFETIME_NS = 30 * 1_000_000_000
MAX_DATAGRAMS = 64
MAX_BYTES = 4 * 1024 * 1024
MAX_FRAGMENTS = 2048
"""Fragments of one datagram; 64 KiB over the least MTU that there is make 1366."""

_CE = 3


class _Key(NamedTuple):
    src: int
    dst: int
    protocol: int
    identification: int


@dataclass(slots=True)
class _Datagram:
    ends_ns: int
    starts: list[int] = field(default_factory=list)
    parts: dict[int, Packet] = field(default_factory=dict)
    received: int = 0
    size: int | None = None  # known from the last fragment on
    given_up: bool = False


class Reassembly:
    """Datagrams that wait for fragments: `limit` in all, `limit_per_source` of one source, `max_bytes` of payload."""

    def __init__(
        self, limit: int = MAX_DATAGRAMS, limit_per_source: int = MAX_DATAGRAMS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._limit, self._limit_per_source, self._max_bytes = limit, limit_per_source, max_bytes
        self._datagrams: dict[_Key, _Datagram] = {}  # by their end: all live equally long
        self._of_source: dict[int, dict[_Key, None]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._datagrams)

    @property
    def held_bytes(self) -> int:
        """Bytes of payload that wait."""
        return self._bytes

    @property
    def next_wakeup_ns(self) -> int | None:
        """When the next datagram ends, or None."""
        for datagram in self._datagrams.values():
            return datagram.ends_ns
        return None

    def add(self, packet: Packet, now_ns: int) -> Packet | Refusal | None:
        """Take a fragment: the whole packet when it was the last one missing, None while others are.

        OVERLAP for a fragment that overlaps or contradicts others, and for later ones of that datagram; FRAGMENT for a
        datagram of more than 65535 bytes or 2048 fragments. What has ended by `now_ns` is forgotten first; who wants to
        tell senders of it calls `expired` before.
        """
        self.expired(now_ns)
        key = _Key(packet.src, packet.dst, packet.protocol, packet.identification)
        datagram = self._datagrams.get(key)
        if datagram is None:
            datagram = self._begin(key, now_ns)
        if datagram.given_up:
            return Refusal.OVERLAP
        refusal = self._place(datagram, packet)
        if refusal is not None:
            self._give_up(datagram)
            return refusal
        if datagram.size is None or datagram.received < datagram.size:
            self._bound_bytes(key)
            return None
        self._remove(key)
        return _joined(datagram)

    def expired(self, now_ns: int) -> list[Packet]:
        """Forget the datagrams whose time is over; return the first fragments of those that had one.

        About those, and only those, the sender is told by ICMP. Source: RFC 792, time exceeded.
        """
        firsts = []
        while self._datagrams:
            key, datagram = next(iter(self._datagrams.items()))
            if datagram.ends_ns > now_ns:
                break
            if 0 in datagram.parts:
                firsts.append(datagram.parts[0])
            self._remove(key)
        return firsts

    def _begin(self, key: _Key, now_ns: int) -> _Datagram:
        of_source = self._of_source.get(key.src, {})
        if len(of_source) >= self._limit_per_source:
            self._remove(next(iter(of_source)))
        elif len(self._datagrams) >= self._limit:
            self._remove(next(iter(self._datagrams)))
        datagram = self._datagrams[key] = _Datagram(now_ns + LIFETIME_NS)
        self._of_source.setdefault(key.src, {})[key] = None
        return datagram

    def _place(self, datagram: _Datagram, packet: Packet) -> Refusal | None:
        start, end = packet.offset, packet.offset + len(packet.payload)
        known = datagram.parts.get(start)
        if known is not None and (known.payload, known.more) == (packet.payload, packet.more):
            return None
        if start == end:
            return Refusal.FRAGMENT
        place = bisect_left(datagram.starts, start)
        if known is not None or (place and self._end(datagram, place - 1) > start):
            return Refusal.OVERLAP
        if place < len(datagram.starts) and datagram.starts[place] < end:
            return Refusal.OVERLAP
        last = self._end(datagram, -1) if datagram.starts else 0
        if not packet.more and (datagram.size is not None or last > end):
            return Refusal.OVERLAP
        if packet.more and datagram.size is not None and end > datagram.size:
            return Refusal.OVERLAP
        if end > MAX_PACKET_BYTES - packet.header_bytes or len(datagram.starts) >= MAX_FRAGMENTS:
            return Refusal.FRAGMENT
        if not packet.more:
            datagram.size = end
        insort(datagram.starts, start)
        datagram.parts[start] = packet
        datagram.received += len(packet.payload)
        self._bytes += len(packet.payload)
        return None

    @staticmethod
    def _end(datagram: _Datagram, place: int) -> int:
        start = datagram.starts[place]
        return start + len(datagram.parts[start].payload)

    def _give_up(self, datagram: _Datagram) -> None:
        """Keep the datagram's name only, so that what still comes of it is known."""
        self._bytes -= datagram.received
        datagram.starts, datagram.parts, datagram.received, datagram.given_up = [], {}, 0, True

    def _bound_bytes(self, newest: _Key) -> None:
        while self._bytes > self._max_bytes:
            oldest = next(iter(self._datagrams))
            self._remove(oldest)
            if oldest == newest:
                return

    def _remove(self, key: _Key) -> None:
        self._bytes -= self._datagrams.pop(key).received
        of_source = self._of_source[key.src]
        del of_source[key]
        if not of_source:
            del self._of_source[key.src]


def _joined(datagram: _Datagram) -> Packet | Refusal:
    first = datagram.parts[0]
    parts = [datagram.parts[start] for start in datagram.starts]
    payload = b"".join(part.payload for part in parts)
    if first.header_bytes + len(payload) > MAX_PACKET_BYTES:
        return Refusal.FRAGMENT
    tos = first.tos | _CE if any(part.tos & _CE == _CE for part in parts) else first.tos
    return first._replace(payload=payload, more=False, tos=tos)
