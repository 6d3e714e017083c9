"""ICMP at a host: echo requests are answered, errors sent at a bounded rate, and those that come in understood. Pure.

Source: RFC 1122, 3.2.2; RFC 1812, 4.3.2.8 for the rate; Linux, icmp_err_convert for what an error means to a socket.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_net.ip.internet import Delivery, Internet
from lamina_net.packets import icmp, ipv4
from lamina_net.packets.icmp import Message
from lamina_net.packets.ipv4 import Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.rate_limiter import RateLimiter
from lamina_net.sockets.ping import PingLayer
from lamina_net.tcp.interface import Errno, IcmpKind

_BURST = 50
_NET_CODES = (icmp.NET_UNREACHABLE, 6, 9, 11)
_PROHIBITED_CODES = (9, 10, icmp.ADMINISTRATIVELY_PROHIBITED)


class Report(NamedTuple):
    """An error about a packet that we sent: type, code, the packet, cut, and the next hop's MTU where it tells one."""

    kind: int
    code: int
    packet: Packet
    mtu: int = 0

    @property
    def errno(self) -> Errno | None:
        """What a datagram socket is told; None for what it is not."""
        if self.kind == icmp.TIME_EXCEEDED:
            return Errno.HOSTUNREACH
        if self.kind != icmp.UNREACHABLE:
            return None
        if self.code in (icmp.PROTOCOL_UNREACHABLE, icmp.PORT_UNREACHABLE):
            return Errno.CONNREFUSED
        if self.code == icmp.FRAGMENTATION_NEEDED:
            return Errno.MSGSIZE
        return Errno.NETUNREACH if self.code in _NET_CODES else Errno.HOSTUNREACH

    @property
    def is_hard(self) -> bool:
        """Whether trying again does not help."""
        hard = (icmp.PROTOCOL_UNREACHABLE, icmp.PORT_UNREACHABLE, *_PROHIBITED_CODES)
        return self.kind == icmp.UNREACHABLE and self.code in hard

    @property
    def tcp_kind(self) -> IcmpKind | None:
        """What TCP is told; None for what it is not."""
        errno = self.errno
        return None if errno is None else _TCP_KINDS[errno]


_TCP_KINDS = {
    Errno.HOSTUNREACH: IcmpKind.HOST_UNREACHABLE,
    Errno.NETUNREACH: IcmpKind.NETWORK_UNREACHABLE,
    Errno.CONNREFUSED: IcmpKind.PORT_UNREACHABLE,
    Errno.MSGSIZE: IcmpKind.TOO_BIG,
}


class IcmpLayer:
    """ICMP of a host. `refused` counts messages that could not be parsed; `suppressed` errors that the rate forbade."""

    def __init__(self, internet: Internet, ping: PingLayer, errors_per_second: int) -> None:
        self.refused: dict[Refusal, int] = {}
        self.suppressed = 0
        self._internet, self._ping = internet, ping
        self._limiter = RateLimiter(errors_per_second, min(_BURST, errors_per_second))

    def receive(self, delivery: Delivery, now_ns: int) -> Report | None:
        """Take a message: answer a request, give a reply to its socket, return an error about a packet of ours."""
        message = icmp.parse(delivery.packet.payload)
        if isinstance(message, Refusal):
            self.refused[message] = self.refused.get(message, 0) + 1
        elif message.type == icmp.ECHO_REQUEST:
            self._answer(delivery, message, now_ns)
        elif message.type == icmp.ECHO_REPLY:
            self._ping.receive(delivery, message)
        elif message.is_error:
            return self._report(message)
        return None

    def tell(self, kind: int, code: int, about: Packet, now_ns: int, *, to_group: bool = False) -> None:
        """Send an error about a packet to its source, if one may be sent about it and the rate allows."""
        if not icmp.may_be_answered(about, to_group=to_group):
            return
        if not self._limiter.take(now_ns):
            self.suppressed += 1
            return
        payload = icmp.build(icmp.error(kind, code, ipv4.build(about)))
        self._internet.send(Packet(about.dst, about.src, ipv4.ICMP, payload), now_ns)

    def _answer(self, delivery: Delivery, request: Message, now_ns: int) -> None:
        """Answer from the address that was asked; a request to a group is left alone, as it would multiply."""
        packet = delivery.packet
        if not delivery.to_group:
            payload = icmp.build(icmp.echo_reply(request))
            reply = Packet(packet.dst, packet.src, ipv4.ICMP, payload, tos=packet.tos)
            self._internet.send(reply, now_ns)

    def _report(self, message: Message) -> Report | None:
        quoted = icmp.quoted(message)
        if isinstance(quoted, Refusal):
            self.refused[quoted] = self.refused.get(quoted, 0) + 1
            return None
        if not self._internet.is_ours(quoted.src):
            return None
        is_mtu = (message.type, message.code) == (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED)
        return Report(message.type, message.code, quoted, message.next_hop_mtu if is_mtu else 0)
