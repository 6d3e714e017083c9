"""The translator of one network at work: joined to its router, with its sockets and the timer that it needs.

What sockets bring reaches the network through the router's port; a timer runs only while the gateway waits for
something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lamina_kit.clock import Clock
from lamina_kit.rng import Rng
from lamina_net.packets import ethernet
from lamina_net.packets.address import BROADCAST_MAC
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.translator import NetworkTranslator
from lamina_vswitch.domain.network.definition import Mode, NetworkDefinition, Outside
from lamina_vswitch.domain.network.router.explain import Translation
from lamina_vswitch.domain.network.router.hooks import Dropped
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.io.host_sockets import HostSockets, SocketBudget
from lamina_vswitch.io.ports.router import RouterPort
from lamina_vswitch.io.wakeup import Wakeup


class Outsides(Protocol):
    """What gives networks an outside that is not sockets of this process."""

    def open(
        self, definition: NetworkDefinition, router: Router, translator: NetworkTranslator,
        inside: Callable[[Sequence[bytes]], None],
    ) -> None:  # fmt: skip
        """Let a translator have the outside that a network names; `inside` takes what comes in there."""

    def take(self, definition: NetworkDefinition) -> None:
        """Take new limits, destinations and ways of a network; flows that are open go on."""

    def close(self, network: str) -> None:
        """End what a network has outside. Idempotent."""

    def remove(self, definition: NetworkDefinition) -> None:
        """End it for good."""


class TranslationState:
    """A `Translator` for the router of `definition`, whose port is `port`."""

    def __init__(
        self, definition: NetworkDefinition, router: Router, port: RouterPort, mtu_bytes: int, clock: Clock, rng: Rng,
        budget: SocketBudget, dropped: Dropped, outsides: Outsides,
    ) -> None:  # fmt: skip
        self.definition = definition
        self._outsides = outsides
        self._router, self._port, self._clock = router, port, clock
        self._timer = Wakeup(clock, self._due_ns, self._ticked, port.failed)
        self._closed = False
        host = None
        if definition.mode is Mode.NAT and definition.nat.outside is Outside.SOCKETS:
            host = HostSockets(clock.now_ns, budget)
            host.settled = self._settled

        def packet_dropped(reason: DropReason, packet: bytes, now_ns: int) -> None:
            dropped(reason, ethernet.build(BROADCAST_MAC, router.mac, ethernet.IPV4, packet), now_ns)

        self.translator = NetworkTranslator(definition, mtu_bytes, rng, router.errors, packet_dropped, host)
        if definition.mode is Mode.NAT and definition.nat.outside is not Outside.SOCKETS:
            outsides.open(definition, router, self.translator, self.send)
        router.translator = self

    # What the router asks

    def stands_for(self, address: int) -> bool:
        """Tell whether packets to an address are for a virtual server, or for this machine."""
        return self.translator.stands_for(address)

    def from_inside(self, packet: bytes, now_ns: int) -> Sequence[bytes] | DropReason | None:
        """Take a packet of the network."""
        result = self.translator.from_inside(packet, now_ns)
        self._timer.watch()
        return result

    def unfinished(self, packet: bytes, segment_bytes: int, now_ns: int) -> Sequence[bytes] | None:
        """Take a packet of the network that its guest did not finish."""
        return self.translator.unfinished(packet, segment_bytes, now_ns)

    def hold(self) -> None:
        """Answer what comes from now on together."""
        self.translator.hold()

    def release(self, now_ns: int) -> Sequence[bytes]:
        """Return the packets of what has waited since `hold`."""
        packets = self.translator.release(now_ns)
        self._timer.watch()
        return packets

    def explain(self, packet: bytes, now_ns: int) -> Translation | None:
        """Return what `from_inside` would do with a packet, without doing it."""
        return self.translator.explain(packet, now_ns)

    # What callers ask

    def can_take(self, definition: NetworkDefinition) -> bool:
        """Tell whether a new definition can be taken without ending flows: addresses and ports stay what they are."""
        new, old = definition.nat, self.definition.nat
        same = (new.outside, new.first_port, new.last_port) == (old.outside, old.first_port, old.last_port)
        place = (new.uplink, new.outside_address, new.outside_gateway)
        same = same and place == (old.uplink, old.outside_address, old.outside_gateway)
        return same and definition.own_addresses == self.definition.own_addresses

    def take(self, definition: NetworkDefinition) -> None:
        """Take new limits and destinations; flows that are open go on."""
        self.definition = definition
        self.translator.take(definition)
        self._outsides.take(definition)

    def flush(self, inside: int | None) -> int:
        """Forget the entries of an inside address, or all; return how many."""
        count, packets = self.translator.flush(inside, self._clock.now_ns())
        self.send(packets)
        return count

    def send(self, packets: Sequence[bytes]) -> None:
        """Send packets by the router's ways."""
        now_ns = self._clock.now_ns()
        self._port.send([frame for packet in packets for frame in self._router.to_inside(packet, now_ns)])
        self._timer.watch()

    def close(self) -> None:
        """End every flow, forwarded port and timer. Idempotent."""
        self.send(self.translator.close(self._clock.now_ns()))
        self._outsides.close(self.definition.network)
        self._closed = True
        self._timer.stop()
        if self._router.translator is self:
            self._router.translator = None

    # Steps

    def _settled(self) -> None:
        """Send what a socket brought about."""
        if self.translator.gateway is not None:
            self.send(self.translator.gateway.take())

    def _due_ns(self) -> int | None:
        return None if self._closed else self.translator.next_wakeup_ns

    def _ticked(self, now_ns: int) -> None:
        self.send(self.translator.tick(now_ns))
