"""The outside of a NAT network at an uplink: one address among the hosts of the network there, and its ARP.

    router ── leaving(packet) ──► translate ──► cut ──► next hop ──► frames
    router ◄── packets ── translate ◄── for us? ◄── receive(frame)

It holds no time and does no I/O. What cannot go on outside is told to the guest by an ICMP error of this address: the
error is about the translated packet, and the way in translates it as any error that comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lamina_net.packets import arp, ethernet, icmp, ipv4
from lamina_net.packets.address import BROADCAST_MAC, Subnet, is_unicast
from lamina_net.packets.refusal import Refusal
from lamina_net.rate_limiter import RateLimiter
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat
from lamina_vswitch.domain.nat.packets.outcome import Outcome
from lamina_vswitch.domain.network.router.hooks import Dropped
from lamina_vswitch.domain.network.router.neighbours import Neighbours


class OutsideAddress(NamedTuple):
    """What a network is outside: its address, the subnet there, and the gateway to everything else, 0 for none."""

    address: int
    subnet: Subnet
    gateway: int


class Sent(NamedTuple):
    """What a step brought about: frames for the uplink, and packets for the router to send on inside."""

    frames: list[bytes]
    packets: list[bytes]


class OutsideStation:
    """One MAC and IPv4 address outside. `mtu_bytes` is that of the switch there, `errors` the rate of ICMP errors."""

    def __init__(
        self, mac: bytes, place: OutsideAddress, nat: UplinkNat, mtu_bytes: Callable[[], int], errors: RateLimiter,
        dropped: Dropped,
    ) -> None:  # fmt: skip
        self.mac, self.place, self.nat = mac, place, nat
        self._mtu_bytes, self._errors, self._dropped = mtu_bytes, errors, dropped
        self._neighbours = Neighbours(mac, self._unreachable)
        self._told: list[bytes] = []

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` is due, or None while nobody is asked for an address."""
        return self._neighbours.next_wakeup_ns

    def tick(self, now_ns: int) -> Sent:
        """Ask again for neighbours, or give them up."""
        return self._sent(self._neighbours.tick(now_ns))

    def send(self, packets: Iterable[bytes], now_ns: int) -> Sent:
        """Send translated packets outside."""
        frames: list[bytes] = []
        for packet in packets:
            frames += self._send(packet, now_ns)
        return self._sent(frames)

    def receive(self, frame: bytes, now_ns: int) -> Sent:
        """Take a frame that came in at the uplink; what is not for this address is somebody else's."""
        parsed = ethernet.parse(frame)
        if isinstance(parsed, Refusal) or parsed.dst not in (self.mac, BROADCAST_MAC):
            return Sent([], [])
        if parsed.ethertype == ethernet.ARP:
            return self._sent(self._resolve(parsed.payload, now_ns))
        if parsed.ethertype != ethernet.IPV4 or parsed.dst != self.mac:
            return Sent([], [])
        packet = ipv4.parse(parsed.payload)
        if isinstance(packet, Refusal):
            bad_sum = packet is Refusal.CHECKSUM
            self._dropped(DropReason.CHECKSUM_BAD if bad_sum else DropReason.IP_MALFORMED, frame, now_ns)
            return Sent([], [])
        if packet.dst != self.place.address or not is_unicast(packet.src) or packet.src == self.place.address:
            return Sent([], [])
        return self._sent(self._enter(parsed.payload[: packet.header_bytes + len(packet.payload)], packet, now_ns))

    # The way in

    def _enter(self, data: bytes, packet: ipv4.Packet, now_ns: int) -> list[bytes]:
        passed = ipv4.forwarded(data)
        if isinstance(passed, Refusal):
            answer = self._pong(packet)  # for us, so it need not go further
            if answer is not None:
                return self._send(answer, now_ns)
            self._drop(DropReason.TTL_EXPIRED, data, now_ns)
            return self._error(packet, icmp.TIME_EXCEEDED, icmp.TTL_EXCEEDED, data, now_ns)
        outcome = self.nat.entering(passed, now_ns)
        if [reason for reason, _ in outcome.drops] == [DropReason.NAT_NO_ENTRY]:
            answer = self._pong(packet)
            if answer is not None:
                return self._send(answer, now_ns)
        self._told += self._kept(outcome, now_ns)
        return []

    def _pong(self, packet: ipv4.Packet) -> bytes | None:
        """Return the answer to an echo request to this address itself; None for anything else."""
        if packet.protocol != ipv4.ICMP or packet.is_fragment:
            return None
        message = icmp.parse(packet.payload)
        if isinstance(message, Refusal) or message.type != icmp.ECHO_REQUEST:
            return None
        answer = ipv4.Packet(self.place.address, packet.src, ipv4.ICMP, icmp.build(icmp.echo_reply(message)))
        return ipv4.build(answer)

    def _error(self, about: ipv4.Packet, kind: int, code: int, data: bytes, now_ns: int) -> list[bytes]:
        """Return the frames of an ICMP error to somebody outside, if its sender may be told and the rate allows it."""
        if not icmp.may_be_answered(about) or not self._errors.take(now_ns):
            return []
        message = icmp.build(icmp.error(kind, code, data))
        return self._send(ipv4.build(ipv4.Packet(self.place.address, about.src, ipv4.ICMP, message)), now_ns)

    def _kept(self, outcome: Outcome, now_ns: int) -> tuple[bytes, ...]:
        for reason, packet in outcome.drops:
            self._drop(reason, packet, now_ns)
        return outcome.inside

    def _resolve(self, payload: bytes, now_ns: int) -> list[bytes]:
        packet = arp.parse(payload)
        if isinstance(packet, Refusal):
            return []
        to_us = packet.target == self.place.address
        frames: list[bytes] = []
        if packet.sender in self.place.subnet and packet.sender != self.place.address:
            frames += self._neighbours.heard(packet, to_us, now_ns)
        if to_us and packet.operation == arp.REQUEST and not packet.is_gratuitous:
            reply = arp.reply_to(packet, self.mac)
            frames.append(ethernet.build(packet.sender_mac, self.mac, ethernet.ARP, reply))
        return frames

    # The way out

    def _send(self, data: bytes, now_ns: int) -> list[bytes]:
        packet = ipv4.parse(data)
        if isinstance(packet, Refusal):
            self._drop(DropReason.IP_MALFORMED, data, now_ns)
            return []
        place = self.place
        hop = packet.dst if packet.dst in place.subnet else place.gateway
        if not hop or packet.dst in (place.subnet.network, place.subnet.broadcast):
            return self._refuse(DropReason.NO_ROUTE, icmp.NET_UNREACHABLE, data, now_ns)
        if len(data) <= self._mtu_bytes():
            return self._neighbours.send(hop, data, place.address, now_ns)
        parts = ipv4.fragment(packet, self._mtu_bytes())
        if isinstance(parts, Refusal):
            return self._refuse(DropReason.FRAGMENT_NEEDED, icmp.FRAGMENTATION_NEEDED, data, now_ns, self._mtu_bytes())
        sent = [self._neighbours.send(hop, ipv4.build(part), place.address, now_ns) for part in parts]
        return [frame for frames in sent for frame in frames]

    def _unreachable(self, data: bytes, now_ns: int) -> list[bytes]:
        return self._refuse(DropReason.NEIGHBOR_UNREACHABLE, icmp.HOST_UNREACHABLE, data, now_ns)

    def _refuse(self, reason: DropReason, code: int, data: bytes, now_ns: int, rest: int = 0) -> list[bytes]:
        """Drop a packet that was to go outside, and tell the guest that it was translated for."""
        self._drop(reason, data, now_ns)
        about = ipv4.parse(data)
        if isinstance(about, Refusal) or not icmp.may_be_answered(about) or not self._errors.take(now_ns):
            return []
        own = self.place.address
        message = icmp.build(icmp.error(icmp.UNREACHABLE, code, data, rest))
        self._told += self.nat.entering(ipv4.build(ipv4.Packet(own, own, ipv4.ICMP, message)), now_ns).inside
        return []

    def _drop(self, reason: DropReason, packet: bytes, now_ns: int) -> None:
        self._dropped(reason, ethernet.build(BROADCAST_MAC, self.mac, ethernet.IPV4, packet), now_ns)

    def _sent(self, frames: list[bytes]) -> Sent:
        told, self._told = self._told, []
        return Sent(frames, told)
