"""Takes packets through the table: finds or begins their flow, rewrites them, holds fragments, looks into errors."""

from __future__ import annotations

from collections.abc import Callable

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.fragments import Datagram, Fragments
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import NOTHING, Outcome, dropped
from lamina_vswitch.domain.nat.packets.packet import FlowKey, Kind, View, read_quoted
from lamina_vswitch.domain.nat.packets.rewrite import rewrite, rewrite_error

Begin = Callable[[View, bytes, int], Entry | Outcome]
"""Begins the flow of a packet, given with its bytes and the time: its new entry, or what becomes of the packet."""

_ICMP_HEADER_BYTES = 8


class Rewriter:
    """Packets of one router on their way through its table.

    The results are in `Outcome.inside`, in whichever direction they go: the caller knows where its entries lead.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._fragments = Fragments()

    def translate(self, packet: bytes, view: View, now_ns: int, *, inside: bool, begin: Begin) -> Outcome:
        """Translate a packet: `inside` says on which side of its entry it comes in."""
        if view.kind is Kind.ERROR:
            return self._error(packet, view, now_ns, inside=inside)
        if view.fragmented:
            return self._fragment(packet, view, now_ns, inside=inside, begin=begin)
        entry = self._entry(packet, view, now_ns, inside=inside, begin=begin)
        if isinstance(entry, Outcome):
            return entry
        return Outcome(inside=(rewrite(packet, view, _onward(entry, inside=inside)),))

    def _entry(self, packet: bytes, view: View, now_ns: int, *, inside: bool, begin: Begin) -> Entry | Outcome:
        """Return the entry of a packet that passes, an old one or a new one, or what becomes of the packet."""
        entry = self.table.from_inside(view.key, now_ns) if inside else self.table.from_outside(view.key, now_ns)
        if entry is None:
            begun = begin(view, packet, now_ns)
            if isinstance(begun, Outcome):
                return begun
            entry = begun
        if not self.table.pass_through(entry, packet, view, inside=inside, now_ns=now_ns):
            return dropped(DropReason.NAT_STATE, packet)
        return entry

    def _fragment(self, packet: bytes, view: View, now_ns: int, *, inside: bool, begin: Begin) -> Outcome:
        """Pass a fragment on with what waited for it, or let it wait for the first of its datagram."""
        outcome = NOTHING
        datagram = self._fragments.admit(packet, view, now_ns)
        if datagram is not None:
            datagram.waiting.append((packet, view))
            if view.kind is not Kind.LATER:
                outcome = self._first(datagram, packet, view, now_ns, inside=inside, begin=begin)
            if datagram.begun:
                outcome = self._released(datagram, inside=inside)
        return outcome._replace(drops=outcome.drops + self._fragments.take_drops())

    def _first(
        self, datagram: Datagram, packet: bytes, view: View, now_ns: int, *, inside: bool, begin: Begin
    ) -> Outcome:
        """Learn from the first fragment what becomes of its datagram."""
        entry = self._entry(packet, view, now_ns, inside=inside, begin=begin)
        if isinstance(entry, Entry):
            datagram.entry = entry
        elif not entry.own:
            # The packet itself waits with the others, and is dropped with them.
            self._fragments.refuse(datagram, entry.drops[0][0])
            return entry._replace(drops=())
        datagram.begun = datagram.refused is None
        return NOTHING

    def _released(self, datagram: Datagram, *, inside: bool) -> Outcome:
        """Return what waited, the first fragment in front."""
        waited = sorted(datagram.waiting, key=lambda each: each[1].offset)
        datagram.waiting.clear()
        self._fragments.done(datagram)
        if datagram.entry is None:
            return Outcome(own=tuple(packet for packet, _ in waited))
        for _, view in waited:
            if view.kind is Kind.LATER:
                self.table.count(datagram.entry, view.total, inside=inside)
        to = _onward(datagram.entry, inside=inside)
        return Outcome(inside=tuple(rewrite(packet, view, to) for packet, view in waited))

    def _error(self, packet: bytes, view: View, now_ns: int, *, inside: bool) -> Outcome:
        """Translate an ICMP error with the packet that it quotes; it keeps no entry alive."""
        quoted = read_quoted(packet[view.header + _ICMP_HEADER_BYTES : view.total])
        if quoted is None or view.fragmented:
            return dropped(DropReason.IP_MALFORMED, packet)
        about = quoted.key.reversed()
        entry = self.table.from_inside(about, now_ns) if inside else self.table.from_outside(about, now_ns)
        if entry is None:
            return Outcome(own=(packet,))
        if inside:
            src, dst, to = entry.outside[0], entry.peer[0], entry.outer
        else:
            src = entry.dialled[0] if view.key.src == entry.peer[0] else view.key.src
            dst, to = entry.inside[0], entry.inner
        return Outcome(inside=(rewrite_error(packet, view, src, dst, quoted, to),))


def _onward(entry: Entry, *, inside: bool) -> FlowKey:
    """Return what a packet of an entry is on the other side."""
    return entry.outer.reversed() if inside else entry.inner.reversed()
