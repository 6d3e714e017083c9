"""The router of one network: frames of its VLAN in, frames to its VLAN out.

    frame -> ARP ------------------------------------------> neighbours
          -> IPv4 -> for the router -> reassembly -> echo, UDP service, else the translator, else an ICMP error
                  -> for elsewhere  -> time to live -> virtual server? -> the translator
                                                    -> way on: subnet | another network | outside -> the translator

It is an object without time and without I/O: `receive` and `tick` take the instant, and return the frames that have to
be sent; what belongs to another network of the host goes to that network's router through `peers`. A translator joins
by being set (`translator`, `hooks.py`); what comes back from the outside goes through `to_inside`.
Source: RFC 1812 for what a router does, RFC 826 and RFC 5227 for ARP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lamina_net.ip.reassembly import Reassembly
from lamina_net.ip.routes import Route, RouteTable
from lamina_net.offload.long_packets import LongPacket, cut
from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, BROADCAST_MAC, is_loopback, is_multicast, is_unicast
from lamina_net.packets.refusal import Refusal
from lamina_net.rate_limiter import RateLimiter
from lamina_net.tcp.interface import Packet as Segment
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, Offload, load_of
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition
from lamina_vswitch.domain.network.router.dns_stream import DnsStream
from lamina_vswitch.domain.network.router.hooks import Arrival, Dropped, ToNetwork, Translator, UdpService
from lamina_vswitch.domain.network.router.neighbours import Neighbours
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import PLAIN

ERRORS_PER_SECOND = 100
"""ICMP errors that a router sends at most. Source: the contract of `Networks`."""
_IPV4_TYPE = ethernet.IPV4.to_bytes(2, "big")
_ERRORS_OF = {
    DropReason.HOST_ONLY: (icmp.UNREACHABLE, icmp.NET_UNREACHABLE),
    DropReason.NO_ROUTE: (icmp.UNREACHABLE, icmp.NET_UNREACHABLE),
    DropReason.NEIGHBOR_UNREACHABLE: (icmp.UNREACHABLE, icmp.HOST_UNREACHABLE),
    DropReason.FRAGMENT_NEEDED: (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED),
    DropReason.TTL_EXPIRED: (icmp.TIME_EXCEEDED, icmp.TTL_EXCEEDED),
    DropReason.FRAGMENT_TIMEOUT: (icmp.TIME_EXCEEDED, icmp.REASSEMBLY_EXCEEDED),
}


class Router:
    """One router. `definition` is that of a routed network; `mtu_bytes` tells the largest packet of its VLAN."""

    def __init__(self, definition: NetworkDefinition, mtu_bytes: Callable[[], int], dropped: Dropped) -> None:
        self.mac = definition.mac
        self._mtu_bytes = mtu_bytes
        self.translator: Translator | None = None
        self.services: dict[int, UdpService] = {}
        """Services at the router's addresses, by UDP port."""
        self.peers: dict[str, ToNetwork] = {}
        """Other networks of the host, by id."""
        self.stream: DnsStream | None = None
        """TCP at the router's addresses; without it TCP to the router is unreachable."""
        self._dropped = dropped
        self.errors = RateLimiter(ERRORS_PER_SECOND, ERRORS_PER_SECOND)
        """What ICMP errors are taken from, a translator's too."""
        self._reassembly = Reassembly()
        self._neighbours = Neighbours(self.mac, self._unreachable)
        self._identification = 0
        self.configure(definition)

    def configure(self, definition: NetworkDefinition) -> None:
        """Take new addresses and ways; neighbours stay."""
        self.subnet = definition.inside
        self.addresses = definition.own_addresses
        self._mode = definition.mode
        self._routes = RouteTable()
        for route in definition.routes:
            self._routes.add(Route(route.destination, route.network, route.via or None, metric=1))
        self._routes.add(Route(self.subnet, "", metric=0))

    # What explains it (`explain.py`)

    @property
    def mode(self) -> Mode:
        """How the network is connected."""
        return self._mode

    @property
    def mtu_bytes(self) -> int:
        """Largest packet of its VLAN."""
        return self._mtu_bytes()

    def way(self, address: int) -> Route | None:
        """Return the route to an address, or None."""
        return self._routes.lookup(address)

    # What the port calls

    def receive(self, frame: bytes, now_ns: int) -> list[bytes]:
        """Take a frame from the VLAN; return the frames to send there."""
        offload, _ = load_of(frame)
        if offload is not None:
            return self._unfinished(frame, offload, now_ns)
        parsed = ethernet.parse(frame)
        if isinstance(parsed, Refusal) or not (parsed.dst == self.mac or parsed.dst[0] & 1):
            return []  # flooded for somebody else
        if parsed.ethertype == ethernet.ARP:
            return self._arp(parsed.payload, now_ns)
        if parsed.ethertype == ethernet.IPV4:
            return self._ip(parsed, frame, now_ns)
        return []  # what is not IPv4 is switched, not routed

    def hold(self) -> None:
        """Let the translator answer what comes from now on together, at `release`."""
        if self.translator is not None:
            self.translator.hold()

    def release(self, now_ns: int) -> list[bytes]:
        """Return the frames of what has waited since `hold`."""
        packets = self.translator.release(now_ns) if self.translator is not None else ()
        return [frame for packet in packets for frame in self.to_inside(packet, now_ns)]

    def _unfinished(self, frame: bytes, offload: Offload, now_ns: int) -> list[bytes]:
        """Take a frame whose sum, or cutting, its sender left to others: as it is, or finished where that is needed."""
        is_ours = frame[:6] == self.mac and frame[12:14] == _IPV4_TYPE and offload.flags & NEEDS_CHECKSUM
        if is_ours and self.translator is not None:
            packets = self.translator.unfinished(frame[14:], offload.segment_bytes, now_ns)
            if packets is not None:
                return [each for packet in packets for each in self.to_inside(packet, now_ns)]
        found: list[bytes] = []
        for piece in finished([frame], PLAIN):
            found += self.receive(piece, now_ns)
        return found

    def to_inside(self, packet: bytes, now_ns: int) -> list[bytes]:
        """Take a packet from the outside or from another network, for a device of the subnet; return frames.

        One for no device of the subnet goes where the ways lead it. It is not translated.
        """
        parsed = ipv4.parse(packet)
        return [] if isinstance(parsed, Refusal) else self._send(packet, parsed, now_ns)

    def from_peer(self, packet: bytes, now_ns: int) -> list[bytes]:
        """Take a packet that another router of the host sends on; return frames."""
        parsed = ipv4.parse(packet)
        if isinstance(parsed, Refusal):
            return []
        if parsed.dst in self.addresses:
            frame = ethernet.Frame(self.mac, self.mac, ethernet.IPV4, packet)
            return self._local(frame, parsed, self._framed(packet), now_ns)
        passed = ipv4.forwarded(packet)
        if isinstance(passed, Refusal):
            return self._drop(DropReason.TTL_EXPIRED, packet, parsed, now_ns)
        return self._route(passed, parsed._replace(ttl=parsed.ttl - 1), now_ns)

    def tick(self, now_ns: int) -> list[bytes]:
        """Do what is due; return frames."""
        frames = self._neighbours.tick(now_ns)
        if self.stream is not None:
            frames += self.segments(self.stream.timer(now_ns), now_ns)
        for first in self._reassembly.expired(now_ns):
            frames += self._drop(DropReason.FRAGMENT_TIMEOUT, ipv4.build(first), first, now_ns)
        return frames

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` has to be called next, or None."""
        stream = self.stream.next_wakeup_ns if self.stream is not None else None
        due = (self._neighbours.next_wakeup_ns, self._reassembly.next_wakeup_ns, stream)
        return min((each for each in due if each is not None), default=None)

    @property
    def neighbours(self) -> Neighbours:
        """The ARP table."""
        return self._neighbours

    def datagram(self, source: int, to: int, datagram: udp.Datagram, now_ns: int) -> list[bytes]:
        """Return the frames of a datagram that a service sends from one of the router's addresses."""
        return self._originate(source, to, ipv4.UDP, udp.build(source, to, datagram), now_ns)

    def broadcast(self, source: int, mac: bytes, to: int, datagram: udp.Datagram) -> list[bytes]:
        """Return the frame of a datagram to a device that may have no address yet: it is not asked for by ARP."""
        packet = ipv4.Packet(source, to, ipv4.UDP, udp.build(source, to, datagram), identification=self._next_id())
        return [ethernet.build(mac, self.mac, ethernet.IPV4, ipv4.build(packet))]

    def segments(self, segments: Iterable[Segment], now_ns: int) -> list[bytes]:
        """Return the frames of TCP segments that the router's own end sends."""
        frames: list[bytes] = []
        for each in segments:
            packet = ipv4.Packet(each.src, each.dst, ipv4.TCP, each.data, dont_fragment=True)
            frames += self._send(ipv4.build(packet), packet, now_ns)
        return frames

    # ARP

    def _arp(self, payload: bytes, now_ns: int) -> list[bytes]:
        packet = arp.parse(payload)
        if isinstance(packet, Refusal):
            return []
        frames: list[bytes] = []
        if packet.sender in self.subnet and packet.sender not in self.addresses:
            frames += self._neighbours.heard(packet, packet.target in self.addresses, now_ns)
        if packet.operation == arp.REQUEST and self._answers_for(packet.target) and not packet.is_gratuitous:
            frames.append(ethernet.build(packet.sender_mac, self.mac, ethernet.ARP, arp.reply_to(packet, self.mac)))
        return frames

    def _answers_for(self, address: int) -> bool:
        if address in self.addresses:
            return True
        return address in self.subnet and self.translator is not None and self.translator.stands_for(address)

    # IPv4

    def _ip(self, frame: ethernet.Frame, raw: bytes, now_ns: int) -> list[bytes]:
        packet = ipv4.parse(frame.payload)
        if isinstance(packet, Refusal):
            bad_sum = packet is Refusal.CHECKSUM
            self._dropped(DropReason.CHECKSUM_BAD if bad_sum else DropReason.IP_MALFORMED, raw, now_ns)
            return []
        to_all = packet.dst in (BROADCAST, self.subnet.broadcast)
        if to_all or packet.dst in self.addresses:
            return self._local(frame, packet, raw, now_ns)
        if frame.dst != self.mac or is_multicast(packet.dst):
            return []
        if not is_unicast(packet.src) or is_loopback(packet.src) or packet.src in self.addresses:
            self._dropped(DropReason.IP_MALFORMED, raw, now_ns)
            return []
        data = frame.payload[: packet.header_bytes + len(packet.payload)]
        passed = ipv4.forwarded(data)
        if isinstance(passed, Refusal):
            return self._drop(DropReason.TTL_EXPIRED, data, packet, now_ns)
        return self._route(passed, packet._replace(ttl=packet.ttl - 1), now_ns)

    def _route(self, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        """Send a packet on that came from inside: translated when it is the translator's."""
        translator = self.translator
        ours = translator is not None and translator.stands_for(packet.dst)
        if ours or (self._mode is Mode.NAT and self._routes.lookup(packet.dst) is None):
            frames = self._translate(data, now_ns)
            if frames is not None:
                return frames
        return self._send(data, packet, now_ns)

    def _translate(self, data: bytes, now_ns: int) -> list[bytes] | None:
        """Give a packet to the translator; None when there is none or it is not the translator's."""
        if self.translator is None:
            return None
        result = self.translator.from_inside(data, now_ns)
        if result is None:
            return None
        if isinstance(result, DropReason):
            self._dropped(result, self._framed(data), now_ns)
            return []
        return [frame for packet in result for frame in self.to_inside(packet, now_ns)]

    def _send(self, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        """Send a packet the way it has to go: to a neighbour, or to another network."""
        way = self._routes.lookup(packet.dst)
        if way is None:
            host_only = self._mode is Mode.HOST_ONLY
            return self._drop(DropReason.HOST_ONLY if host_only else DropReason.NO_ROUTE, data, packet, now_ns)
        if way.interface:
            peer = self.peers.get(way.interface)
            if peer is None:
                return self._drop(DropReason.NO_ROUTE, data, packet, now_ns)
            for part in cut(data) if isinstance(data, LongPacket) else (data,):
                peer(part, now_ns)
            return []
        return self._to_neighbour(way, data, packet, now_ns)

    def _to_neighbour(self, way: Route, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        hop = way.via or packet.dst
        if hop in (self.subnet.broadcast, self.subnet.network) or hop in self.addresses:
            return self._drop(DropReason.NO_ROUTE, data, packet, now_ns)
        if len(data) <= self._mtu_bytes() or isinstance(data, LongPacket):
            return self._neighbours.send(hop, data, self.addresses[0], now_ns)
        parts = ipv4.fragment(packet, self._mtu_bytes())
        if isinstance(parts, Refusal):
            return self._drop(DropReason.FRAGMENT_NEEDED, data, packet, now_ns)
        sent = [self._neighbours.send(hop, ipv4.build(part), self.addresses[0], now_ns) for part in parts]
        return [frame for frames in sent for frame in frames]

    # For the router itself

    def _local(self, frame: ethernet.Frame, packet: ipv4.Packet, raw: bytes, now_ns: int) -> list[bytes]:
        data = frame.payload[: packet.header_bytes + len(packet.payload)]
        if packet.is_fragment:
            whole = self._reassembly.add(packet, now_ns)
            if isinstance(whole, Refusal):
                self._dropped(DropReason.FRAGMENT_OVERLAP, raw, now_ns)
            if whole is None or isinstance(whole, Refusal):
                return []
            packet, data = whole, ipv4.build(whole)
        if packet.protocol == ipv4.UDP:
            datagram = udp.parse(packet.src, packet.dst, packet.payload)
            if isinstance(datagram, Refusal):
                self._dropped(_reason(datagram), raw, now_ns)
                return []
            service = self.services.get(datagram.destination_port)
            if service is not None:
                return service.receive(Arrival(frame.src, packet, datagram), raw, now_ns)
        if packet.dst not in self.addresses or not is_unicast(packet.src):
            return []  # to everybody, and nothing here wants it
        if packet.protocol == ipv4.ICMP:
            message = icmp.parse(packet.payload)
            if isinstance(message, Refusal):
                self._dropped(_reason(message), raw, now_ns)
                return []
            if message.type == icmp.ECHO_REQUEST:
                reply = icmp.build(icmp.echo_reply(message))
                return self._originate(packet.dst, packet.src, ipv4.ICMP, reply, now_ns)
        stream = self.stream if packet.protocol == ipv4.TCP else None
        translated = None if stream is not None and stream.wants(packet.payload) else self._translate(data, now_ns)
        if translated is not None:
            return translated
        if stream is not None:
            sent = stream.segment(packet.src, packet.dst, packet.payload, now_ns, self._mtu_bytes())
            return self.segments(sent, now_ns)
        if packet.protocol == ipv4.ICMP:
            return []
        code = icmp.PORT_UNREACHABLE if packet.protocol in (ipv4.UDP, ipv4.TCP) else icmp.PROTOCOL_UNREACHABLE
        return self._error(icmp.UNREACHABLE, code, data, packet, now_ns)

    # What the router says itself

    def _originate(self, src: int, dst: int, protocol: int, payload: bytes, now_ns: int) -> list[bytes]:
        packet = ipv4.Packet(src, dst, protocol, payload, identification=self._next_id())
        return self._send(ipv4.build(packet), packet, now_ns)

    def _drop(self, reason: DropReason, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        """Count a packet as dropped, and tell its sender what the reason has to tell."""
        self._dropped(reason, self._framed(data), now_ns)
        kind, code = _ERRORS_OF[reason]
        return self._error(kind, code, data, packet, now_ns)

    def _error(self, kind: int, code: int, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        # an error about the router's own packet, or to one who cannot be reached, would have no end
        if packet.src in self.addresses or self._routes.lookup(packet.src) is None:
            return []
        if not icmp.may_be_answered(packet) or not self.errors.take(now_ns):
            return []
        rest = self._mtu_bytes() if code == icmp.FRAGMENTATION_NEEDED and kind == icmp.UNREACHABLE else 0
        message = icmp.build(icmp.error(kind, code, data, rest))
        return self._originate(self.addresses[0], packet.src, ipv4.ICMP, message, now_ns)

    def _unreachable(self, data: bytes, now_ns: int) -> list[bytes]:
        """Tell the sender of a packet that waited for a neighbour who did not answer."""
        packet = ipv4.parse(data)
        if isinstance(packet, Refusal):
            return []
        return self._drop(DropReason.NEIGHBOR_UNREACHABLE, data, packet, now_ns)

    def _framed(self, data: bytes) -> bytes:
        """Return a packet as the frame that stands for it where drops are shown."""
        return ethernet.build(BROADCAST_MAC, self.mac, ethernet.IPV4, data)

    def _next_id(self) -> int:
        self._identification = (self._identification + 1) & 0xFFFF
        return self._identification


def _reason(refusal: Refusal) -> DropReason:
    return DropReason.CHECKSUM_BAD if refusal is Refusal.CHECKSUM else DropReason.IP_MALFORMED
