"""The translator of one router: virtual servers, and the outside of a NAT network, over one table.

What a router asks is in `domain/network/router/hooks.py`. A packet to a virtual server goes to the balancer; one to the
router itself belongs to a flow of the balancer or of the gateway, or to nobody here; one for the outside goes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_kit.rng import Rng
from lamina_net.packets import icmp, ipv4
from lamina_net.packets.address import Subnet
from lamina_net.packets.refusal import Refusal
from lamina_net.rate_limiter import RateLimiter
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.explain import explain
from lamina_vswitch.domain.nat.flows.entry import Entry
from lamina_vswitch.domain.nat.flows.forwards import Forwards
from lamina_vswitch.domain.nat.flows.ports import PortPool, SharedPorts
from lamina_vswitch.domain.nat.flows.rewriter import Rewriter
from lamina_vswitch.domain.nat.flows.table import Table
from lamina_vswitch.domain.nat.outside.kernel import KernelTranslation, explain_kernel, leaving
from lamina_vswitch.domain.nat.outside.uplink import UplinkNat, explain_uplink
from lamina_vswitch.domain.nat.packets.outcome import IcmpError, Outcome
from lamina_vswitch.domain.nat.packets.outcome import dropped as outcome_of_drop
from lamina_vswitch.domain.nat.servers.balancer import Balancer
from lamina_vswitch.domain.nat.sockets.gateway import SocketGateway
from lamina_vswitch.domain.nat.sockets.host import Host
from lamina_vswitch.domain.nat.sockets.reach import Reach
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.router.explain import Translation
from lamina_vswitch.domain.network.router.hooks import Dropped


class NetworkTranslator:
    """A `Translator` for the router of a routed network.

    `host` makes the sockets of a NAT network whose outside they are; `errors` is the rate of the router's ICMP errors.
    `dropped` is told of packets that end here beside others that go on, as a packet in a frame's place.
    """

    def __init__(
        self, definition: NetworkDefinition, mtu_bytes: int, rng: Rng, errors: RateLimiter, dropped: Dropped,
        host: Host | None,
    ) -> None:  # fmt: skip
        settings = definition.nat
        self._addresses = definition.own_addresses
        self._dropped = dropped
        self._errors = errors
        self.table = Table(settings.entry_limit, settings.entries_per_address, self._ended)
        self.forwards = Forwards()
        self._ports_outside = (settings.first_port, settings.last_port)
        ports = SharedPorts(settings.first_port, settings.last_port, rng.child("ports").randrange)
        self.balancer = Balancer(definition.gateway, Rewriter(self.table), ports, rng.child("backends"))
        self.gateway: SocketGateway | None = None
        if definition.mode is Mode.NAT and settings.outside is Outside.SOCKETS and host is not None:
            self.gateway = SocketGateway(
                definition.gateway, mtu_bytes, self.table, ports, self.forwards, host, Reach(settings),
                rng.child("gateway"),
            )  # fmt: skip

        self.uplink: UplinkNat | None = None
        self.kernel: KernelTranslation | None = None
        self._send_outside: Callable[[Sequence[bytes], int], None] = _nowhere
        self._inside = inside_of(definition)

    def at_uplink(self, address: int, rng: Rng, send: Callable[[Sequence[bytes], int], None]) -> UplinkNat:
        """Let the outside be an address at an uplink; `send` takes what leaves there, and the time."""
        first, last = self._ports_outside
        pool = PortPool(first, last, rng.randrange(last - first + 1))
        for forward in self.forwards.all():  # of before, when the uplink was gone and is there again
            pool.reserve(forward.definition.protocol, forward.definition.outside[1])
        self.uplink = UplinkNat(address, Rewriter(self.table), pool, self.forwards)
        self._send_outside = send
        return self.uplink

    def leave_uplink(self, now_ns: int) -> None:
        """Forget the outside at an uplink that is gone, with what is open there; forwards stay defined."""
        gone, self._send_outside = self.uplink, _nowhere
        if gone is not None:
            for entry in self.table.find(now_ns, lambda each: each.outside[0] == gone.address):
                self.table.remove(entry)
        self.uplink = None

    def resize(self, mtu_bytes: int) -> None:
        """Take another MTU of the VLAN, for what begins from now on."""
        if self.gateway is not None:
            self.gateway.resize(mtu_bytes)
        if self.kernel is not None:
            self.kernel.resize(mtu_bytes)

    def take(self, definition: NetworkDefinition) -> None:
        """Take new limits, destinations and routes; flows that are open go on."""
        self._inside = inside_of(definition)
        self.table.limit = definition.nat.entry_limit
        self.table.per_address = definition.nat.entries_per_address
        if self.gateway is not None:
            self.gateway.reach = Reach(definition.nat)

    def at_kernel(self, kernel: KernelTranslation, send: Callable[[Sequence[bytes], int], None]) -> None:
        """Let the outside be the kernel of this machine; `send` gives it packets, with the time."""
        self.kernel, self._send_outside = kernel, send

    def leave_kernel(self) -> None:
        """Forget the kernel as outside; forwards stay defined."""
        self.kernel, self._send_outside = None, _nowhere

    def lost(self, reason: DropReason, packet: bytes, now_ns: int) -> None:
        """Count a packet that did not get outside."""
        self._dropped(reason, packet, now_ns)

    def stands_for(self, address: int) -> bool:
        """Tell whether packets to an address are for a virtual server, or for this machine."""
        return self.balancer.answers_for(address) or (self.gateway is not None and self.gateway.reach.alias == address)

    def from_inside(self, packet: bytes, now_ns: int) -> Sequence[bytes] | DropReason | None:
        """Take a packet of the network; see `domain/network/router/hooks.py`."""
        dst = int.from_bytes(packet[16:20], "big")
        if self.balancer.answers_for(dst):
            outcome = self.balancer.to_server(packet, now_ns)
        elif dst in self._addresses:
            outcome = self._to_router(packet, now_ns)
        elif self.gateway is not None:
            outcome = self._leaving(self.gateway.leaving, packet, now_ns)
        elif self.uplink is not None:
            outcome = self._leaving(self.uplink.leaving, packet, now_ns)
        elif self.kernel is not None:
            outcome = self._leaving(_to_kernel, packet, now_ns)
        else:
            return None
        return self._told(packet, outcome, now_ns)

    def unfinished(self, packet: bytes, segment_bytes: int, now_ns: int) -> Sequence[bytes] | None:
        """Take a TCP packet that its guest did not finish; see `domain/network/router/hooks.py`."""
        return self.gateway.unfinished(packet, segment_bytes, now_ns) if self.gateway is not None else None

    def hold(self) -> None:
        """Answer what comes from now on together."""
        if self.gateway is not None:
            self.gateway.inside.hold()

    def release(self, now_ns: int) -> Sequence[bytes]:
        """Return the packets of what has waited since `hold`."""
        if self.gateway is None:
            return ()
        self.gateway.inside.release(now_ns)
        return self.gateway.take()

    def explain(self, packet: bytes, now_ns: int) -> Translation | None:
        """Return what `from_inside` would do with a packet, without doing it."""
        dst = int.from_bytes(packet[16:20], "big")
        if self.uplink is not None and not self.balancer.answers_for(dst) and dst not in self._addresses:
            return explain_uplink(self.table, self.uplink, packet, now_ns)
        if self.kernel is not None and not self.balancer.answers_for(dst) and dst not in self._addresses:
            return explain_kernel(packet)
        return explain(self.table, self.balancer, self.gateway, self._addresses, packet, now_ns)

    @property
    def next_wakeup_ns(self) -> int | None:
        """When `tick` has to be called next, or None. A table without sockets needs no time: it ends in closed form."""
        return self.gateway.next_wakeup_ns if self.gateway else None

    def tick(self, now_ns: int) -> tuple[bytes, ...]:
        """Do what is due; return packets for the router to send on."""
        if self.gateway is None:
            return ()
        self.gateway.tick(now_ns)
        return self.gateway.take()

    def flush(self, inside_address: int | None, now_ns: int) -> tuple[int, tuple[bytes, ...]]:
        """Forget the entries of an inside address, or all; return how many, and packets for the router to send on.

        What the kernel tracks, whoever asks forgets by a `look`: there may be more of it than can be done at once.
        """
        entries = self.table.find(now_ns, lambda each: inside_address in (None, each.inside[0]))
        for entry in entries:
            self.table.remove(entry)
        if self.gateway is None:
            return len(entries), ()
        self.gateway.settle(now_ns)
        return len(entries), self.gateway.take()

    def close(self, now_ns: int) -> tuple[bytes, ...]:
        """End every flow and forwarded port; return packets for the router to send on."""
        self.kernel = None  # whoever gave it ends it, with what it tracks; if it fails, all else has ended
        _, packets = self.flush(None, now_ns)
        if self.gateway is not None:
            for forward in self.forwards.all():
                self.gateway.close_port(forward.definition.port_forward)
        return packets

    def _leaving(self, take: Callable[[bytes, int], Outcome], packet: bytes, now_ns: int) -> Outcome:
        """Take a packet for the outside, unless its source is nowhere inside: nothing could come back to it.

        So a guest that invents sources does not get for each the entries of an address.
        """
        return take(packet, now_ns) if self._is_inside(packet) else outcome_of_drop(DropReason.NO_ROUTE, packet)

    def _is_inside(self, packet: bytes) -> bool:
        """Tell whether a packet's source is inside: to another the kernel would answer, or find a flow of it."""
        src = int.from_bytes(packet[12:16], "big")
        return any(src in each for each in self._inside)

    def _to_router(self, packet: bytes, now_ns: int) -> Outcome:
        outcome = self.balancer.to_gateway(packet, now_ns)
        if self.kernel is not None and outcome.own == (packet,) and self._is_inside(packet):
            return leaving(packet, to_gateway=True)
        if self.gateway is None or outcome.own != (packet,):
            return outcome
        return self.gateway.to_gateway(packet, now_ns)

    def _told(self, packet: bytes, outcome: Outcome, now_ns: int) -> Sequence[bytes] | DropReason | None:
        """Return an outcome as the router wants it."""
        if outcome.own:
            return None
        if outcome.outside:
            self._send_outside(outcome.outside, now_ns)
        packets = outcome.inside
        if outcome.error is not None:
            packets += self._error(outcome.error, now_ns)
        if not packets and [dropped for _, dropped in outcome.drops] == [packet]:
            return outcome.drops[0][0]
        for reason, dropped in outcome.drops:
            self._dropped(reason, dropped, now_ns)
        return packets

    def _error(self, error: IcmpError, now_ns: int) -> tuple[bytes, ...]:
        """Return the packet of an ICMP error, if the rate allows one and its receiver may be told."""
        about = ipv4.parse(error.packet)
        if isinstance(about, Refusal) or not icmp.may_be_answered(about) or not self._errors.take(now_ns):
            return ()
        message = icmp.build(icmp.error(error.type, error.code, error.packet))
        return (ipv4.build(ipv4.Packet(self._addresses[0], about.src, ipv4.ICMP, message)),)

    def _ended(self, entry: Entry) -> None:
        self.balancer.ended(entry)
        if self.gateway is not None:
            self.gateway.ended(entry)
        if self.uplink is not None:
            self.uplink.ended(entry)


def _to_kernel(packet: bytes, now_ns: int) -> Outcome:
    return leaving(packet)


def _nowhere(packets: Sequence[bytes], now_ns: int) -> None:
    """Take nothing: there is no outside."""


def inside_of(definition: NetworkDefinition) -> tuple[Subnet, ...]:
    """Return where packets to the outside may come from: what the router has a way back to."""
    return (definition.inside, *(each.destination for each in definition.routes if each.destination.length))
