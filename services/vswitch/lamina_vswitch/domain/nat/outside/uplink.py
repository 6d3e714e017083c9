"""Network address and port translation between inside and one outside address, packet by packet.

Mapping is independent of the endpoint, filtering depends on address and port of the peer; only a forwarded port lets
anybody in. A packet from inside to the outside address goes out and comes back in at once (hairpin), so both ends see
outside addresses. Source: RFC 3022; RFC 4787; RFC 5382; RFC 5508.
"""

from __future__ import annotations

import copy

from lamina_net.packets.address import format_address
from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.nat.flows.entry import Entry, Wanted
from lamina_vswitch.domain.nat.flows.forwards import Forwards
from lamina_vswitch.domain.nat.flows.ports import PortPool
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import Outcome, dropped
from lamina_vswitch.domain.nat.packets.packet import UDP, Kind, View, read
from lamina_vswitch.domain.nat.packets.tracking import begins_flow
from lamina_vswitch.domain.network.router.explain import Translation
from lamina_vswitch.domain.switch.trace import Step


class UplinkNat:
    """Translation to and from `address`. `ports` are its; forwards reserve theirs there."""

    def __init__(self, address: int, rewriter: Rewriter, ports: PortPool, forwards: Forwards) -> None:
        self.address = address
        self._rewriter = rewriter
        self._table = rewriter.table
        self._ports = ports
        self._forwards = forwards

    def leaving(self, packet: bytes, now_ns: int) -> Outcome:
        """Translate a packet that the router sends outside. `Outcome.outside` goes to the uplink."""
        view = read(packet)
        if isinstance(view, DropReason):
            return dropped(view, packet)
        outcome = self._rewriter.translate(packet, view, now_ns, inside=True, begin=self._begin_leaving)
        outcome = _no_entry(outcome)
        if view.key.dst != self.address:
            return outcome._replace(outside=outcome.inside, inside=())
        returned = [self.entering(each, now_ns) for each in outcome.inside]
        inside = tuple(each for one in returned for each in one.inside)
        return Outcome(inside=inside, drops=outcome.drops + tuple(each for one in returned for each in one.drops))

    def entering(self, packet: bytes, now_ns: int) -> Outcome:
        """Translate a packet that came to the outside address. `Outcome.inside` goes on by the router's table."""
        view = read(packet)
        if isinstance(view, DropReason):
            return dropped(view, packet)
        outcome = self._rewriter.translate(packet, view, now_ns, inside=False, begin=self._begin_entering)
        return _no_entry(outcome)

    def ended(self, entry: Entry) -> None:
        """Give back what an entry had that is gone; entries of others are not looked at."""
        if entry.outside[0] == self.address and entry.via is None:
            self._ports.give_back((entry.protocol, *entry.inside))

    def open_port(self, protocol: int, port: int) -> int | None:
        """Keep an outside port, 0 for any, for a forward; None: it is in use, or every one is."""
        if port:
            return port if self._ports.reserve(protocol, port) else None

        def usable(at: int) -> bool:
            return self._ports.reserve(protocol, at)

        return self._forwards.free_port(protocol, self.address, self._ports.range, usable)

    def close_port(self, protocol: int, port: int, now_ns: int) -> None:
        """Give the port of a forward back, and end what came through it and has no end of its own."""
        self._ports.release(protocol, port)
        if protocol == UDP:
            for entry in self._table.find(
                now_ns, lambda each: each.via == (self.address, port) and each.protocol == UDP
            ):
                self._table.remove(entry)

    def _begin_leaving(self, view: View, packet: bytes, now_ns: int) -> Entry | Outcome:
        key = view.key
        if not begins_flow(key.protocol, view.flags):
            return dropped(DropReason.NAT_STATE, packet)
        refusal = self._table.refusal(key.src, now_ns)
        if refusal is not None:
            return dropped(refusal, packet)
        inside, peer = (key.src, key.src_port), (key.dst, key.dst_port)
        port = self._ports.take((key.protocol, *inside))
        if port is None:
            self._table.sweep(now_ns)
            port = self._ports.take((key.protocol, *inside))
        if port is None:
            return dropped(DropReason.NAT_PORTS_EXHAUSTED, packet)
        wanted = Wanted(key.protocol, inside, peer, (self.address, port), peer, by_inside=True)
        return self._table.add(wanted, now_ns)

    def _begin_entering(self, view: View, packet: bytes, now_ns: int) -> Entry | Outcome:
        key = view.key
        forward = self._forwards.at((key.protocol, key.dst, key.dst_port))
        if forward is None:
            return dropped(DropReason.NAT_NO_ENTRY, packet)
        if not begins_flow(key.protocol, view.flags):
            return dropped(DropReason.NAT_STATE, packet)
        inside, peer, outside = forward.definition.inside, (key.src, key.src_port), (key.dst, key.dst_port)
        refusal = self._table.refusal(inside[0], now_ns)
        if refusal is not None:
            return dropped(refusal, packet)
        wanted = Wanted(key.protocol, inside, peer, outside, peer, by_inside=False, via=outside)
        if self._table.has_inside(wanted, now_ns):
            # The peer uses one port for two of ours that lead to the same place: from there they are one flow.
            return dropped(DropReason.NAT_PORTS_EXHAUSTED, packet)
        forward.flows += 1
        return self._table.add(wanted, now_ns)


def _no_entry(outcome: Outcome) -> Outcome:
    """Drop what no entry translates: beyond the translator nobody waits for it."""
    unknown = tuple((DropReason.NAT_NO_ENTRY, each) for each in outcome.own)
    return outcome._replace(own=(), drops=outcome.drops + unknown)


def explain_uplink(table: Table, nat: UplinkNat, packet: bytes, now_ns: int) -> Translation:
    """Tell what `leaving` would do with a packet, without doing it: it ends where it leaves at the uplink."""
    view = read(packet)
    if isinstance(view, DropReason):
        return _ends(f"drop_{view.name.lower()}", EXPLANATION[view], view)
    if view.kind is Kind.ERROR or view.fragmented:
        return _ends("apart", "goes with the flow that it is about, or with the others of its datagram")
    key, outside = view.key, format_address(nat.address)
    entry = table.peek(key, now_ns, inside=True)
    if entry is not None:
        if not copy.copy(entry.track).follow(view.flags, inside=True):
            return _ends("drop_nat_state", EXPLANATION[DropReason.NAT_STATE], DropReason.NAT_STATE)
        return _ends("uplink", f"leaves at the uplink from {outside}:{entry.outside[1]}, {entry.track.state.name}")
    reason = None if begins_flow(key.protocol, view.flags) else DropReason.NAT_STATE
    reason = reason or table.would_refuse(key.src, now_ns)
    if reason is not None:
        return _ends(f"drop_{reason.name.lower()}", EXPLANATION[reason], reason)
    return _ends("new_entry", f"would get an entry, and a free port of {outside}, from which it leaves at the uplink")


def _ends(rule: str, detail: str, reason: DropReason | None = None) -> Translation:
    return Translation((Step("nat", f"nat.{rule}", detail),), reason)
