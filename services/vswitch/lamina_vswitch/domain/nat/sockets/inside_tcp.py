"""The gateway's own TCP: it ends the connections of the inside in the names of their peers.

Bytes go to the inside in long packets (`lamina_net.offload.long_packets`), as long as IPv4 lets them be; whoever is on
their way cuts them where a device does not take them. Segments that come in one step are answered together.
"""

from __future__ import annotations

from lamina_net.offload.long_packets import LongPacket, long_packet
from lamina_net.packets import icmp, ipv4
from lamina_net.tcp.config import SocketOptions, TcpConfig
from lamina_net.tcp.interface import Endpoint as TcpEndpoint
from lamina_net.tcp.interface import Event, EventKind, Handle, Packet, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.resets import refusal
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.packets.packet import TCP, FlowKey, Kind, View, read
from lamina_vswitch.domain.nat.sockets.datagrams import Flow
from lamina_vswitch.domain.nat.sockets.failures import FAILURES
from lamina_vswitch.domain.nat.sockets.host import HostError
from lamina_vswitch.domain.nat.sockets.splice import Splice

_BUFFER, _MAX_BUFFER = 256 * 1024, 1024 * 1024
"""Smaller than a guest's own can be: there are many guests, and the other end is on this machine."""
_BURST = 65_160
"""Bytes of payload of a long packet: 45 segments of 1448 bytes, and below 65,535 with any headers."""
_OPTIONS = SocketOptions(nodelay=True)
"""The host's program decided already how its bytes are grouped."""


class InsideTcp:
    """TCP towards the inside of one network. `flows` are those of the gateway, by the number of their entry.

    Packets to the inside gather in `sent`. `mtu` is the largest packet of the VLAN.
    """

    def __init__(self, address: int, mtu: int, table: Table, flows: dict[int, Flow], seed: bytes) -> None:
        self.layer = TcpLayer(TcpConfig(_BUFFER, _MAX_BUFFER, max_connections=2 * table.limit, burst=_BURST), seed)
        self.sent: list[bytes] = []
        self.now_ns = 0
        self._address, self.mtu, self._table, self._flows = address, mtu, table, flows
        self._splices: dict[Handle, Splice] = {}
        self._listeners: dict[int, tuple[Handle, int]] = {}
        self._settling = self._held = False

    # Segments of the inside

    def segment_came(self, packet: bytes, view: View, now_ns: int, *, verify: bool = True) -> None:
        """Give a segment of the inside to TCP; without `verify` its sum was left to be computed by a device."""
        body = packet[view.header : view.total]
        self.layer.segment(view.key.src, view.key.dst, body, now_ns, self.mtu, verify=verify, tos=packet[1])

    def hold(self) -> None:
        """Answer what comes from now on together, at `release`."""
        self._held = True
        self.layer.hold()

    def release(self, now_ns: int) -> None:
        """Answer what has come since `hold`."""
        self._held = False
        self.layer.release(now_ns)
        self.settle(now_ns)

    # What splices need

    def accept_at(self, port: int) -> bool:
        """Take connections at a port, once more. False: TCP takes no more."""
        handle, users = self._listeners.get(port, (0, 0))
        if not users:
            opened = self.layer.listen(TcpEndpoint(0, port), options=_OPTIONS)
            if isinstance(opened, Refused):
                return False
            handle = opened
        self._listeners[port] = (handle, users + 1)
        return True

    def refuse(self, packet: bytes, view: View, error: HostError, now_ns: int) -> None:
        """Tell the inside that its SYN found nobody: a reset, or an ICMP error in the router's name."""
        entry = self._table.from_inside(view.key, now_ns)
        answer = refusal(packet, view) if error in (HostError.REFUSED, HostError.RESET) else None
        if answer is not None and entry is not None:
            self.to_inside(entry, answer, now_ns)
            return
        message = icmp.build(icmp.error(icmp.UNREACHABLE, FAILURES[error][1], packet[: view.total]))
        self.sent.append(ipv4.build(ipv4.Packet(self._address, view.key.src, ipv4.ICMP, message)))

    def settle(self, now_ns: int) -> None:
        """Send what TCP has to send, and tell its users what happened, until nothing is left; later if held."""
        self.now_ns = now_ns
        if self._settling or self._held:
            return
        self._settling = True
        try:
            while True:
                packets, events = self.layer.drain()
                if not packets and not events:
                    return
                for each in packets:
                    self._segment_to_inside(each, now_ns)
                for event in events:
                    self._happened(event, now_ns)
        finally:
            self._settling = False

    # What the gateway needs

    def connect(self, splice: Splice, entry: Entry, now_ns: int) -> bool:
        """Begin a connection to the inside of an entry, from whom it dialled. False: TCP takes no more."""
        address, port = entry.dialled
        inside = TcpEndpoint(*entry.inside)
        handle = self.layer.connect(address, inside, now_ns, self.mtu, port=port, options=_OPTIONS)
        if isinstance(handle, Refused):
            return False
        splice.handle = handle
        self._splices[handle] = splice
        self.settle(now_ns)
        return True

    def forget(self, splice: Splice) -> None:
        """Forget a splice whose entry is gone."""
        self._splices.pop(splice.handle or 0, None)
        if splice.listening:
            self._leave(splice.entry.dialled[1])

    def to_inside(self, entry: Entry, packet: bytes, now_ns: int) -> None:
        """Send a packet to the inside, and let its entry know."""
        view = read(packet)
        if isinstance(view, View) and view.kind is not Kind.ERROR:
            self._table.pass_through(entry, packet, view, inside=False, now_ns=now_ns)
            if isinstance(packet, LongPacket):
                entry.received.count_pieces(packet, view, packet.segment_bytes)
        self.sent.append(packet)

    # Inside

    def _leave(self, port: int) -> None:
        handle, users = self._listeners[port]
        if users > 1:
            self._listeners[port] = (handle, users - 1)
            return
        del self._listeners[port]
        self.layer.close(handle, self.now_ns)

    def _happened(self, event: Event, now_ns: int) -> None:
        if event.kind is EventKind.ACCEPTABLE:
            self._accept(event.handle, now_ns)
            return
        splice = self._splices.get(event.handle)
        if splice is not None:
            splice.happened(event, now_ns)

    def _accept(self, listener: Handle, now_ns: int) -> None:
        """Give each connection of the inside that is made to its splice."""
        while not isinstance(handle := self.layer.accept(listener), Refused):
            status = self.layer.status(handle)
            if isinstance(status, Refused):
                continue
            key = FlowKey(TCP, *status.remote, *status.local)
            entry = self._table.from_inside(key, now_ns)
            splice = self._flows.get(entry.number) if entry else None
            if not isinstance(splice, Splice):
                self.layer.abort(handle, now_ns)
                continue
            self._splices[handle] = splice
            splice.accepted(handle, now_ns)

    def _segment_to_inside(self, segment: Packet, now_ns: int) -> None:
        src, dst, data = segment[:3]
        packet = ipv4.build(ipv4.Packet(src, dst, ipv4.TCP, data, dont_fragment=True, tos=segment.tos))
        if segment.segment_bytes:
            packet = long_packet(packet, segment.segment_bytes)
        ports = (int.from_bytes(data[2:4], "big"), int.from_bytes(data[:2], "big"))
        entry = self._table.from_inside(FlowKey(TCP, dst, ports[0], src, ports[1]), now_ns)
        if entry is None:
            self.sent.append(packet)
        else:
            self.to_inside(entry, packet, now_ns)
