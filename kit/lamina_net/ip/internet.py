"""The IPv4 layer of a host: which packets are ours, which way others go, from which address, in how many parts. Pure.

A host has its addresses, not its interfaces: a packet to any of them is ours wherever it comes in (the weak model of
RFC 1122, 3.3.4.2, which Linux has too). Packets between its own addresses never leave it. It forwards nothing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from lamina_net.ip.interface import Arrival, Interface, InterfaceAddress
from lamina_net.ip.reassembly import Reassembly
from lamina_net.ip.routes import Route, RouteTable
from lamina_net.offload.long_packets import cut, long_packet
from lamina_net.packets import ipv4
from lamina_net.packets.address import (
    ANY,
    BROADCAST,
    LOOPBACK,
    Mac,
    Subnet,
    is_loopback,
    is_multicast,
    is_unicast,
    subnet,
)
from lamina_net.packets.ipv4 import MAX_PACKET_BYTES, Packet
from lamina_net.packets.refusal import Refusal
from lamina_net.tcp.interface import Errno

LOOPBACK_NAME = "lo"
LOOPBACK_MTU = MAX_PACKET_BYTES
_LOOPBACK_SUBNET = Subnet(0x7F000000, 8)


class Delivery(NamedTuple):
    """A whole packet that is ours; `to_group`: for more than us, so nobody is told of errors."""

    packet: Packet
    interface: Interface
    to_group: bool


class Internet:
    """Interfaces, addresses, routes and fragments of a host. `first_identification`: 16 bits from the seed."""

    def __init__(self, first_identification: int) -> None:
        self.out: list[tuple[str, bytes]] = []
        self.unreachable: list[bytes] = []
        self.interfaces: dict[str, Interface] = {}
        self.routes = RouteTable()
        self.reassembly = Reassembly()
        self.refused: dict[Refusal, int] = {}
        self.looped: deque[Delivery] = deque()
        self._identification = first_identification
        self._local: dict[int, Interface] = {}
        self._broadcasts: dict[int, None] = {}
        self._lo = self.add_interface(LOOPBACK_NAME, None, LOOPBACK_MTU)
        self._lo.add(InterfaceAddress(LOOPBACK, _LOOPBACK_SUBNET))

    # Configuration

    def add_interface(self, name: str, mac: Mac | None, mtu: int) -> Interface:
        """Add an interface. Raises ValueError for a name that is there, or an MTU that cannot be."""
        if name in self.interfaces:
            raise ValueError(f"there is an interface {name} already")
        self.interfaces[name] = Interface(name, mac, mtu, self.out, self.unreachable)
        return self.interfaces[name]

    def remove_interface(self, name: str) -> None:
        """Remove an interface with its addresses and routes; raises KeyError for one that is not there, or loopback."""
        if name == LOOPBACK_NAME:
            raise KeyError(name)
        interface = self.interfaces.pop(name)
        for entry in interface.addresses:
            self._local.pop(entry.address, None)
        self.routes.remove_interface(name)
        self._gather_broadcasts()

    def add_address(self, name: str, address: int, length: int) -> bool:
        """Give an interface an address, and a route to its subnet of `length` bits, and tell the neighbours.

        False: it cannot be a host's, or is one of ours.
        """
        interface = self.interfaces[name]
        if not is_unicast(address) or is_loopback(address) or address in self._local:
            return False
        entry = InterfaceAddress(address, subnet(address, length))
        if entry.broadcast == address or (length < 31 and entry.subnet.network == address):
            return False
        interface.add(entry)
        self._local[address] = interface
        self._gather_broadcasts()
        self.routes.add(Route(entry.subnet, name, source=address))
        interface.announce(address)
        return True

    def remove_address(self, name: str, address: int) -> bool:
        """Take an address from an interface, and the route to its subnet if no other needs it. False: no such."""
        interface = self.interfaces[name]
        entry = interface.address_of(address)
        if entry is None or name == LOOPBACK_NAME:
            return False
        interface.remove(entry)
        del self._local[address]
        self._gather_broadcasts()
        self.routes.remove(entry.subnet, interface=name)
        heir = next((other for other in interface.addresses if other.subnet == entry.subnet), None)
        if heir is not None:
            self.routes.add(Route(heir.subnet, name, source=heir.address))
        return True

    def _gather_broadcasts(self) -> None:
        self._broadcasts = {found: None for each in self.interfaces.values() for found in each.broadcasts}

    # What comes in

    def receive(self, name: str, data: bytes, now_ns: int) -> Delivery | None:
        """Take a frame: a whole packet for us, or None; what is refused is counted by its reason."""
        interface = self.interfaces[name]
        arrival = interface.receive(data, now_ns)
        result = self._accept(interface, arrival, now_ns) if isinstance(arrival, Arrival) else arrival
        if isinstance(result, Refusal):
            self.refused[result] = self.refused.get(result, 0) + 1
            return None
        return result

    def _accept(self, interface: Interface, arrival: Arrival, now_ns: int) -> Delivery | Refusal | None:
        packet = ipv4.parse(arrival.packet)
        if isinstance(packet, Refusal):
            return packet
        to_group = self._is_group(packet.dst, interface)
        if not self._may_come(packet, interface, arrival.to_group, to_group):
            return Refusal.ADDRESS
        whole = self.reassembly.add(packet, now_ns) if packet.is_fragment else packet
        return Delivery(whole, interface, to_group) if isinstance(whole, Packet) else whole

    def _may_come(self, packet: Packet, interface: Interface, frame_to_group: bool, to_group: bool) -> bool:
        """Tell whether a packet is for us and its source is one that can be. Source: RFC 1122, 3.2.1.3 and 3.3.6."""
        src = packet.src
        if src != ANY and (not is_unicast(src) or is_loopback(src) or src in interface.broadcasts):
            return False
        if src in self._local or (src == ANY and not to_group):
            return False
        if to_group:
            return packet.dst == BROADCAST or packet.dst in interface.broadcasts or interface.has_joined(packet.dst)
        return packet.dst in self._local and not frame_to_group

    @staticmethod
    def _is_group(dst: int, interface: Interface) -> bool:
        return dst == BROADCAST or is_multicast(dst) or dst in interface.broadcasts

    # What goes out

    def is_ours(self, address: int) -> bool:
        """Tell whether an address is of this host, loopback included."""
        return address in self._local or is_loopback(address)

    def may_leave_from(self, src: int) -> bool:
        """Tell whether packets from `src` may leave the host: one of its addresses but loopback, or none yet (0)."""
        return src == ANY or src in self._local

    def is_group(self, address: int) -> bool:
        """Tell whether an address is for many on any link: broadcast, a subnet's broadcast, multicast."""
        return address == BROADCAST or is_multicast(address) or address in self._broadcasts

    def source_for(self, dst: int, name: str = "") -> int | None:
        """Return the address from which to send to `dst`, at interface `name` if given, or None without a way.

        The route's own; else the one in the next hop's subnet; else the interface's first; 0 where it has none.
        Source: RFC 1122, 3.3.4.3.
        """
        if self.is_ours(dst):
            return dst if not is_loopback(dst) else LOOPBACK
        way = self._way(dst, name)
        if way is None:
            return None
        interface, next_hop, source = way
        if source:
            return source
        near = interface.on_link(next_hop) or next(iter(interface.addresses), None)
        return near.address if near is not None else ANY

    def mtu_for(self, dst: int, name: str = "") -> int:
        """Return the bytes that a packet to `dst` has at most; 1500 without a way."""
        if self.is_ours(dst):
            return LOOPBACK_MTU
        way = self._way(dst, name)
        return way[0].mtu if way is not None else 1500

    def send(self, packet: Packet, now_ns: int, name: str = "") -> Errno | None:
        """Send a packet, in parts if it has to be. NETUNREACH: no way. MSGSIZE: too big, and not to be fragmented.

        A packet that may be fragmented gets an identification. `name`: the interface to leave at, whatever routes say.
        No way leads out of the host from loopback or an address that was removed (RFC 1122, 3.2.1.3); a packet to a
        group whose time to live is 0 stays in it (RFC 1112, 6.1).
        """
        if self.is_ours(packet.dst):
            self.looped.append(Delivery(packet, self._lo, False))
            return None
        way = self._way(packet.dst, name)
        if way is None or not self.may_leave_from(packet.src):
            return Errno.NETUNREACH
        interface, next_hop, _ = way
        if not packet.dont_fragment:
            self._identification = (self._identification + 1) & 0xFFFF
            packet = packet._replace(identification=self._identification)
        parts = ipv4.fragment(packet, interface.mtu)
        if isinstance(parts, Refusal):
            return Errno.MSGSIZE
        built = [ipv4.build(part) for part in parts]
        if not self._is_group(packet.dst, interface):
            interface.send(built, next_hop, packet.src, now_ns)
            return None
        if packet.ttl:
            interface.send_to_group(built, packet.dst)
        if not is_multicast(packet.dst) or interface.has_joined(packet.dst):
            self.looped.append(Delivery(packet, interface, True))
        return None

    def send_long(self, packet: Packet, segment_bytes: int, now_ns: int) -> Errno | None:
        """Send a TCP packet to one host that is to be cut into `segment_bytes` of payload each, which fit its link.

        To ourselves it goes as it is; where the device does not take it, it is cut here. NETUNREACH. MSGSIZE: they do
        not fit.
        """
        if self.is_ours(packet.dst):
            return self.send(packet, now_ns)
        way = self._way(packet.dst, "")
        if way is None or not self.may_leave_from(packet.src):
            return Errno.NETUNREACH
        interface, next_hop, _ = way
        header_bytes = packet.header_bytes + (packet.payload[12] >> 4) * 4
        if header_bytes + segment_bytes > interface.mtu:
            return Errno.MSGSIZE
        whole = long_packet(ipv4.build(packet), segment_bytes)
        interface.send([whole] if interface.takes_long else cut(whole), next_hop, packet.src, now_ns)
        return None

    def _way(self, dst: int, name: str) -> tuple[Interface, int, int] | None:
        """Return the interface, the next hop and the route's source address of packets to `dst`.

        There is none to 0.0.0.0/8, whatever routes say: it names this host on this network (RFC 1122, 3.2.1.3).
        """
        if dst >> 24 == 0:
            return None
        route = self.routes.lookup(dst)
        if name:
            interface = self.interfaces.get(name)
            if interface is None:
                return None
            if route is None or route.interface != name:
                return interface, dst, 0
            return interface, route.via or dst, route.source
        if route is None:
            return None
        return self.interfaces[route.interface], route.via or dst, route.source
