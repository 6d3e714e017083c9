"""A flow of datagrams through a host socket: UDP, or ICMP echo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lamina_net.packets import icmp, ipv4, udp
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.packets.packet import View
from lamina_vswitch.domain.nat.sockets.host import HostDatagrams, HostError, HostPort

ToInside = Callable[[Entry, bytes, int], None]
"""Takes a packet of an entry to its inside, with the time."""


class Flow(Protocol):
    """What stands behind an entry of a gateway."""

    def from_inside(self, packet: bytes, view: View, now_ns: int) -> DropReason | None:
        """Take a packet; return why it was dropped, or None."""

    def ended(self, now_ns: int) -> None:
        """End: the entry is gone."""

    @property
    def local(self) -> Endpoint:
        """Address and port of the host's socket."""


class UdpFlow:
    """UDP of one inside address and port to one peer. `entry` and `socket` are set before anything happens."""

    entry: Entry
    socket: HostDatagrams

    def __init__(self, to_inside: ToInside) -> None:
        self._to_inside = to_inside
        self._last = b""

    def from_inside(self, packet: bytes, view: View, now_ns: int) -> DropReason | None:
        """Send the payload of a packet."""
        datagram = udp.parse(view.key.src, view.key.dst, packet[view.header : view.total])
        if isinstance(datagram, Refusal):
            return DropReason.CHECKSUM_BAD if datagram is Refusal.CHECKSUM else DropReason.IP_MALFORMED
        self._last = packet[: view.total]
        self.socket.send(datagram.payload)
        return None

    def got(self, data: bytes, now_ns: int) -> None:
        """Pass a datagram of the peer on."""
        datagram = udp.Datagram(self.entry.dialled[1], self.entry.inside[1], data)
        body = udp.build(self.entry.dialled[0], self.entry.inside[0], datagram)
        self._to_inside(self.entry, packet_to_inside(self.entry, ipv4.UDP, body), now_ns)

    def failed(self, error: HostError, now_ns: int) -> None:
        """Tell the inside, in the peer's name, that its last datagram found nobody."""
        if self._last:
            code = icmp.PORT_UNREACHABLE if error is HostError.REFUSED else icmp.HOST_UNREACHABLE
            message = icmp.build(icmp.error(icmp.UNREACHABLE, code, self._last))
            self._to_inside(self.entry, packet_to_inside(self.entry, ipv4.ICMP, message), now_ns)

    def ended(self, now_ns: int) -> None:
        """Close the socket."""
        self.socket.close()

    @property
    def local(self) -> Endpoint:
        """Address and port of the host's socket."""
        return self.socket.local


class EchoFlow:
    """ICMP echo of one inside address and identifier to one address."""

    entry: Entry
    socket: HostDatagrams

    def __init__(self, to_inside: ToInside) -> None:
        self._to_inside = to_inside

    def from_inside(self, packet: bytes, view: View, now_ns: int) -> DropReason | None:
        """Send an echo request; the machine writes its own identifier."""
        message = icmp.parse(packet[view.header : view.total])
        if isinstance(message, Refusal):
            return DropReason.CHECKSUM_BAD if message is Refusal.CHECKSUM else DropReason.IP_MALFORMED
        self.socket.send(icmp.build(message))
        return None

    def got(self, data: bytes, now_ns: int) -> None:
        """Pass an echo reply on, with the identifier of the inside."""
        message = icmp.parse(data)
        if isinstance(message, Refusal) or message.type != icmp.ECHO_REPLY:
            return
        reply = message._replace(rest=self.entry.inside[1] << 16 | message.sequence)
        self._to_inside(self.entry, packet_to_inside(self.entry, ipv4.ICMP, icmp.build(reply)), now_ns)

    def failed(self, error: HostError, now_ns: int) -> None:
        """Nothing: an echo that does not come back says enough."""

    def ended(self, now_ns: int) -> None:
        """Close the socket."""
        self.socket.close()

    @property
    def local(self) -> Endpoint:
        """Address and port of the host's socket."""
        return self.socket.local


class ForwardedDatagrams:
    """UDP of one peer through a forwarded port; `entry` is set before anything happens."""

    entry: Entry

    def __init__(self, port: HostPort, peer: Endpoint, to_inside: ToInside) -> None:
        self._port, self._peer, self._to_inside = port, peer, to_inside

    def from_inside(self, packet: bytes, view: View, now_ns: int) -> DropReason | None:
        """Send the payload of a packet to the peer, from the forwarded port."""
        datagram = udp.parse(view.key.src, view.key.dst, packet[view.header : view.total])
        if isinstance(datagram, Refusal):
            return DropReason.CHECKSUM_BAD if datagram is Refusal.CHECKSUM else DropReason.IP_MALFORMED
        self._port.send(datagram.payload, self._peer)
        return None

    def got(self, data: bytes, now_ns: int) -> None:
        """Pass a datagram of the peer on."""
        datagram = udp.Datagram(self.entry.dialled[1], self.entry.inside[1], data)
        body = udp.build(self.entry.dialled[0], self.entry.inside[0], datagram)
        self._to_inside(self.entry, packet_to_inside(self.entry, ipv4.UDP, body), now_ns)

    def ended(self, now_ns: int) -> None:
        """Nothing: the port is the forward's."""

    @property
    def local(self) -> Endpoint:
        """Address and port of the forward."""
        return self._port.local


def packet_to_inside(entry: Entry, protocol: int, payload: bytes) -> bytes:
    """Return a packet to the inside of an entry, from whom it talks to. It may be fragmented."""
    return ipv4.build(ipv4.Packet(entry.dialled[0], entry.inside[0], protocol, payload))
