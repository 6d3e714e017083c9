"""The outside as sockets of the host: flows of the inside end here and begin again there, as slirp does.

Entries are those of the table, with the same states, times and limits; behind each is a socket. A TCP connection of the
inside ends in the gateway's own TCP (`lamina_net`), which answers in the peer's name. A forwarded port is a listening
socket; what comes through it reaches the inside from the gateway's address.
"""

from __future__ import annotations

from lamina_kit.rng import Rng
from lamina_net.ip.reassembly import Reassembly
from lamina_net.packets import icmp, ipv4
from lamina_net.packets.checksum import is_right
from lamina_net.packets.refusal import Refusal
from lamina_net.tcp.interface import IcmpKind
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry, Wanted
from lamina_vswitch.domain.nat.flows.forwards import Forward, Forwards
from lamina_vswitch.domain.nat.flows.ports import SharedPorts
from lamina_vswitch.domain.nat.flows.resets import refusal
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.outcome import IcmpError, Outcome, dropped
from lamina_vswitch.domain.nat.packets.packet import RST, SYN, TCP, UDP, FlowKey, Kind, View, read, read_quoted
from lamina_vswitch.domain.nat.packets.tracking import begins_flow
from lamina_vswitch.domain.nat.sockets.datagrams import EchoFlow, Flow, ForwardedDatagrams, UdpFlow
from lamina_vswitch.domain.nat.sockets.failures import FAILURES
from lamina_vswitch.domain.nat.sockets.host import Host, HostError, HostPort, HostStream
from lamina_vswitch.domain.nat.sockets.inside_tcp import InsideTcp
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.nat.sockets.splice import Splice

_KINDS = {
    icmp.NET_UNREACHABLE: IcmpKind.NETWORK_UNREACHABLE,
    icmp.HOST_UNREACHABLE: IcmpKind.HOST_UNREACHABLE,
    icmp.PROTOCOL_UNREACHABLE: IcmpKind.PORT_UNREACHABLE,
    icmp.PORT_UNREACHABLE: IcmpKind.PORT_UNREACHABLE,
    icmp.FRAGMENTATION_NEEDED: IcmpKind.TOO_BIG,
}
_ICMP_HEADER_BYTES = 8


