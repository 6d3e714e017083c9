"""What a translator would do with a packet, told without doing it: no entry is made, moved or ended, no port taken.

A packet of a flow with an entry goes on as the entry says. What would begin a flow ends here: the entry is named, with
what it would need, but its port and, of several backends, the backend are chosen when a packet really comes.
"""

from __future__ import annotations

import copy
from collections.abc import Container

from lamina_net.packets.address import format_address
from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.packet import ICMP, TCP, UDP, Kind, View, read
from lamina_vswitch.domain.nat.packets.rewrite import rewrite
from lamina_vswitch.domain.nat.packets.tracking import begins_flow
from lamina_vswitch.domain.nat.servers.balancer import Balancer
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.network.router.explain import Translation
from lamina_vswitch.domain.switch.trace import Step

_NAMES = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP"}


def explain(
    table: Table,
    balancer: Balancer,
    gateway: SocketGateway | None,
    router: Container[int],
    packet: bytes,
    now_ns: int,
) -> Translation | None:
    """Tell what becomes of a packet of the network; `router` has the router's addresses. None: it is not translated."""
    dst = int.from_bytes(packet[16:20], "big")
    view = read(packet)
    if balancer.answers_for(dst):
        return _drop(view) if isinstance(view, DropReason) else _to_server(table, balancer, packet, view, now_ns)
    if dst in router:
        return None if isinstance(view, DropReason) else _to_router(table, packet, view, now_ns)
    if gateway is None:
        return None
    return _drop(view) if isinstance(view, DropReason) else _outside(table, gateway, view, now_ns)


def _to_server(table: Table, balancer: Balancer, packet: bytes, view: View, now_ns: int) -> Translation:
    if view.kind is Kind.ERROR or view.fragmented:
        return _apart(view)
    entry = table.peek(view.key, now_ns, inside=True)
    if entry is not None:
        return _passed(entry, packet, view, inside=True)
    key = view.key
    if key.protocol not in (TCP, UDP):
        return _drop(DropReason.PROTOCOL_UNSUPPORTED)
    reason = None if begins_flow(key.protocol, view.flags) else DropReason.NAT_STATE
    reason = reason or table.would_refuse(key.src, now_ns)
    if reason is not None:
        return _drop(reason)
    server = balancer.book.servers.get((key.dst, key.protocol, key.dst_port))
    backends = [each for each in server.definition.backends if each.weight] if server is not None else []
    if not backends:
        return _drop(DropReason.NO_BACKEND, _place((key.dst, key.dst_port)))
    named = ", ".join(f"{_place(each.endpoint)} (weight {each.weight})" for each in backends)
    detail = f"would get an entry, a free port of {format_address(balancer.gateway)}, and one of the backends {named}"
    return _end("new_entry", f"{_new(view)} {detail}")


def _to_router(table: Table, packet: bytes, view: View, now_ns: int) -> Translation | None:
    """Tell of a packet to the router's address: of a backend, or of what came through a forwarded port."""
    if view.kind is not Kind.FLOW or view.fragmented:
        return None
    answer = table.peek(view.key, now_ns, inside=False)
    if answer is not None:
        return _passed(answer, packet, view, inside=False)
    forwarded = table.peek(view.key, now_ns, inside=True)
    return _to_socket(forwarded, view) if forwarded is not None else None


def _outside(table: Table, gateway: SocketGateway, view: View, now_ns: int) -> Translation:
    if view.kind is Kind.ERROR or view.fragmented:
        return _apart(view)
    key = view.key
    entry = table.peek(key, now_ns, inside=True)
    if entry is not None:
        return _to_socket(entry, view)
    reason = None if begins_flow(key.protocol, view.flags) else DropReason.NAT_STATE
    reason = reason or table.would_refuse(key.src, now_ns)
    if reason is not None:
        return _drop(reason)
    peer = gateway.reach.peer((key.dst, key.dst_port))
    if peer is None:
        return _drop(DropReason.NAT_DESTINATION_FORBIDDEN, _place((key.dst, key.dst_port)))
    return _end("new_entry", f"{_new(view)} would get an entry, and a socket of this machine to {_place(peer)}")


def _passed(entry: Entry, packet: bytes, view: View, *, inside: bool) -> Translation:
    step = _entry(entry)
    if not _fits(entry, view, inside=inside):
        return Translation((step, *_drop(DropReason.NAT_STATE).steps), DropReason.NAT_STATE)
    to = entry.outer.reversed() if inside else entry.inner.reversed()
    source, target = _place((to.src, to.src_port)), _place((to.dst, to.dst_port))
    rewritten = Step("nat", "nat.rewritten", f"goes on from {source} to {target}")
    return Translation((step, rewritten), packet=rewrite(packet, view, to))


def _to_socket(entry: Entry, view: View) -> Translation:
    step = _entry(entry)
    if not _fits(entry, view, inside=True):
        return Translation((step, *_drop(DropReason.NAT_STATE).steps), DropReason.NAT_STATE)
    return Translation((step, Step("nat", "nat.socket", f"ends in the flow's socket, to {_place(entry.peer)}")))


def _fits(entry: Entry, view: View, *, inside: bool) -> bool:
    return copy.copy(entry.track).follow(view.flags, inside=inside)


def _new(view: View) -> str:
    return f"a new {_NAMES[view.key.protocol]} flow from {_place((view.key.src, view.key.src_port))}"


def _entry(entry: Entry) -> Step:
    name, state = _NAMES[entry.protocol], entry.track.state.name
    detail = f"{name} flow {_place(entry.inside)} to {_place(entry.dialled)}, {state}, outside {_place(entry.outside)}"
    return Step("nat", "nat.entry", detail)


def _apart(view: View) -> Translation:
    if view.kind is Kind.ERROR:
        return _end("error", "is an ICMP error, and goes with the flow that it is about, if there is one")
    return _end("fragment", "is a fragment, and goes with the others of its datagram")


def _end(rule: str, detail: str) -> Translation:
    return Translation((Step("nat", f"nat.{rule}", detail),))


def _drop(reason: DropReason, detail: str = "") -> Translation:
    text = f"{EXPLANATION[reason]}: {detail}" if detail else EXPLANATION[reason]
    return Translation((Step("nat", f"nat.drop_{reason.name.lower()}", text),), reason)


def _place(endpoint: Endpoint) -> str:
    address, port = endpoint
    return f"{format_address(address)}:{port}"
