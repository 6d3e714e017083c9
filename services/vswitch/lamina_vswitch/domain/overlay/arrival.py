"""What a frame of the network below is to a tunnel. Pure: `Tunnel` does what follows, `explain` tells it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST_MAC, is_unicast
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import is_station
from lamina_vswitch.domain.overlay import vxlan
from lamina_vswitch.domain.overlay.end import TunnelledEnd

Ends = Mapping[tuple[int, int], TunnelledEnd]
"""The ends of a tunnel by UDP port and VNI."""


class Kind(enum.Enum):
    """What a frame is."""

    FOR_OTHERS = "for_others"
    ARP = "arp"
    ECHO = "echo"
    DROPPED = "dropped"
    CARRIED = "carried"


class Arrival(NamedTuple):
    """A frame that reached a tunnel.

    ARP has its packet in `resolution`; ECHO has `answer`, the frame to send back. DROPPED has a reason, and the end
    whose frame it is, or None for the tunnel itself; CARRIED has the end. Both have the frame that was carried, if any,
    and the address of the end on the other host.
    """

    kind: Kind
    resolution: arp.ArpPacket | None = None
    answer: bytes = b""
    drop: DropReason | None = None
    end: TunnelledEnd | None = None
    address: int = 0
    frame: bytes = b""


_FOR_OTHERS = Arrival(Kind.FOR_OTHERS)


def read(mac: bytes, address: int, ends: Ends, frame: bytes) -> Arrival:
    """Return what a frame is to the tunnel with these addresses and ends. Never raises."""
    parsed = ethernet.parse(frame)
    if isinstance(parsed, Refusal) or parsed.tci is not None or parsed.dst not in (mac, BROADCAST_MAC):
        return _FOR_OTHERS  # flooded, and for somebody else
    if parsed.ethertype == ethernet.ARP:
        resolution = arp.parse(parsed.payload)
        if isinstance(resolution, Refusal) or resolution.sender == address:
            return _FOR_OTHERS  # somebody has our address; whom we asked keeps to what he answered
        return Arrival(Kind.ARP, resolution=resolution)
    if parsed.ethertype != ethernet.IPV4 or parsed.dst != mac:
        return _FOR_OTHERS
    packet = ipv4.parse(parsed.payload)
    if isinstance(packet, Refusal):
        return _dropped(DropReason.CHECKSUM_BAD if packet is Refusal.CHECKSUM else DropReason.IP_MALFORMED)
    if packet.dst != address:
        return _FOR_OTHERS
    if packet.protocol == ipv4.ICMP and not packet.is_fragment:
        return _echo(mac, address, parsed.src, packet)
    if packet.protocol != ipv4.UDP:
        return _dropped(DropReason.PROTOCOL_UNSUPPORTED)
    return _dropped(DropReason.TUNNEL_MALFORMED) if packet.is_fragment else _datagram(address, ends, packet)


def _datagram(address: int, ends: Ends, packet: ipv4.Packet) -> Arrival:
    datagram = udp.parse(packet.src, packet.dst, packet.payload)
    if isinstance(datagram, Refusal):
        bad_sum = datagram is Refusal.CHECKSUM
        return _dropped(DropReason.CHECKSUM_BAD if bad_sum else DropReason.TUNNEL_MALFORMED)
    if all(udp_port != datagram.destination_port for udp_port, _ in ends):
        return _dropped(DropReason.PROTOCOL_UNSUPPORTED)
    carried = vxlan.parse(datagram.payload)
    if isinstance(carried, Refusal):
        return _dropped(DropReason.TUNNEL_MALFORMED)
    end = ends.get((datagram.destination_port, carried.vni))
    if end is None:
        return _dropped(DropReason.TUNNEL_VNI_UNKNOWN)
    if not is_unicast(packet.src) or packet.src == address:
        return Arrival(Kind.DROPPED, drop=DropReason.TUNNEL_PEER_UNKNOWN, end=end, frame=carried.frame)
    return Arrival(Kind.CARRIED, end=end, address=packet.src, frame=carried.frame)


def _echo(mac: bytes, address: int, sender: bytes, packet: ipv4.Packet) -> Arrival:
    """Answer a ping, by which people find out whether a tunnel's other host is there."""
    message = icmp.parse(packet.payload)
    if isinstance(message, Refusal) or message.type != icmp.ECHO_REQUEST:
        return _FOR_OTHERS
    if not is_unicast(packet.src) or not is_station(sender):
        return _FOR_OTHERS
    answer = icmp.build(icmp.echo_reply(message))
    back = ipv4.build(ipv4.Packet(address, packet.src, ipv4.ICMP, answer))
    return Arrival(Kind.ECHO, answer=ethernet.build(sender, mac, ethernet.IPV4, back))


def _dropped(reason: DropReason) -> Arrival:
    return Arrival(Kind.DROPPED, drop=reason)
