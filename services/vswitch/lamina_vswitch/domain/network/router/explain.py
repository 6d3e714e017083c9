"""What a router would do with a frame, told without doing it: no neighbour is asked, nothing is counted or sent.

It asks the router's own tables in the order in which `router.py` does. What the router would say itself (an ARP answer,
an ICMP error, a lease) is named in a step; only the frame's own way goes on. A translator that can explain itself is
asked; of one that cannot, the step says that the packet is its.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from lamina_net.packets import arp, ethernet, icmp, ipv4, udp
from lamina_net.packets.address import BROADCAST, format_address, is_loopback, is_multicast, is_unicast
from lamina_net.packets.checksum import checksum, pseudo_sum
from lamina_net.packets.refusal import Refusal
from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.network.definition import Mode
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.switch.trace import Step


class Handling(NamedTuple):
    """What a router would do: rules as steps; `drop` when it would drop the frame.

    `frames` would go out into its own VLAN, `packet` to the router of the network `to_network`, which is empty for
    none. With neither the way ends at the router.
    """

    steps: tuple[Step, ...]
    drop: DropReason | None = None
    frames: tuple[bytes, ...] = ()
    to_network: str = ""
    packet: bytes = b""


class Translation(NamedTuple):
    """What a translator would do with a packet; None for `packet` means that it ends there."""

    steps: tuple[Step, ...]
    drop: DropReason | None = None
    packet: bytes | None = None


@runtime_checkable
class ExplainingTranslator(Protocol):
    """A translator that tells what it would do."""

    def explain(self, packet: bytes, now_ns: int) -> Translation | None:
        """Return what `from_inside` would do, without doing it; None when the packet is not the translator's."""


def explain_frame(router: Router, frame: bytes, now_ns: int) -> Handling:
    """Tell what a router would do with a frame that its switch delivers to it."""
    parsed = ethernet.parse(frame)
    if isinstance(parsed, Refusal) or not (parsed.dst == router.mac or parsed.dst[0] & 1):
        return _end("not_for_it", "the frame was flooded and is not for the router's MAC address")
    if parsed.ethertype == ethernet.ARP:
        return _arp(router, parsed.payload)
    if parsed.ethertype != ethernet.IPV4:
        return _end("not_ipv4", f"type 0x{parsed.ethertype:04x} is switched, not routed")
    packet = ipv4.parse(parsed.payload)
    if isinstance(packet, Refusal):
        return _refused(
            "IP header", packet, parsed.payload[: (parsed.payload[0] & 15) * 4 if parsed.payload else 0], 10
        )
    if packet.dst in (BROADCAST, router.subnet.broadcast) or packet.dst in router.addresses:
        return _local(router, packet, parsed.payload, now_ns)
    if parsed.dst != router.mac or is_multicast(packet.dst):
        return _end("not_for_it", f"{format_address(packet.dst)} is not the router's, and the frame is for everybody")
    if not is_unicast(packet.src) or is_loopback(packet.src) or packet.src in router.addresses:
        return _drop(DropReason.IP_MALFORMED, f"source {format_address(packet.src)}")
    return explain_packet(router, parsed.payload[: packet.header_bytes + len(packet.payload)], now_ns)


def explain_packet(router: Router, data: bytes, now_ns: int) -> Handling:
    """Tell what a router would do with a packet that has to go on, or that another router of the host hands over."""
    packet = ipv4.parse(data)
    if isinstance(packet, Refusal):
        return _drop(DropReason.IP_MALFORMED, packet.value)
    if packet.dst in router.addresses:
        return _local(router, packet, data, now_ns)
    passed = ipv4.forwarded(data)
    if isinstance(passed, Refusal):
        return _drop(DropReason.TTL_EXPIRED, "an ICMP error is due to the sender")
    counted = (Step("router", "router.time_to_live", f"time to live goes from {packet.ttl} to {packet.ttl - 1}"),)
    packet = packet._replace(ttl=packet.ttl - 1)
    translator = router.translator
    stands_for = translator is not None and translator.stands_for(packet.dst)
    if translator is not None and (stands_for or (router.mode is Mode.NAT and router.way(packet.dst) is None)):
        handling = _translated(router, passed, now_ns)
        if handling is not None:
            return handling._replace(steps=counted + handling.steps)
    handling = _sent(router, passed, packet, now_ns)
    return handling._replace(steps=counted + handling.steps)


def _translated(router: Router, data: bytes, now_ns: int) -> Handling | None:
    translator = router.translator
    if not isinstance(translator, ExplainingTranslator):
        return _end("translated", "the packet is for the translator of the network")
    told = translator.explain(data, now_ns)
    if told is None:
        return None
    if told.drop is not None or told.packet is None:
        return Handling(told.steps, told.drop)
    packet = ipv4.parse(told.packet)
    if isinstance(packet, Refusal):
        return Handling(told.steps, DropReason.IP_MALFORMED)
    handling = _sent(router, told.packet, packet, now_ns)
    return handling._replace(steps=told.steps + handling.steps)


