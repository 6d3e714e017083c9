"""A network interface: frames on one side, IPv4 packets on the other, ARP between them. Pure.

An interface without a MAC address is point to point, as a TUN device: its frames are packets.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from lamina_net.ip.neighbours import NeighbourTable, Outcome
from lamina_net.offload.long_packets import LongPacket, long_frame
from lamina_net.packets import arp, ethernet
from lamina_net.packets.address import BROADCAST_MAC, Mac, Subnet, is_multicast, multicast_mac
from lamina_net.packets.ipv4 import MAX_PACKET_BYTES, MIN_MTU
from lamina_net.packets.refusal import Refusal

ALL_HOSTS = 0xE0000001
"""224.0.0.1: every host is in it. Source: RFC 1112, 4."""
MAX_GROUPS = 256

K = TypeVar("K")


class InterfaceAddress(NamedTuple):
    """An address of ours and the subnet that is on the link."""

    address: int
    subnet: Subnet

    @property
    def broadcast(self) -> int | None:
        """The directed broadcast address; prefixes of 31 and 32 bits have none. Source: RFC 3021."""
        return self.subnet.broadcast if self.subnet.length < 31 else None


class Arrival(NamedTuple):
    """A packet that came in a frame for us; `to_group`: the frame was for more than us."""

    packet: bytes
    to_group: bool


class Interface:
    """One interface. `out` takes the frames that leave it, with its name, in their order.

    `unreachable` takes packets, of those in parts the first, whose neighbour does not answer. `mtu`: bytes of the
    largest packet, 68 to 65535; raises ValueError for another.
    """

    def __init__(
        self, name: str, mac: Mac | None, mtu: int, out: list[tuple[str, bytes]], unreachable: list[bytes]
    ) -> None:
        if not MIN_MTU <= mtu <= MAX_PACKET_BYTES:
            raise ValueError(f"an interface cannot have an MTU of {mtu} bytes")
        self.name, self.mac, self.mtu = name, mac, mtu
        self.addresses: list[InterfaceAddress] = []  # these two are changed by `add` and `remove` alone
        self.broadcasts: dict[int, None] = {}  # of the subnets on the link, as keys
        self.takes_long = False
        """Whether its device takes a `LongFrame` (`lamina_net.offload.long_packets`); else they are cut before."""
        self.neighbours: NeighbourTable[list[bytes]] = NeighbourTable()
        self.conflicts = 0  # ARP packets in which others claimed an address of ours
        self._out, self._unreachable = out, unreachable
        self._groups: dict[int, int] = {}
        self._group_macs = {multicast_mac(ALL_HOSTS): 1}

    def add(self, entry: InterfaceAddress) -> None:
        """Give the interface an address."""
        self._change([*self.addresses, entry])

    def remove(self, entry: InterfaceAddress) -> None:
        """Take an address of the interface from it."""
        self._change([other for other in self.addresses if other != entry])

    def _change(self, addresses: list[InterfaceAddress]) -> None:
        self.addresses = addresses
        self.broadcasts = {found.broadcast: None for found in addresses if found.broadcast is not None}

    def address_of(self, address: int) -> InterfaceAddress | None:
        """Return the entry of an address of ours, or None."""
        return next((found for found in self.addresses if found.address == address), None)

    def on_link(self, address: int) -> InterfaceAddress | None:
        """Return the first entry whose subnet an address lies in, or None."""
        return next((found for found in self.addresses if address in found.subnet), None)

    def has_joined(self, group: int) -> bool:
        """Tell whether packets to a multicast group are for us."""
        return group == ALL_HOSTS or group in self._groups

    def join(self, group: int) -> bool:
        """Take packets to a multicast group; as many `leave` end it. False: no group, or too many."""
        if not is_multicast(group) or (group not in self._groups and len(self._groups) >= MAX_GROUPS):
            return False
        self._groups[group] = self._groups.get(group, 0) + 1
        mac = multicast_mac(group)
        self._group_macs[mac] = self._group_macs.get(mac, 0) + 1
        return True

    def leave(self, group: int) -> bool:
        """Take back one `join`. False: there was none."""
        if group not in self._groups:
            return False
        _count_down(self._groups, group)
        _count_down(self._group_macs, multicast_mac(group))
        return True

    def receive(self, data: bytes, now_ns: int) -> Arrival | Refusal | None:
        """Take a frame: the packet in it, None for ARP, or why it is not for us.

        ADDRESS: for another station, or from our own. VERSION: neither IPv4 nor ARP. Those of the parsers.
        """
        if self.mac is None:
            return Arrival(data, False)
        frame = ethernet.parse(data)
        if isinstance(frame, Refusal):
            return frame
        to_group = bool(frame.dst[0] & 1)
        is_ours = frame.dst in (self.mac, BROADCAST_MAC) or frame.dst in self._group_macs
        if not is_ours or frame.src == self.mac or (frame.tci or 0) & 0xFFF:
            return Refusal.ADDRESS
        if frame.ethertype == ethernet.IPV4:
            return Arrival(frame.payload, to_group)
        if frame.ethertype != ethernet.ARP:
            return Refusal.VERSION
        return self._receive_arp(self.mac, frame.payload, now_ns)

    def send(self, parts: list[bytes], next_hop: int, source: int, now_ns: int) -> None:
        """Send a packet, in parts or in one, to a neighbour, now or when it has answered.

        The parts wait together, as each is worth nothing without the others. `source` is our address to ask with.
        """
        if self.mac is None:
            self._out.extend((self.name, part) for part in parts)
            return
        mac = self.neighbours.lookup(next_hop, now_ns)
        if mac is not None:
            self._frames(self.mac, mac, parts)
        else:
            self._apply(self.mac, self.neighbours.send(next_hop, parts, source, now_ns))

    def send_to_group(self, parts: list[bytes], group: int) -> None:
        """Send a packet to a multicast group, or with any other address to everybody."""
        if self.mac is None:
            self._out.extend((self.name, part) for part in parts)
        else:
            self._frames(self.mac, multicast_mac(group) if is_multicast(group) else BROADCAST_MAC, parts)

    def announce(self, address: int) -> None:
        """Tell everybody whose address it is, so that caches of neighbours change. Source: RFC 5227, 2.3."""
        if self.mac is not None:
            data = ethernet.build(BROADCAST_MAC, self.mac, ethernet.ARP, arp.announcement(self.mac, address))
            self._out.append((self.name, data))

    def timer(self, now_ns: int) -> None:
        """Ask neighbours again, or give them up."""
        if self.mac is not None:
            self._apply(self.mac, self.neighbours.timer(now_ns))

    def _receive_arp(self, mac: Mac, payload: bytes, now_ns: int) -> Refusal | None:
        packet = arp.parse(payload)
        if isinstance(packet, Refusal):
            return packet
        if self.address_of(packet.sender) is not None:
            self.conflicts += 1
            return Refusal.ADDRESS
        to_us = self.address_of(packet.target) is not None
        if self.on_link(packet.sender) is not None:
            self._apply(mac, self.neighbours.heard(packet, to_us, now_ns))
        elif not packet.is_probe:
            return Refusal.ADDRESS
        if to_us and packet.operation == arp.REQUEST:
            answer = ethernet.build(packet.sender_mac, mac, ethernet.ARP, arp.reply_to(packet, mac))
            self._out.append((self.name, answer))
        return None

    def _apply(self, mac: Mac, outcome: Outcome[list[bytes]]) -> None:
        for to, parts in outcome.ready:
            self._frames(mac, to, parts)
        for question in outcome.questions:
            data = arp.request(mac, question.source, question.target)
            self._out.append((self.name, ethernet.build(question.mac, mac, ethernet.ARP, data)))
        self._unreachable.extend(parts[0] for parts in outcome.unreachable)

    def _frames(self, src: Mac, dst: Mac, parts: list[bytes]) -> None:
        for part in parts:
            frame = b"%b%b\x08\x00%b" % (dst, src, part)
            if isinstance(part, LongPacket):
                frame = long_frame(frame, part.segment_bytes)
            self._out.append((self.name, frame))


def _count_down(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
