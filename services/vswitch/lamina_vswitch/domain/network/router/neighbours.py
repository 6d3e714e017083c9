"""The neighbours of a router, as frames: packets go in, what has to be sent comes out."""

from __future__ import annotations

from collections.abc import Callable

from lamina_net.ip.neighbours import Neighbour, NeighbourTable, Outcome
from lamina_net.offload.long_packets import LongPacket
from lamina_net.packets import arp, ethernet
from lamina_net.packets.arp import ArpPacket
from lamina_vswitch.domain.frames.metadata import long_frame

MAX_NEIGHBOURS = 8192

Unreachable = Callable[[bytes, int], list[bytes]]
"""Called with a packet that could not be delivered and the time; returns the frames that this brings about."""


class Neighbours:
    """The ARP table of a router with this MAC address."""

    def __init__(self, mac: bytes, unreachable: Unreachable) -> None:
        self._mac = mac
        self._unreachable = unreachable
        self._table: NeighbourTable[bytes] = NeighbourTable(MAX_NEIGHBOURS)

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` is due, or None."""
        return self._table.next_wakeup_ns

    def send(self, hop: int, data: bytes, source: int, now_ns: int) -> list[bytes]:
        """Send a packet to a neighbour, now or once it has answered; `source` is the address to ask with."""
        mac = self._table.lookup(hop, now_ns)
        if mac is not None:
            return [self._framed(mac, data)]
        return self._frames(self._table.send(hop, data, source, now_ns), now_ns)

    def heard(self, packet: ArpPacket, to_us: bool, now_ns: int) -> list[bytes]:
        """Learn from an ARP packet of a neighbour."""
        return self._frames(self._table.heard(packet, to_us, now_ns), now_ns)

    def tick(self, now_ns: int) -> list[bytes]:
        """Ask again, or give up."""
        return self._frames(self._table.timer(now_ns), now_ns)

    def neighbours(self, now_ns: int) -> list[Neighbour]:
        """Return the table, ordered by address."""
        return self._table.neighbours(now_ns)

    def _framed(self, mac: bytes, data: bytes) -> bytes:
        """Return the frame of a packet; a long one says beside it where it is to be cut."""
        frame = ethernet.build(mac, self._mac, ethernet.IPV4, data)
        return long_frame(frame, data.segment_bytes) if isinstance(data, LongPacket) else frame

    def _frames(self, outcome: Outcome[bytes], now_ns: int) -> list[bytes]:
        frames = [self._framed(mac, data) for mac, data in outcome.ready]
        for question in outcome.questions:
            request = arp.request(self._mac, question.source, question.target)
            frames.append(ethernet.build(question.mac, self._mac, ethernet.ARP, request))
        for data in outcome.unreachable:
            frames += self._unreachable(data, now_ns)
        return frames
