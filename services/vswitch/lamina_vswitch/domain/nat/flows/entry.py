"""One flow in the translation table: its ends, what it is doing, and what it carried."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from lamina_vswitch.domain.nat.packets.packet import ACK, FIN, SYN, FlowKey, View
from lamina_vswitch.domain.nat.packets.tracking import SECOND_NS, Track, timeout_seconds

_NUMBERS = struct.Struct("!II")

Endpoint = tuple[int, int]
"""Address, 0 to 2^32 - 1, and port."""


@dataclass(slots=True)
class Flows:
    """Packets and their bytes, `octets`, in one direction.

    Of the newest TCP segment also the sequence number behind it and what it acknowledged (0: nothing yet): with them a
    reset in the other's name is believed.
    """

    packets: int = 0
    octets: int = 0
    next_sequence: int = 0
    acknowledged: int = 0

    def count_pieces(self, packet: bytes, view: View, segment_bytes: int) -> None:
        """Count what a long TCP packet, which was counted as one, is on the wire; 0: it is one."""
        header = view.header + (packet[view.header + 12] >> 4) * 4
        more = (view.total - header - 1) // segment_bytes if segment_bytes else 0
        self.packets += max(0, more)
        self.octets += max(0, more) * header

    def note_segment(self, packet: bytes, view: View) -> None:
        """Note the numbers of a TCP segment, whole or the first fragment."""
        sequence, acknowledgment = _NUMBERS.unpack_from(packet, view.header + 4)
        header = view.header + (packet[view.header + 12] >> 4) * 4
        length = max(0, view.total - header) + (view.flags & FIN) + ((view.flags & SYN) >> 1)
        self.next_sequence = (sequence + length) & 0xFFFFFFFF
        if view.flags & ACK:
            self.acknowledged = acknowledgment


@dataclass(slots=True, eq=False)
class Entry:
    """One flow.

    `dialled` is whom the inside address talks to in its own view: the peer, a virtual server, or the gateway for what
    came through a forwarded port. `peer` and `outside` are what the other side sees. `via` is what made it, empty for a
    flow from inside to outside. `number` counts the entries of a table from 1.
    """

    number: int
    protocol: int
    inside: Endpoint
    dialled: Endpoint
    outside: Endpoint
    peer: Endpoint
    track: Track
    began_ns: int
    seen_ns: int
    via: Endpoint | None = None
    sent: Flows = field(default_factory=Flows)
    received: Flows = field(default_factory=Flows)

    @property
    def inner(self) -> FlowKey:
        """Its packets from inside, as they come."""
        return FlowKey(self.protocol, *self.inside, *self.dialled)

    @property
    def outer(self) -> FlowKey:
        """Its packets to inside, as they come."""
        return FlowKey(self.protocol, *self.peer, *self.outside)

    @property
    def timeout_ns(self) -> int:
        """How long it may be silent now."""
        return timeout_seconds(self.protocol, self.track.state) * SECOND_NS

    @property
    def ends_ns(self) -> int:
        """When it goes if no packet comes."""
        return self.seen_ns + self.timeout_ns


@dataclass(frozen=True, slots=True)
class Wanted:
    """A flow that wants an entry. `inside` is charged for it; `by_inside` says who sent the first packet."""

    protocol: int
    inside: Endpoint
    dialled: Endpoint
    outside: Endpoint
    peer: Endpoint
    by_inside: bool
    via: Endpoint | None = None
