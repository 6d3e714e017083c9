"""Fragments on their way through a translator: translated with the first, which alone has the ports.

A fragment that comes before the first of its datagram waits for it, at most 30 s; of one source at most 64 datagrams
are under way, of all sources 1024, each of at most 128 fragments. One that overlaps another drops its datagram, and
what comes of it later. No timer ends a wait: datagrams are kept in the order in which they began, and the old ones are
swept when another comes.

Source: RFC 791, 3.2; RFC 1858; RFC 5722 (overlaps); RFC 4787, REQ-14.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.packets.packet import View
from lamina_vswitch.domain.nat.packets.tracking import SECOND_NS

WAIT_NS = 30 * SECOND_NS
DATAGRAMS_PER_ADDRESS = 64
DATAGRAMS = 1024
PIECES = 128
"""Fragments of one datagram: the longest datagram over the smallest usual MTU, 576, has 119."""

_Id = tuple[int, int, int, int]
Fragment = tuple[bytes, View]


@dataclass(slots=True)
class Datagram:
    """One datagram under way: which bytes of it came, and who waits.

    Its first fragment has come when it is `begun`, and has then said the `entry`; None: the datagram is not translated.
    """

    key: _Id
    began_ns: int
    pieces: list[tuple[int, int]] = field(default_factory=list)
    held: int = 0
    size: int | None = None
    waiting: list[Fragment] = field(default_factory=list)
    begun: bool = False
    entry: Entry | None = None
    refused: DropReason | None = None

    def place(self, view: View) -> bool:
        """Note where a fragment lies. False: it overlaps another, or lies beyond the end."""
        begin, end = view.offset, view.offset + view.total - view.header
        at = bisect_left(self.pieces, (begin, end))
        if at and self.pieces[at - 1][1] > begin:
            return False
        if at < len(self.pieces) and self.pieces[at][0] < end:
            return False
        if not view.more:
            if self.size is not None or (self.pieces and self.pieces[-1][1] > end):
                return False
            self.size = end
        elif self.size is not None and end > self.size:
            return False
        self.pieces.insert(at, (begin, end))
        self.held += end - begin
        return True

    @property
    def complete(self) -> bool:
        """Whether every byte came. Pieces do not overlap, so their lengths say it."""
        return self.held == self.size


class Fragments:
    """The datagrams that come in fragments."""

    def __init__(self) -> None:
        self._datagrams: dict[_Id, Datagram] = {}
        self._of_address: dict[int, int] = {}
        self.drops: list[tuple[DropReason, bytes]] = []
        """Fragments that were dropped, for the owner to take."""

    def __len__(self) -> int:
        return len(self._datagrams)

    def admit(self, packet: bytes, view: View, now_ns: int) -> Datagram | None:
        """Return the datagram of a fragment that may pass or wait; None: it was dropped, as `drops` says."""
        self.sweep(now_ns)
        key = (view.key.src, view.key.dst, view.key.protocol, view.identification)
        datagram = self._datagrams.get(key)
        if datagram is None:
            if len(self) >= DATAGRAMS or self._of_address.get(view.key.src, 0) >= DATAGRAMS_PER_ADDRESS:
                self.drops.append((DropReason.FRAGMENT_TIMEOUT, packet))
                return None
            datagram = self._datagrams[key] = Datagram(key, now_ns)
            self._of_address[view.key.src] = self._of_address.get(view.key.src, 0) + 1
        if datagram.refused is None and len(datagram.pieces) >= PIECES:
            self.refuse(datagram, DropReason.FRAGMENT_TIMEOUT)
        if datagram.refused is None and not datagram.place(view):
            self.refuse(datagram, DropReason.FRAGMENT_OVERLAP)
        if datagram.refused is not None:
            self.drops.append((datagram.refused, packet))
            return None
        return datagram

    def refuse(self, datagram: Datagram, reason: DropReason) -> None:
        """Drop what waits of a datagram, and what will come of it."""
        datagram.refused = reason
        self.drops.extend((reason, packet) for packet, _ in datagram.waiting)
        datagram.waiting.clear()
        datagram.pieces.clear()

    def done(self, datagram: Datagram) -> None:
        """Forget a datagram when all of it has passed."""
        if datagram.complete and not datagram.waiting:
            self._forget(datagram)

    def sweep(self, now_ns: int) -> None:
        """Drop what has waited for too long."""
        while self._datagrams:
            datagram = next(iter(self._datagrams.values()))
            if now_ns - datagram.began_ns < WAIT_NS:
                return
            self.drops.extend((DropReason.FRAGMENT_TIMEOUT, packet) for packet, _ in datagram.waiting)
            self._forget(datagram)

    def take_drops(self) -> tuple[tuple[DropReason, bytes], ...]:
        """Return the drops since the last call."""
        drops, self.drops = tuple(self.drops), []
        return drops

    def _forget(self, datagram: Datagram) -> None:
        del self._datagrams[datagram.key]
        src = datagram.key[0]
        self._of_address[src] -= 1
        if not self._of_address[src]:
            del self._of_address[src]
