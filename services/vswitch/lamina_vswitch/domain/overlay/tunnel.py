"""The tunnels of one address on the network below: overlay ends by UDP port and VNI over IPv4, ARP and Ethernet.

All ends with the same address at an uplink are behind one `Tunnel`, as they are one host to the network below. It holds
no time and does no I/O: frames of that network go in and come out.

Outgoing packets are those of Linux's vxlan device: time to live 64, not marked as not to be fragmented, no UDP
checksum. Nobody here fragments them: the network below carries 50 bytes more than the VLAN (RFC 7348, 4.3). Fragments
that come in are dropped, as the same section allows; reassembly would let strangers fill memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lamina_net import arp, ethernet, icmp, ipv4, udp
from lamina_net.address import BROADCAST_MAC, Subnet, is_unicast
from lamina_net.neighbours import Neighbour
from lamina_net.refusal import Refusal
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.frame import is_station
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.end import Dropped, OverlayEnd
from lamina_vswitch.domain.router.neighbourhood import Neighbourhood

_UDP = struct.Struct("!HHHH")


class Way(NamedTuple):
    """How an end reaches others: the subnet of its address, the router to others (0: none), the UDP port of all."""

    subnet: Subnet
    gateway: int = 0
    udp_port: int = vxlan.PORT


@dataclass(slots=True)
class TunnelledEnd:
    """An end with its way; `deliver` puts a frame into its VLAN."""

    end: OverlayEnd
    way: Way
    deliver: Callable[[bytes], None]


class Tunnel:
    """Overlay ends at one MAC and IPv4 address. `dropped` gets frames of the network below that go nowhere."""

    def __init__(self, mac: bytes, address: int, dropped: Dropped) -> None:
        self.mac = mac
        self.address = address
        self._ends: dict[tuple[int, int], TunnelledEnd] = {}
        self._dropped = dropped
        self._neighbours = Neighbourhood(mac, self._unreachable)
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
        payload, source = vxlan.build(sender.end.vni, frame), vxlan.source_port(frame)
        datagram = _UDP.pack(source, sender.way.udp_port, udp.HEADER_BYTES + len(payload), 0) + payload
        frames: list[bytes] = []
        for address in chosen:
            frames += self._to(address, datagram, sender, frame, now_ns)
        return frames

    def _to(self, address: int, datagram: bytes, sender: TunnelledEnd, frame: bytes, now_ns: int) -> list[bytes]:
        hop = address if address in sender.way.subnet else sender.way.gateway
        if not hop:
            sender.end.dropped(DropReason.NO_ROUTE, frame, now_ns)
            return []
        self._identification = self._identification % 65535 + 1
        packet = ipv4.Packet(self.address, address, ipv4.UDP, datagram, identification=self._identification)
        return self._neighbours.send(hop, ipv4.build(packet), self.address, now_ns)

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
        parsed = ethernet.parse(frame)
        if isinstance(parsed, Refusal) or parsed.tci is not None or parsed.dst not in (self.mac, BROADCAST_MAC):
            return []  # flooded, and for somebody else
        if parsed.ethertype == ethernet.ARP:
            return self._resolve(parsed.payload, now_ns)
        if parsed.ethertype != ethernet.IPV4 or parsed.dst != self.mac:
            return []
        packet = ipv4.parse(parsed.payload)
        if isinstance(packet, Refusal):
            bad_sum = packet is Refusal.CHECKSUM
            self._dropped(DropReason.CHECKSUM_BAD if bad_sum else DropReason.IP_MALFORMED, frame, now_ns)
            return []
        return self._packet(parsed.src, packet, frame, now_ns) if packet.dst == self.address else []

    def _resolve(self, payload: bytes, now_ns: int) -> list[bytes]:
        packet = arp.parse(payload)
        if isinstance(packet, Refusal):
            return []
        if packet.sender == self.address:
            return []  # somebody has our address; whom we asked keeps to what he answered
        to_us = packet.target == self.address
        answers: list[bytes] = []
        if any(packet.sender in each.way.subnet for each in self._ends.values()):
            answers += self._neighbours.heard(packet, to_us, now_ns)
        if to_us and packet.operation == arp.REQUEST:
            reply = arp.reply_to(packet, self.mac)
            answers.append(ethernet.build(packet.sender_mac, self.mac, ethernet.ARP, reply))
        return answers

    def _packet(self, mac: bytes, packet: ipv4.Packet, frame: bytes, now_ns: int) -> list[bytes]:
        if packet.protocol == ipv4.ICMP and not packet.is_fragment:
            return self._echo(mac, packet)
        if packet.protocol != ipv4.UDP:
            self._dropped(DropReason.PROTOCOL_UNSUPPORTED, frame, now_ns)
            return []
        if packet.is_fragment:
            self._dropped(DropReason.TUNNEL_MALFORMED, frame, now_ns)
            return []
        datagram = udp.parse(packet.src, packet.dst, packet.payload)
        if isinstance(datagram, Refusal):
            bad_sum = datagram is Refusal.CHECKSUM
            self._dropped(DropReason.CHECKSUM_BAD if bad_sum else DropReason.TUNNEL_MALFORMED, frame, now_ns)
        elif all(each.way.udp_port != datagram.destination_port for each in self._ends.values()):
            self._dropped(DropReason.PROTOCOL_UNSUPPORTED, frame, now_ns)
        else:
            self._tunnelled(packet.src, datagram, frame, now_ns)
        return []

    def _tunnelled(self, address: int, datagram: udp.Datagram, frame: bytes, now_ns: int) -> None:
        carried = vxlan.parse(datagram.payload)
        if isinstance(carried, Refusal):
            self._dropped(DropReason.TUNNEL_MALFORMED, frame, now_ns)
            return
        receiver = self._ends.get((datagram.destination_port, carried.vni))
        if receiver is None:
            self._dropped(DropReason.TUNNEL_VNI_UNKNOWN, frame, now_ns)
        elif not is_unicast(address) or address == self.address:
            receiver.end.dropped(DropReason.TUNNEL_PEER_UNKNOWN, carried.frame, now_ns)
        else:
            inside = receiver.end.inwards(address, carried.frame, now_ns)
            if inside is not None:
                receiver.deliver(inside)

    def _echo(self, mac: bytes, packet: ipv4.Packet) -> list[bytes]:
        """Answer a ping, by which people find out whether a tunnel's other host is there."""
        message = icmp.parse(packet.payload)
        if isinstance(message, Refusal) or message.type != icmp.ECHO_REQUEST:
            return []
        if not is_unicast(packet.src) or not is_station(mac):
            return []
        answer = icmp.build(icmp.echo_reply(message))
        back = ipv4.build(ipv4.Packet(self.address, packet.src, ipv4.ICMP, answer))
        return [ethernet.build(mac, self.mac, ethernet.IPV4, back)]
