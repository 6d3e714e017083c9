"""UDP: datagrams to sockets and back. Pure. Source: RFC 768; RFC 1122, 4.1."""

from __future__ import annotations

from lamina_kit.rng import Rng
from lamina_net.ip.internet import Delivery, Internet
from lamina_net.packets import ipv4, udp
from lamina_net.packets.refusal import Refusal
from lamina_net.sockets.datagrams import DatagramLayer, DatagramSocket
from lamina_net.tcp.interface import Endpoint, Errno, Event, Refused


class UdpLayer(DatagramLayer):
    """All UDP sockets of a host. `refused` counts what could not be parsed, by its reason."""

    protocol = ipv4.UDP

    def __init__(self, internet: Internet, rng: Rng, events: list[Event], ephemeral: range) -> None:
        super().__init__(internet, rng, events, ephemeral)
        self.refused: dict[Refusal, int] = {}

    def receive(self, delivery: Delivery) -> bool:
        """Take a packet. False: no socket has the port, so the sender may be told."""
        packet = delivery.packet
        datagram = udp.parse(packet.src, packet.dst, packet.payload)
        if isinstance(datagram, Refusal):
            self.refused[datagram] = self.refused.get(datagram, 0) + 1
            return True
        source = Endpoint(packet.src, datagram.source_port)
        name = delivery.interface.name
        return self.deliver(datagram.destination_port, source, packet.dst, datagram.payload, name, delivery.to_group)

    def _encode(self, socket: DatagramSocket, src: int, to: Endpoint, data: bytes) -> bytes | Refused:
        if not 0 < to.port <= 0xFFFF:
            return Refused(Errno.INVAL)
        if len(data) > udp.MAX_PAYLOAD_BYTES:
            return Refused(Errno.MSGSIZE)
        return udp.build(src, to.address, udp.Datagram(socket.local.port, to.port, data))