class SocketGateway:
    """The gateway of one network. `address` is that of its router, `mtu` the largest packet of its VLAN.

    Packets to the inside gather in `inside.sent`, from where `take` takes them.
    """

    def __init__(
        self, address: int, mtu: int, table: Table, ports: SharedPorts, forwards: Forwards, host: Host, reach: Reach,
        rng: Rng,
    ) -> None:  # fmt: skip
        self.address, self.reach = address, reach
        self._table, self._ports, self._forwards, self._host = table, ports, forwards, host
        self._reassembly = Reassembly()
        self._flows: dict[int, Flow] = {}
        self.inside = InsideTcp(address, mtu, table, self._flows, rng.bytes(16))
        self._host_ports: dict[str, HostPort] = {}
        self._now_ns = 0

    # Packets of the inside

    def leaving(self, packet: bytes, now_ns: int) -> Outcome:
        """Take a packet for the outside; `Outcome.inside` are packets back to the inside."""
        whole = self._whole(packet, now_ns)
        if isinstance(whole, Outcome):
            return whole
        return self._taken(whole, now_ns, own=False)

    def to_gateway(self, packet: bytes, now_ns: int) -> Outcome:
        """Take a packet to the gateway's address; `Outcome.own` is of no flow, and for the router itself."""
        return self._taken(packet, now_ns, own=True)

    def resize(self, mtu: int) -> None:
        """Take another MTU of the VLAN, for connections that begin from now on."""
        self.inside.mtu = mtu

    def take(self) -> tuple[bytes, ...]:
        """Return the packets to the inside that have gathered."""
        sent, self.inside.sent = tuple(self.inside.sent), []
        return sent

    def unfinished(self, packet: bytes, segment_bytes: int, now_ns: int) -> tuple[bytes, ...] | None:
        """Take a TCP packet of a guest that leaves its sum to its device, and cutting, into `segment_bytes` each.

        None: it belongs to no connection that is made, and has to be finished first. Its IPv4 header is looked at.
        """
        view = read(packet)
        if isinstance(view, DropReason) or view.kind is not Kind.FLOW or view.key.protocol != TCP or view.fragmented:
            return None
        entry = self._table.from_inside(view.key, now_ns)
        flow = self._flows.get(entry.number) if entry is not None else None
        if entry is None or not isinstance(flow, Splice) or flow.handle is None or view.flags & (SYN | RST):
            return None
        if packet[8] <= 1 or not is_right(packet[: view.header]):
            return None
        self._now_ns = now_ns
        if not self._table.pass_through(entry, packet, view, inside=True, now_ns=now_ns):
            return None
        entry.sent.count_pieces(packet, view, segment_bytes)
        self.inside.segment_came(packet, view, now_ns, verify=False)
        self.settle(now_ns)
        return self.take()

    def _whole(self, packet: bytes, now_ns: int) -> bytes | Outcome:
        """Return the packet, put together if it came in fragments, or what becomes of it before."""
        parsed = ipv4.parse(packet)
        if isinstance(parsed, Refusal):
            return dropped(DropReason.IP_MALFORMED, packet)
        if not parsed.is_fragment:
            return packet
        joined = self._reassembly.add(parsed, now_ns)
        if joined is None:
            return Outcome()
        if isinstance(joined, Refusal):
            overlaps = joined is Refusal.OVERLAP
            return dropped(DropReason.FRAGMENT_OVERLAP if overlaps else DropReason.FRAGMENT_TIMEOUT, packet)
        return ipv4.build(joined)

    def _taken(self, packet: bytes, now_ns: int, *, own: bool) -> Outcome:
        self._now_ns = now_ns
        view = read(packet)
        if isinstance(view, DropReason):
            return Outcome(own=(packet,)) if own else dropped(view, packet)
        if view.kind is Kind.ERROR:
            return self._error(packet, view, now_ns, own=own)
        entry = self._table.from_inside(view.key, now_ns)
        if entry is not None and self._begins_again(entry, view):
            self._table.remove(entry)
            entry = None
        if entry is None:
            begun = Outcome(own=(packet,)) if own else self._begin(packet, view, now_ns)
            if isinstance(begun, Outcome):
                return begun._replace(inside=begun.inside + self.take())
            entry = begun
        if not self._table.pass_through(entry, packet, view, inside=True, now_ns=now_ns):
            return dropped(DropReason.NAT_STATE, packet)
        reason = self._flows[entry.number].from_inside(packet, view, now_ns)
        self.settle(now_ns)
        return Outcome(inside=self.take(), drops=((reason, packet),) if reason else ())

    def _begins_again(self, entry: Entry, view: View) -> bool:
        """Tell whether a SYN is of a new connection in place of one that is over."""
        flow = self._flows[entry.number]
        return isinstance(flow, Splice) and flow.over and begins_flow(TCP, view.flags) and entry.via is None

    def _begin(self, packet: bytes, view: View, now_ns: int) -> Entry | Outcome:
        """Open a socket for a flow, and make its entry."""
        key = view.key
        if not begins_flow(key.protocol, view.flags):
            answer = refusal(packet, view) if key.protocol == TCP else None
            return Outcome(inside=(answer,) if answer else (), drops=((DropReason.NAT_STATE, packet),))
        reason = self._table.refusal(key.src, now_ns)
        if reason is not None:
            return dropped(reason, packet)
        peer = self.reach.peer((key.dst, key.dst_port))
        if peer is None:
            error = IcmpError(icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED, packet)
            return dropped(DropReason.NAT_DESTINATION_FORBIDDEN, packet, error)
        flow = self._opened(key.protocol, peer)
        if isinstance(flow, HostError):
            reason, code = FAILURES[flow]
            return dropped(reason, packet, IcmpError(icmp.UNREACHABLE, code, packet))
        inside, dialled = (key.src, key.src_port), (key.dst, key.dst_port)
        wanted = Wanted(key.protocol, inside, dialled, flow.local, peer, by_inside=True)
        flow.entry = self._table.add(wanted, now_ns)
        self._flows[flow.entry.number] = flow
        return flow.entry

    def _opened(self, protocol: int, peer: Endpoint) -> UdpFlow | EchoFlow | Splice | HostError:
        """Return a flow to a peer with its socket, which has no entry yet."""
        if protocol == TCP:
            splice = Splice(self.inside)
            stream = self._host.stream(peer, splice)
            if not isinstance(stream, HostError):
                splice.stream = stream
                return splice
            return stream
        flow = UdpFlow(self.inside.to_inside) if protocol == UDP else EchoFlow(self.inside.to_inside)
        socket = self._host.datagrams(peer, flow) if protocol == UDP else self._host.echo(peer[0], flow)
        if isinstance(socket, HostError):
            return socket
        flow.socket = socket
        return flow

    def _error(self, packet: bytes, view: View, now_ns: int, *, own: bool) -> Outcome:
        """Take an ICMP error of the inside: about TCP it is for the gateway's TCP, about others it ends here."""
        body = packet[view.header + _ICMP_HEADER_BYTES : view.total]
        quoted = read_quoted(body)
        entry = self._table.from_inside(quoted.key.reversed(), now_ns) if quoted else None
        if quoted is None or entry is None:
            return Outcome(own=(packet,)) if own else dropped(DropReason.NAT_NO_ENTRY, packet)
        kind = _KINDS.get(packet[view.header + 1]) if packet[view.header] == icmp.UNREACHABLE else None
        if entry.protocol == TCP and kind is not None:
            mtu = int.from_bytes(packet[view.header + 6 : view.header + 8], "big")
            self.inside.layer.icmp_error(quoted.key.src, quoted.key.dst, body[quoted.header :], kind, now_ns, mtu)
            self.settle(now_ns)
        return Outcome(inside=self.take())

    # Forwarded ports

    def open_port(self, port_forward: str, protocol: int, at: Endpoint) -> Endpoint | HostError:
        """Open the socket of a forwarded port, before the forward is added; return where it is."""

        def accepted(stream: HostStream, peer: Endpoint, now_ns: int) -> Splice | None:
            return self._accepted(port_forward, stream, peer, now_ns)

        def arrived(data: bytes, peer: Endpoint, now_ns: int) -> None:
            self._arrived(port_forward, data, peer, now_ns)

        port = self._host.listen(at, accepted) if protocol == TCP else self._host.receive(at, arrived)
        if isinstance(port, HostError):
            return port
        self._host_ports[port_forward] = port
        return port.local

    def close_port(self, port_forward: str) -> None:
        """Close the socket of a forwarded port; connections that came through it go on, UDP ends."""
        port = self._host_ports.pop(port_forward, None)
        if port is None:  # a start found it taken
            return
        port.close()
        for entry in self._table.find(self._now_ns, lambda each: (each.protocol, each.via) == (UDP, port.local)):
            self._table.remove(entry)

    def _accepted(self, port_forward: str, stream: HostStream, peer: Endpoint, now_ns: int) -> Splice | None:
        """Begin a connection to the inside for one that came to a forwarded port; None: there is no room for it."""
        self._now_ns = now_ns
        forward = self._forwards.of(port_forward)
        entry = self._admitted(forward, peer, now_ns) if forward else None
        if entry is None:
            return None
        splice = Splice(self.inside)
        splice.entry, splice.stream = entry, stream
        self._flows[entry.number] = splice
        if not self.inside.connect(splice, entry, now_ns):
            self._table.remove(entry)
            return None
        return splice

    def _arrived(self, port_forward: str, data: bytes, peer: Endpoint, now_ns: int) -> None:
        """Pass a datagram on that came to a forwarded port."""
        self._now_ns = now_ns
        forward, port = self._forwards.of(port_forward), self._host_ports.get(port_forward)
        if forward is None or port is None:
            return
        entry = self._table.from_outside(FlowKey(UDP, *peer, *forward.definition.outside), now_ns)
        if entry is None:
            entry = self._admitted(forward, peer, now_ns)
            if entry is None:
                return
            flow = ForwardedDatagrams(port, peer, self.inside.to_inside)
            flow.entry = entry
            self._flows[entry.number] = flow
        flow_of = self._flows[entry.number]
        if isinstance(flow_of, ForwardedDatagrams):
            flow_of.got(data, now_ns)

    def _admitted(self, forward: Forward, peer: Endpoint, now_ns: int) -> Entry | None:
        """Return a new entry for a flow through a forwarded port; None: there is no room for it."""
        wanted = forward.definition
        # A peer that comes from a port of before has ended what it had there: the machine lets no two be at a time.
        before = self._table.from_outside(FlowKey(wanted.protocol, *peer, *wanted.outside), now_ns)
        if before is not None:
            self._table.remove(before)
        if self._table.refusal(wanted.inside[0], now_ns) is not None:
            return None
        port = self._ports.take((wanted.protocol, *wanted.inside), _flow(wanted.protocol, peer, wanted.outside))
        if port is None:
            return None
        forward.flows += 1
        dialled = (self.address, port)
        return self._table.add(
            Wanted(wanted.protocol, wanted.inside, dialled, wanted.outside, peer, by_inside=False, via=wanted.outside),
            now_ns,
        )

    # Time and ends

    def settle(self, now_ns: int) -> None:
        """Send what the gateway's TCP has to send, and tell its users what happened."""
        self._now_ns = now_ns
        self.inside.settle(now_ns)

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` has to be called next, or None."""
        times = [each for each in (self.inside.layer.next_wakeup_ns, self._table.next_end_ns()) if each is not None]
        return min(times, default=None)

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        self._now_ns = now_ns
        self.inside.layer.timer(now_ns)
        self._table.sweep(now_ns)
        self.settle(now_ns)

    def ended(self, entry: Entry) -> None:
        """Close what is behind an entry that is gone; entries of others are not looked at."""
        flow = self._flows.pop(entry.number, None)
        if entry.via is not None and entry.dialled[0] == self.address:
            flow_key = _flow(entry.protocol, entry.peer, entry.outside)
            self._ports.give_back((entry.protocol, *entry.inside), flow_key)
        if flow is None:
            return
        flow.ended(self._now_ns)
        if isinstance(flow, Splice):
            self.inside.forget(flow)


def _flow(protocol: int, peer: Endpoint, outside: Endpoint) -> tuple[int, ...]:
    return protocol, *peer, *outside
