"""Virtual servers at work: flows to their addresses go to a backend, in the name of the gateway, and back.

The gateway takes the place of the client towards the backend, so that the answers come to it even when client and
backend are neighbours in one subnet.
"""

from __future__ import annotations

from collections import Counter

from lamina_kit.rng import Rng
from lamina_net.packets import icmp
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry, Wanted
from lamina_vswitch.domain.nat.flows.ports import SharedPorts
from lamina_vswitch.domain.nat.flows.resets import both_ends, refusal
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.packets.outcome import IcmpError, Outcome, dropped
from lamina_vswitch.domain.nat.packets.packet import TCP, UDP, Kind, View, read
from lamina_vswitch.domain.nat.packets.tracking import begins_flow
from lamina_vswitch.domain.nat.servers.book import ServerBook, ServerDelta
from lamina_vswitch.domain.nat.servers.definition import Server, ServerDefinition, ServerKey


class Balancer:
    """The virtual servers of one network. `gateway` is the address of its router, `ports` the gateway's."""

    def __init__(self, gateway: int, rewriter: Rewriter, ports: SharedPorts, rng: Rng) -> None:
        self.book = ServerBook()
        self.gateway = gateway
        self._rewriter, self._table, self._ports, self._rng = rewriter, rewriter.table, ports, rng
        self._addresses: Counter[int] = Counter()

    def answers_for(self, address: int) -> bool:
        """Tell whether an address is that of a virtual server."""
        return address in self._addresses

    def restore(self, servers: list[ServerDefinition], revisions: dict[str, int]) -> None:
        """Take what a store holds; only while there are none."""
        for each in servers:
            self._set(each)
        self.book.revisions.update(revisions)

    def apply(self, delta: ServerDelta, now_ns: int, *, reset_removed: bool) -> tuple[bytes, ...]:
        """Make a change; return the resets of flows to backends that are gone, if they are wanted."""
        gone: set[tuple[ServerKey, Endpoint]] = set()
        for key in delta.removed:
            server = self.book.servers.pop(key)
            gone |= {(key, backend.endpoint) for backend in server.definition.backends}
            self._addresses[key[0]] -= 1
            if not self._addresses[key[0]]:
                del self._addresses[key[0]]
        for definition in delta.wanted:
            gone |= {(definition.key, backend) for backend in self._set(definition)}
        self.book.revisions[delta.source] = delta.revision
        return self._reset(gone, now_ns) if reset_removed and gone else ()

    def open_flows(self, now_ns: int) -> Counter[tuple[ServerKey, Endpoint]]:
        """Return how many flows are open, by server and backend."""
        return Counter((key, each.peer) for each in self._table.live(now_ns) if (key := _server_of(each)))

    def to_server(self, packet: bytes, now_ns: int) -> Outcome:
        """Translate a packet to the address of a virtual server; `Outcome.inside` goes on to the backend, or back."""
        view = read(packet)
        if isinstance(view, DropReason):
            return dropped(view, packet)
        outcome = self._rewriter.translate(packet, view, now_ns, inside=True, begin=self._begin)
        # What nobody translates here is for nobody: the address has no other owner.
        nobody = tuple((DropReason.NAT_NO_ENTRY, each) for each in outcome.own)
        return outcome._replace(own=(), drops=outcome.drops + nobody)

    def to_gateway(self, packet: bytes, now_ns: int) -> Outcome:
        """Translate a packet of a backend to the gateway; `Outcome.own` is for the router itself."""
        view = read(packet)
        if isinstance(view, DropReason):
            return Outcome(own=(packet,))
        if view.kind is Kind.FLOW and not self._ports.contains(view.key.dst_port) and not view.fragmented:
            return Outcome(own=(packet,))
        return self._rewriter.translate(packet, view, now_ns, inside=False, begin=_for_router)

    def ended(self, entry: Entry) -> None:
        """Give back what an entry had that is gone; entries of others are not looked at."""
        if _server_of(entry) is not None:
            self._ports.give_back((entry.protocol, *entry.peer), _flow(entry.protocol, entry.inside, entry.dialled))

    def _set(self, definition: ServerDefinition) -> set[Endpoint]:
        """Add or replace a server; return the backends that it had and has no more."""
        server = self.book.servers.get(definition.key)
        if server is not None:
            return server.redefine(definition)
        self.book.servers[definition.key] = Server(definition)
        self._addresses[definition.address] += 1
        return set()

    def _begin(self, view: View, packet: bytes, now_ns: int) -> Entry | Outcome:
        key = view.key
        if key.protocol not in (TCP, UDP):
            return dropped(DropReason.PROTOCOL_UNSUPPORTED, packet)
        if not begins_flow(key.protocol, view.flags):
            return dropped(DropReason.NAT_STATE, packet)
        reason = self._table.refusal(key.src, now_ns)
        if reason is not None:
            return dropped(reason, packet)
        server = self.book.servers.get((key.dst, key.protocol, key.dst_port))
        backend = server.choose(key.src, self._rng, now_ns) if server else None
        if backend is None:
            return _refused(packet, view)
        client, dialled = (key.src, key.src_port), (key.dst, key.dst_port)
        port = self._port(key.protocol, client, dialled, backend, now_ns)
        if port is None:
            return dropped(DropReason.NAT_PORTS_EXHAUSTED, packet)
        outside = (self.gateway, port)
        wanted = Wanted(key.protocol, client, dialled, outside, backend, by_inside=True, via=dialled)
        return self._table.add(wanted, now_ns)

    def _port(self, protocol: int, client: Endpoint, dialled: Endpoint, backend: Endpoint, now_ns: int) -> int | None:
        end, flow = (protocol, *backend), _flow(protocol, client, dialled)
        port = self._ports.take(end, flow)
        if port is None:
            self._table.sweep(now_ns)
            port = self._ports.take(end, flow)
        return port

    def _reset(self, gone: set[tuple[ServerKey, Endpoint]], now_ns: int) -> tuple[bytes, ...]:
        """Forget the flows to backends that are gone; return what ends those of TCP at both ends."""
        packets: list[bytes] = []
        for entry in self._table.find(now_ns, lambda each: (_server_of(each), each.peer) in gone):
            if entry.protocol == TCP:
                packets += both_ends(entry)
            self._table.remove(entry)
        return tuple(packets)


def _server_of(entry: Entry) -> ServerKey | None:
    """Return the key of the server that made an entry; None: something else did."""
    if entry.via is None or entry.via != entry.dialled:
        return None
    return entry.dialled[0], entry.protocol, entry.dialled[1]


def _flow(protocol: int, client: Endpoint, dialled: Endpoint) -> tuple[int, ...]:
    return protocol, *client, *dialled


def _refused(packet: bytes, view: View) -> Outcome:
    """Refuse a flow: a reset for TCP, port unreachable for UDP."""
    if view.key.protocol != TCP:
        error = IcmpError(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, packet)
        return dropped(DropReason.NO_BACKEND, packet, error)
    answer = refusal(packet, view)
    return Outcome(inside=(answer,) if answer else (), drops=((DropReason.NO_BACKEND, packet),))


def _for_router(view: View, packet: bytes, now_ns: int) -> Outcome:
    """Leave a packet that is of no flow to the router."""
    return Outcome(own=(packet,))