def _sent(router: Router, data: bytes, packet: ipv4.Packet, now_ns: int) -> Handling:
    to = format_address(packet.dst)
    way = router.way(packet.dst)
    if way is None:
        host_only = router.mode is Mode.HOST_ONLY
        return _drop(DropReason.HOST_ONLY if host_only else DropReason.NO_ROUTE, f"no route to {to}")
    route = Step("router", "router.route", f"{to} fits {way.subnet}")
    if way.interface:
        if way.interface not in router.peers:
            return _drop(DropReason.NO_ROUTE, f"network {way.interface} is gone")
        step = Step("router", "router.to_network", f"goes to the router of network {way.interface}")
        return Handling((route, step), to_network=way.interface, packet=data)
    hop = way.via or packet.dst
    if hop in (router.subnet.broadcast, router.subnet.network) or hop in router.addresses:
        return _drop(DropReason.NO_ROUTE, f"{format_address(hop)} is nobody's address")
    return _to_neighbour(router, route, hop, data, packet, now_ns)


def _to_neighbour(router: Router, route: Step, hop: int, data: bytes, packet: ipv4.Packet, now_ns: int) -> Handling:
    pieces = [data]
    steps = [route]
    if len(data) > router.mtu_bytes:
        parts = ipv4.fragment(packet, router.mtu_bytes)
        if isinstance(parts, Refusal):
            return _drop(DropReason.FRAGMENT_NEEDED, f"{len(data)} bytes for {router.mtu_bytes}")
        pieces = [ipv4.build(part) for part in parts]
        steps.append(Step("router", "router.fragment", f"is cut into {len(pieces)} fragments"))
    known = {each.address: each.mac for each in router.neighbours.neighbours(now_ns) if each.mac is not None}
    mac = known.get(hop)
    if mac is None:
        asked = Step("router", "router.neighbor_unknown", f"waits while {format_address(hop)} is asked for by ARP")
        return Handling((*steps, asked))
    steps.append(Step("router", "router.neighbor", f"{format_address(hop)} is at {mac.hex(':')}"))
    frames = tuple(ethernet.build(mac, router.mac, ethernet.IPV4, piece) for piece in pieces)
    return Handling(tuple(steps), frames=frames)


def _arp(router: Router, payload: bytes) -> Handling:
    packet = arp.parse(payload)
    if isinstance(packet, Refusal):
        return _end("arp_malformed", "the ARP packet is malformed, and is not heeded")
    target = format_address(packet.target)
    stands = packet.target in router.subnet and router.translator is not None
    answers = packet.target in router.addresses or (
        stands and router.translator is not None and router.translator.stands_for(packet.target)
    )
    if packet.operation == arp.REQUEST and answers and not packet.is_gratuitous:
        return _end("arp_answered", f"asks for {target}; the router answers with {router.mac.hex(':')}")
    return _end(
        "arp_heard", f"tells where {format_address(packet.sender)} is; {target} is not the router's to answer for"
    )


def _local(router: Router, packet: ipv4.Packet, data: bytes, now_ns: int) -> Handling:
    """Tell what the router would do with a packet for itself, or for everybody."""
    if packet.is_fragment:
        return _end("reassembly", "is a fragment for the router and waits for the others")
    if packet.protocol == ipv4.UDP:
        datagram = udp.parse(packet.src, packet.dst, packet.payload)
        if isinstance(datagram, Refusal):
            size = int.from_bytes(packet.payload[4:6], "big")
            start = pseudo_sum(packet.src, packet.dst, ipv4.UDP, size)
            return _refused("UDP datagram", datagram, packet.payload[:size], 6, start)
        if datagram.destination_port in router.services:
            return _end("service", f"UDP port {datagram.destination_port} is a service of the router")
    if packet.dst not in router.addresses or not is_unicast(packet.src):
        return _end("not_for_it", "is for everybody, and nothing here wants it")
    if packet.protocol == ipv4.ICMP:
        message = icmp.parse(packet.payload)
        if isinstance(message, Refusal):
            return _refused("ICMP message", message, packet.payload, 2)
        if message.type == icmp.ECHO_REQUEST:
            return _end("echo", f"the router answers the echo request of {format_address(packet.src)}")
    stream = router.stream if packet.protocol == ipv4.TCP else None
    if stream is not None and stream.wants(packet.payload):
        return _end("service", "is for DNS over TCP, a service of the router")
    if router.translator is not None:
        handling = _translated(router, data[: packet.header_bytes + len(packet.payload)], now_ns)
        if handling is not None:
            return handling
    if packet.protocol == ipv4.ICMP:
        return _end("icmp", "is an ICMP message that the router does not answer")
    if stream is not None:
        return _end("reset", "no TCP port of the router takes it; a reset is due, unless it is one itself")
    return _end("unreachable", "nothing at the router takes it; an ICMP error is due to the sender")


def _end(rule: str, detail: str) -> Handling:
    return Handling((Step("router", f"router.{rule}", detail),))


def _refused(what: str, refusal: Refusal, summed: bytes, at: int, start: int = 0) -> Handling:
    """Tell why a parser refuses `what`; a sum, which stands at byte `at` of `summed`, beside the one it should be."""
    if refusal is not Refusal.CHECKSUM:
        return _drop(DropReason.IP_MALFORMED, f"the {what} is {refusal.value}")
    right = checksum(summed[:at] + bytes(2) + summed[at + 2 :], start)
    right = right or (0xFFFF if what.startswith("UDP") else 0)  # 0 stands for no sum there
    told = f"that of the {what} is 0x{summed[at : at + 2].hex()}, and 0x{right:04x} would be right"
    return _drop(DropReason.CHECKSUM_BAD, told)


def _drop(reason: DropReason, detail: str = "") -> Handling:
    text = f"{EXPLANATION[reason]}: {detail}" if detail else EXPLANATION[reason]
    return Handling((Step("router", f"router.drop_{reason.name.lower()}", text),), drop=reason)
