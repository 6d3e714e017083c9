"""Ping sockets: echo requests without privileges, as Linux's datagram sockets of ICMP are. Pure.

A user sends an echo request, header and data, and receives the replies in the same form. The identifier is the
socket's port, whatever the user wrote there, and the checksum is made.

Source: Linux, icmp(7), net/ipv4/ping.c.
"""

from __future__ import annotations

from lamina_net.ip.internet import Delivery
from lamina_net.packets import icmp, ipv4
from lamina_net.packets.icmp import Message
from lamina_net.sockets.datagrams import DatagramLayer, DatagramSocket
from lamina_net.tcp.interface import Endpoint, Errno, Handle, Refused

_MAX_BYTES = ipv4.MAX_PACKET_BYTES - ipv4.HEADER_BYTES


class PingLayer(DatagramLayer):
    """All ping sockets of a host."""

    protocol = ipv4.ICMP

    def receive(self, delivery: Delivery, message: Message) -> bool:
        """Take an echo reply. False: no socket waits for it."""
        packet = delivery.packet
        return self.deliver(
            message.identifier,
            Endpoint(packet.src, 0),
            packet.dst,
            icmp.build(message),
            delivery.interface.name,
            delivery.to_group,
        )

    def connect(self, handle: Handle, remote: Endpoint, now_ns: int) -> Refused | None:
        """Name the peer; its port does not matter. As the other sockets' otherwise."""
        return super().connect(handle, Endpoint(remote.address, 0), now_ns)

    def _encode(self, socket: DatagramSocket, src: int, to: Endpoint, data: bytes) -> bytes | Refused:
        if len(data) > _MAX_BYTES:
            return Refused(Errno.MSGSIZE)
        if len(data) < icmp.HEADER_BYTES or data[:2] != bytes((icmp.ECHO_REQUEST, 0)):
            return Refused(Errno.INVAL)
        rest = socket.local.port << 16 | data[6] << 8 | data[7]
        return icmp.build(Message(icmp.ECHO_REQUEST, 0, rest, data[icmp.HEADER_BYTES :]))

    def _is_peer(self, socket: DatagramSocket, remote: Endpoint) -> bool:
        return socket.remote is not None and socket.remote.address == remote.address
