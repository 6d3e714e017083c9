"""The tunnels of one address on the network below: overlay ends by UDP port and VNI over IPv4, ARP and Ethernet.

All ends with the same address at an uplink are behind one `Tunnel`, as they are one host to the network below. It holds
no time and does no I/O: frames of that network go in and come out.

Outgoing packets are those of Linux's vxlan device: time to live 64, not marked as not to be fragmented, no UDP
checksum. Nobody here fragments them: the network below carries 50 bytes more than the VLAN (RFC 7348, 4.3). Fragments
that come in are dropped, as the same section allows; reassembly would let strangers fill memory.
"""

from __future__ import annotations

import struct

from lamina_net.ip.neighbours import Neighbour
from lamina_net.packets import arp, ethernet, ipv4, udp
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.network.router.neighbours import Neighbours
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.arrival import Arrival, read
from lamina_vswitch.domain.overlay.end import Dropped, TunnelledEnd, Way

_UDP = struct.Struct("!HHHH")


class Tunnel:
    """Overlay ends at one MAC and IPv4 address. `dropped` gets frames of the network below that go nowhere."""

    def __init__(self, mac: bytes, address: int, dropped: Dropped) -> None:
        self.mac = mac
        self.address = address
        self._ends: dict[tuple[int, int], TunnelledEnd] = {}
        self._dropped = dropped
        self._neighbours = Neighbours(mac, self._unreachable)
        self._identification = 0

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` is due, or None while nobody is asked for an address."""
        return self._neighbours.next_wakeup_ns

    @property
    def is_unused(self) -> bool:
        """Whether no end is here."""
        return not self._ends

    def tick(self, now_ns: int) -> list[bytes]:
        """Ask again for neighbours, or give them up; return the frames to send."""
        return self._neighbours.tick(now_ns)

    def neighbours(self, now_ns: int) -> list[Neighbour]:
        """Return the neighbours on the network below, ordered by address."""
        return self._neighbours.neighbours(now_ns)

    def has(self, udp_port: int, vni: int) -> bool:
        """Tell whether an end has this port and VNI."""
        return (udp_port, vni) in self._ends

    def join(self, end: TunnelledEnd) -> None:
        """Let an end send and receive; no other has its port and VNI."""
        self._ends[end.way.udp_port, end.end.vni] = end

    def leave(self, end: TunnelledEnd) -> None:
        """Let an end send and receive no more."""
        del self._ends[end.way.udp_port, end.end.vni]

    # The way out

    def send(self, sender: TunnelledEnd, frame: bytes, now_ns: int) -> list[bytes]:
        """Return what to send into the network below for a frame of an end's VLAN, which is untagged and finished."""
        chosen = sender.end.outwards(frame, now_ns)
        if not chosen:
            return []
        datagram = datagram_of(sender, frame)
        frames: list[bytes] = []
        for address in chosen:
            frames += self._to(address, datagram, sender, frame, now_ns)
        return frames

    def _to(self, address: int, datagram: bytes, sender: TunnelledEnd, frame: bytes, now_ns: int) -> list[bytes]:
        hop = hop_to(address, sender.way)
        if not hop:
            sender.end.dropped(DropReason.NO_ROUTE, frame, now_ns)
            return []
        self._identification = self.next_identification
        data = self.packet(address, datagram, self._identification)
        return self._neighbours.send(hop, data, self.address, now_ns)

    @property
    def next_identification(self) -> int:
        """The number of the next packet, 1 to 65535."""
        return self._identification % 65535 + 1

    def packet(self, address: int, datagram: bytes, identification: int) -> bytes:
        """Return the packet that takes a datagram to an end."""
        packet = ipv4.Packet(self.address, address, ipv4.UDP, datagram, identification=identification)
        return ipv4.build(packet)

    def _unreachable(self, data: bytes, now_ns: int) -> list[bytes]:
        """Count a tunnel packet whose next hop does not answer where its frame came from."""
        udp_port = int.from_bytes(data[ipv4.HEADER_BYTES + 2 : ipv4.HEADER_BYTES + 4], "big")
        inner = vxlan.parse(data[ipv4.HEADER_BYTES + udp.HEADER_BYTES :])
        assert not isinstance(inner, Refusal), "a tunnel waits for neighbours with what it built alone"
        sender = self._ends.get((udp_port, inner.vni))
        if sender is not None:  # else it left while its packet waited
            sender.end.dropped(DropReason.NEIGHBOR_UNREACHABLE, inner.frame, now_ns)
        return []

    # The way in

    def receive(self, frame: bytes, now_ns: int) -> list[bytes]:
        """Take a frame of the network below; return the answers to send there. What it carries goes into its VLAN."""
        arrival = self.read(frame)
        if arrival.resolution is not None:
            return self._resolve(arrival.resolution, now_ns)
        if arrival.drop is not None and arrival.end is None:
            self._dropped(arrival.drop, frame, now_ns)
        elif arrival.drop is not None and arrival.end is not None:
            arrival.end.end.dropped(arrival.drop, arrival.frame, now_ns)
        elif arrival.end is not None:
            inside = arrival.end.end.inwards(arrival.address, arrival.frame, now_ns)
            if inside is not None:
                arrival.end.deliver(inside)
        return [arrival.answer] if arrival.answer else []

    def read(self, frame: bytes) -> Arrival:
        """Return what a frame of the network below is to this tunnel. Changes nothing."""
        return read(self.mac, self.address, self._ends, frame)

    def _resolve(self, packet: arp.ArpPacket, now_ns: int) -> list[bytes]:
        to_us = packet.target == self.address
        answers: list[bytes] = []
        if any(packet.sender in each.way.subnet for each in self._ends.values()):
            answers += self._neighbours.heard(packet, to_us, now_ns)
        if to_us and packet.operation == arp.REQUEST:
            reply = arp.reply_to(packet, self.mac)
            answers.append(ethernet.build(packet.sender_mac, self.mac, ethernet.ARP, reply))
        return answers


def hop_to(address: int, way: Way) -> int:
    """Return the next hop to an end: itself, or the router; 0 when there is no way."""
    return address if address in way.subnet else way.gateway


def datagram_of(sender: TunnelledEnd, frame: bytes) -> bytes:
    """Return the UDP datagram, without checksum, that carries a frame."""
    payload, source = vxlan.build(sender.end.vni, frame), vxlan.source_port(frame)
    return _UDP.pack(source, sender.way.udp_port, udp.HEADER_BYTES + len(payload), 0) + payload
