"""The translation table: entries found from either side, bounded, forgotten in closed form.

An entry is alive while `now - seen < timeout of its state`; no timer ends it. Entries of one timeout are kept in the
order of their last packets, so the dead are always at the front of a queue and are swept when room is needed or
somebody looks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry, Wanted
from lamina_vswitch.domain.nat.flows.listing import Listing, order
from lamina_vswitch.domain.nat.packets.packet import TCP, FlowKey, View
from lamina_vswitch.domain.nat.packets.tracking import Track, timeout_seconds


class Table:
    """At most `limit` entries, `per_address` of one inside address. `gone` is called with each entry that ends."""

    def __init__(self, limit: int, per_address: int, gone: Callable[[Entry], None]) -> None:
        self.limit, self.per_address = limit, per_address
        self._gone = gone
        self._inner: dict[FlowKey, Entry] = {}
        self._outer: dict[FlowKey, Entry] = {}
        self._ages: dict[int, OrderedDict[int, Entry]] = {}
        self._of_address: dict[int, int] = {}
        self._listing = Listing()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._inner)

    def from_inside(self, key: FlowKey, now_ns: int) -> Entry | None:
        """Return the live entry of a packet that an inside address sent."""
        return self._alive(self._inner.get(key), now_ns)

    def from_outside(self, key: FlowKey, now_ns: int) -> Entry | None:
        """Return the live entry of a packet that the other side sent."""
        return self._alive(self._outer.get(key), now_ns)

    def peek(self, key: FlowKey, now_ns: int, *, inside: bool) -> Entry | None:
        """Return what `from_inside` or `from_outside` would, and let what has ended lie."""
        entry = (self._inner if inside else self._outer).get(key)
        return entry if entry is not None and entry.ends_ns > now_ns else None

    def would_refuse(self, inside_address: int, now_ns: int) -> DropReason | None:
        """Return what `refusal` would, and let what has ended lie."""
        if len(self._inner) < self.limit and self._of_address.get(inside_address, 0) < self.per_address:
            return None
        live = [entry for entry in self._inner.values() if entry.ends_ns > now_ns]
        if len(live) >= self.limit:
            return DropReason.NAT_TABLE_FULL
        theirs = sum(entry.inside[0] == inside_address for entry in live)
        return DropReason.NAT_ADDRESS_LIMIT if theirs >= self.per_address else None

    def has_inside(self, wanted: Wanted, now_ns: int) -> bool:
        """Tell whether packets from inside of a wanted flow belong to another entry already."""
        return self.from_inside(FlowKey(wanted.protocol, *wanted.inside, *wanted.dialled), now_ns) is not None

    def refusal(self, inside_address: int, now_ns: int) -> DropReason | None:
        """Return why an inside address gets no further entry, or None."""
        if len(self._inner) >= self.limit or self._of_address.get(inside_address, 0) >= self.per_address:
            self.sweep(now_ns)
        if len(self._inner) >= self.limit:
            return DropReason.NAT_TABLE_FULL
        if self._of_address.get(inside_address, 0) >= self.per_address:
            return DropReason.NAT_ADDRESS_LIMIT
        return None

    def add(self, wanted: Wanted, now_ns: int) -> Entry:
        """Make an entry; `refusal` was asked, and packets from inside belong to no other entry.

        Packets from outside may: a host gives the port of a socket that is closed to another one, while the entry of
        the first lives on until its time. They belong to the newest entry then.
        """
        track = Track.begun(wanted.protocol, inside=wanted.by_inside)
        self._numbers += 1
        entry = Entry(
            self._numbers, wanted.protocol, wanted.inside, wanted.dialled, wanted.outside, wanted.peer,
            track, now_ns, now_ns, wanted.via,
        )  # fmt: skip
        self._inner[entry.inner] = self._outer[entry.outer] = entry
        self._listing.add(entry)
        address = entry.inside[0]
        self._of_address[address] = self._of_address.get(address, 0) + 1
        self._queue(entry)[entry.number] = entry
        return entry

    def pass_through(self, entry: Entry, packet: bytes, view: View, *, inside: bool, now_ns: int) -> bool:
        """Count a packet of an entry, unfragmented or the first fragment. False: it does not fit the state."""
        before = entry.track.state
        if not entry.track.follow(view.flags, inside=inside):
            return False
        if entry.protocol == TCP:
            (entry.sent if inside else entry.received).note_segment(packet, view)
        queue = self._queue(entry)
        old = self._ages[timeout_seconds(entry.protocol, before)]
        if queue is not old:
            del old[entry.number]
            queue[entry.number] = entry
        else:
            queue.move_to_end(entry.number)
        entry.seen_ns = now_ns
        self.count(entry, view.total, inside=inside)
        return True

    @staticmethod
    def count(entry: Entry, size: int, *, inside: bool) -> None:
        """Count a packet of `size` bytes without more ado, as for a later fragment."""
        flows = entry.sent if inside else entry.received
        flows.packets += 1
        flows.octets += size

    def remove(self, entry: Entry) -> None:
        """Forget an entry."""
        self._listing.remove(entry)
        del self._inner[entry.inner]
        if self._outer.get(entry.outer) is entry:
            del self._outer[entry.outer]
        del self._queue(entry)[entry.number]
        address = entry.inside[0]
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        self._gone(entry)

    def sweep(self, now_ns: int) -> None:
        """Forget every entry that has ended."""
        for queue in self._ages.values():
            while queue:
                entry = next(iter(queue.values()))
                if entry.ends_ns > now_ns:
                    break
                self.remove(entry)

    def live(self, now_ns: int) -> Iterator[Entry]:
        """Yield the live entries, in the order in which they began; nothing may change meanwhile."""
        self.sweep(now_ns)
        yield from self._inner.values()

    def find(self, now_ns: int, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Return the live entries that are wanted, in the order of `entries`."""
        return sorted((each for each in self.live(now_ns) if wanted(each)), key=order)

    def next_end_ns(self) -> int | None:
        """Return when the first entry ends if no packets come; None without entries."""
        return min((next(iter(queue.values())).ends_ns for queue in self._ages.values() if queue), default=None)

    def entries(self, now_ns: int, inside: int | None = None, protocol: int | None = None) -> Sequence[Entry]:
        """Return the live entries, ordered by protocol, inside address and port, then the other sides.

        With `inside` or `protocol` only those of an inside address, or a protocol.
        """
        self.sweep(now_ns)
        return self._listing.of(self._inner.values(), inside, protocol)

    def _alive(self, entry: Entry | None, now_ns: int) -> Entry | None:
        if entry is None or entry.ends_ns > now_ns:
            return entry
        self.remove(entry)
        return None

    def _queue(self, entry: Entry) -> OrderedDict[int, Entry]:
        return self._ages.setdefault(timeout_seconds(entry.protocol, entry.track.state), OrderedDict())
