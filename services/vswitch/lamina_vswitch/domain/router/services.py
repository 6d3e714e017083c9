"""DHCP and DNS as services of a router: datagrams to frames."""

from __future__ import annotations

from collections.abc import Callable

from lamina_net import udp
from lamina_net.address import BROADCAST, BROADCAST_MAC
from lamina_net.refusal import Refusal
from lamina_vswitch.domain.dhcp import message as dhcp
from lamina_vswitch.domain.dhcp.server import DhcpServer
from lamina_vswitch.domain.dns import message as dns
from lamina_vswitch.domain.dns.responder import Responder
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.router.hooks import Arrival, Dropped
from lamina_vswitch.domain.router.router import Router

PortOf = Callable[[bytes, int], str]
"""Returns the id of the port behind which a MAC address is at a time; empty when the switch does not know it."""
AskUpstream = Callable[[bytes, Arrival], None]
"""Passes a question on to another server; what that answers goes out through `Router.datagram`."""


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
        answer = self._server.receive(message, self._port_of(arrival.mac, now_ns), now_ns)
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
    """The DNS responder of a router, over UDP."""

    def __init__(self, router: Router, responder: Responder, ask_upstream: AskUpstream) -> None:
        self._router = router
        self._responder = responder
        self._ask_upstream = ask_upstream

    def receive(self, arrival: Arrival, frame: bytes, now_ns: int) -> list[bytes]:
        """Answer a question, or pass it on."""
        payload = arrival.datagram.payload
        query = dns.parse(payload)
        if isinstance(query, Refusal) or arrival.packet.dst not in self._router.addresses:
            return []
        if isinstance(query, dns.Code):
            return self._answer(arrival, dns.failure(payload, query), now_ns)
        reply = self._responder.answer(query, now_ns)
        if reply is None:
            self._ask_upstream(payload, arrival)
            return []
        return self._answer(arrival, dns.build(query, reply, query.size), now_ns)

    def _answer(self, arrival: Arrival, payload: bytes, now_ns: int) -> list[bytes]:
        datagram = udp.Datagram(dns.PORT, arrival.datagram.source_port, payload)
        return self._router.datagram(arrival.packet.dst, arrival.packet.src, datagram, now_ns)
