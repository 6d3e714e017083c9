"""Reassembly against a model that writes every byte down with the place it came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_net.ip.reassembly import LIFETIME_NS, Reassembly
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal

LIMIT = 4


@dataclass
class NaiveDatagram:
    """A datagram as a set of bytes."""

    ends_ns: int
    seen: list[tuple[int, bytes, bool]] = field(default_factory=list)
    written: dict[int, int] = field(default_factory=dict)
    size: int | None = None
    broken: bool = False

    def add(self, packet: Packet) -> Packet | Refusal | None:
        """Write the bytes of a fragment down, and say whether all are there."""
        if self.broken:
            return Refusal.OVERLAP
        if (packet.offset, packet.payload, packet.more) in self.seen:
            return None
        places = range(packet.offset, packet.offset + len(packet.payload))
        ends = places.stop
        if not packet.more:
            contradicts = self.size is not None or any(place >= ends for place in self.written)
        else:
            contradicts = self.size is not None and ends > self.size
        if contradicts or any(place in self.written for place in places):
            self.broken = True
            return Refusal.OVERLAP
        self.seen.append((packet.offset, packet.payload, packet.more))
        self.written.update(zip(places, packet.payload, strict=True))
        self.size = self.size if packet.more else ends
        if self.size is None or len(self.written) < self.size:
            return None
        return packet._replace(payload=bytes(self.written[place] for place in range(self.size)), more=False, offset=0)


class NaiveReassembly:
    """Datagrams in a list, the oldest first."""

    def __init__(self) -> None:
        self.datagrams: dict[tuple[int, int], NaiveDatagram] = {}

    def add(self, packet: Packet, now_ns: int) -> Packet | Refusal | None:
        """Take a fragment."""
        self.datagrams = {key: found for key, found in self.datagrams.items() if found.ends_ns > now_ns}
        key = (packet.src, packet.identification)
        if key not in self.datagrams:
            if len(self.datagrams) == LIMIT:
                del self.datagrams[next(iter(self.datagrams))]
            self.datagrams[key] = NaiveDatagram(now_ns + LIFETIME_NS)
        result = self.datagrams[key].add(packet)
        if isinstance(result, Packet):
            del self.datagrams[key]
        return result


steps = st.lists(
    st.tuples(
        st.integers(1, 2),  # source
        st.integers(0, 2),  # identification
        st.integers(0, 5),  # offset in eights
        st.integers(1, 3),  # length in eights
        st.integers(0, 3).map(bool),  # more fragments
        st.integers(0, 1),  # whose bytes
        st.sampled_from([0, 0, 0, 1, LIFETIME_NS // 2, LIFETIME_NS]),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=150)
def test_reassembly_is_the_model(drawn: list[tuple[int, int, int, int, bool, int, int]]) -> None:
    """Fragments in any order, repeated, overlapping, late and of too many datagrams: the model says the same."""
    table, model, now_ns = Reassembly(limit=LIMIT), NaiveReassembly(), 0
    for source, identification, offset, size, more, fill, wait_ns in drawn:
        now_ns += wait_ns
        payload = bytes([fill + offset]) * (size * 8 - (0 if more else 3))
        fragment = Packet(source, 9, 17, payload, identification=identification, more=more, offset=offset * 8)
        assert table.add(fragment, now_ns) == model.add(fragment, now_ns)
        assert len(table) == len(model.datagrams)
