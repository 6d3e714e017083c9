"""DHCP and DNS as services of a router: datagrams to frames."""

from __future__ import annotations

from collections.abc import Callable

from lamina_net.packets import udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.network.dhcp import message as dhcp
from lamina_vswitch.domain.network.dhcp.server import DhcpServer
from lamina_vswitch.domain.network.dns import message as dns
from lamina_vswitch.domain.network.dns.responder import Responder
from lamina_vswitch.domain.network.router.dns_stream import Say
from lamina_vswitch.domain.network.router.hooks import Arrival, Dropped
from lamina_vswitch.domain.network.router.router import Router

_STREAM_BYTES = 65535

PortOf = Callable[[bytes, int], str]
"""Returns the id of the port behind which a MAC address is at a time; empty when the switch does not know it."""
Answered = Callable[[bytes, int], list[bytes]]
"""Takes the answer of another server, at a time; returns the frames that tell it."""
AskUpstream = Callable[[bytes, Answered], None]
"""Passes a question on to another server."""


class DhcpService:
    """The DHCP server of a router."""

    def __init__(self, router: Router, server: DhcpServer, port_of: PortOf, dropped: Dropped) -> None:
        self._router = router
        self._server = server
        self._port_of = port_of
        self._dropped = dropped

    def receive(self, arrival: Arrival, frame: bytes, now_ns: int) -> list[bytes]:
        """Answer a message. Raises what the keeper of the leases raises, and then answers nothing."""
        message = dhcp.parse(arrival.datagram.payload)
        if isinstance(message, Refusal):
            return []
        answer = self._server.receive(message, arrival.mac, self._port_of(arrival.mac, now_ns), now_ns)
        if answer.exhausted:
            self._dropped(DropReason.DHCP_EXHAUSTED, frame, now_ns)
        if answer.reply is None:
            return []
        mac, to = _where(answer.reply)
        datagram = udp.Datagram(dhcp.SERVER_PORT, dhcp.CLIENT_PORT, dhcp.build(answer.reply))
        return self._router.broadcast(self._router.addresses[0], mac, to, datagram)


def _where(reply: dhcp.Message) -> tuple[bytes, int]:
    """Return MAC and IP address that a reply goes to. Source: RFC 2131, 4.1."""
    if reply.kind is dhcp.Kind.NAK:
        return BROADCAST_MAC, BROADCAST
    if reply.client:
        return reply.mac, reply.client
    if reply.flags & dhcp.BROADCAST_FLAG:
        return BROADCAST_MAC, BROADCAST
    return reply.mac, reply.yours


class DnsService:
    """The DNS responder of a router, over UDP, and over TCP where the router has a stream."""

    def __init__(self, router: Router, responder: Responder, ask_upstream: AskUpstream) -> None:
        self._router = router
        self._responder = responder
        self._ask_upstream = ask_upstream

    def receive(self, arrival: Arrival, frame: bytes, now_ns: int) -> list[bytes]:
        """Answer a question that came in a datagram, or pass it on."""
        if arrival.packet.dst not in self._router.addresses:
            return []

        def told(answer: bytes, now_ns: int) -> list[bytes]:
            datagram = udp.Datagram(dns.PORT, arrival.datagram.source_port, answer)
            return self._router.datagram(arrival.packet.dst, arrival.packet.src, datagram, now_ns)

        answer = self._answer(arrival.datagram.payload, None, now_ns)
        if answer is not None:
            return told(answer, now_ns) if answer else []
        self._ask_upstream(arrival.datagram.payload, told)
        return []

    def answer(self, question: bytes, now_ns: int, say: Say) -> bytes | None:
        """Answer a question of a stream, or pass it on and have the answer said later."""
        answer = self._answer(question, _STREAM_BYTES, now_ns)
        if answer is None:
            self._ask_upstream(question, lambda told, then_ns: self._router.segments(say(told, then_ns), then_ns))
        return answer

    def _answer(self, question: bytes, limit: int | None, now_ns: int) -> bytes | None:
        """Return the answer, empty for what is no question, None when another server has to be asked."""
        query = dns.parse(question)
        if isinstance(query, Refusal):
            return b""
        if isinstance(query, dns.Code):
            return dns.failure(question, query)
        reply = self._responder.answer(query, now_ns)
        return dns.build(query, reply, limit or query.size) if reply is not None else None
