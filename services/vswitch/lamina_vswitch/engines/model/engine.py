"""The `model` engine: the switches of a host in this process, without privileges, deterministic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from lamina_kit.errors import FailedPrecondition
from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.metadata import any_laden
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce
from lamina_vswitch.domain.port.loss import Loss
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.domain.sampling import Notice, Sampler
from lamina_vswitch.domain.switch.decision import Decision
from lamina_vswitch.domain.switch.forwarding import Forwarding, forward, forward_known
from lamina_vswitch.domain.switch.topology import LeaseBook, NoLeases, Port, Shut, Switch
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.engines.model.egress import Egress
from lamina_vswitch.engines.model.holds import HeldPorts
from lamina_vswitch.engines.model.mac_tables import NS_PER_SECOND
from lamina_vswitch.engines.model.notices import Notices
from lamina_vswitch.engines.model.policing import Policing
from lamina_vswitch.engines.model.uplinks import UplinkPorts
from lamina_vswitch.engines.model.watching import WatchedTables


class ModelEngine(WatchedTables, UplinkPorts, HeldPorts):
    """Switches as Python objects. One writer: every method runs to its end before another begins."""

    name: ClassVar[str] = "model"
    capabilities: ClassVar[tuple[str, ...]] = (
        *("access-vlan", "given-time", "hold-frames", "learning", "offloads", "policies", "static-mac"),
        *("steady-uplinks", "teaming", "trace-frame", "watching"),
    )

    @classmethod
    def missing(cls) -> list[str]:
        """Return nothing: this engine runs wherever Python does."""
        return []

    def __init__(self, notice: Callable[[Notice], None]) -> None:
        super().__init__()
        self._sinks: dict[int, FrameSink] = {}
        self._loss: dict[int, Loss] = {}
        self._egress = Egress(self.drop)
        self._leases: LeaseBook = NoLeases()
        self._sampler = Sampler()
        self._notice = notice
        self._notices = Notices(self._sampler, notice)
        self._policing = Policing(self, notice)
        self.port_changed: Callable[[int], None] = _nobody

    def close(self) -> None:
        """Do nothing: there is nothing outside of this process."""

    def descriptor(self) -> int | None:
        """Return None: nothing comes from outside."""
        return None

    def listen_outside(self, now_ns: int) -> None:
        """Do nothing."""

    def add_switch(self, name: str, switch: SwitchDefinition) -> None:
        """Make a switch without ports."""
        ageing_ns = switch.ageing_seconds * NS_PER_SECOND
        made = self._switches[name] = Switch(name, switch.mtu_bytes, ageing_ns, switch.mac_limit)
        made.port_changed = self._changed
        made.disturbed = self._disturbed
        made.leases = self._leases
        self._watching.add_switch(name)

    def remove_switch(self, name: str) -> None:
        """Remove a switch that has no ports."""
        del self._switches[name]
        self._sampler.forget(name)
        self._watching.remove_switch(name)
        self._policing.forget_switch(name)

    def add_port(self, switch: str, slot: int, name: str, vlan: int, link_up: bool) -> None:
        """Make a port, detached."""
        self._switches[switch].add_port(Port(slot, name, vlan, link_up))
        self._switch_of[slot] = self._switches[switch]

    def remove_port(self, slot: int, now_ns: int) -> None:
        """Remove a port and all MAC entries that name it; its sink learns of it."""
        self.elsewhere.left(self._switch_of[slot])
        self._sampler.forget(self._port(slot).name)
        self._watching.remove_port(self._switch_of[slot], self._port(slot), self.counters(slot))
        switch = self._switch_of.pop(slot)
        switch.remove_port(slot, now_ns)
        self._loss.pop(slot, None)
        self._egress.removed(slot)
        self._policing.removed(slot)
        self._egress.settle(self._policing.keeps_frames)
        sink = self._sinks.pop(slot, None)
        if sink is not None:
            sink.removed()
        self.shifted(switch, now_ns)

    def set_link(self, slot: int, up: bool, now_ns: int) -> None:
        """Switch the link; the sink learns of a change."""
        if self._switch_of[slot].set_link(slot, up, now_ns):
            self._tell_link(slot, now_ns)

    def break_link(self, slot: int, broken: bool, now_ns: int) -> None:
        """Break a port's cable or mend it; the sink learns of a change."""
        if self._switch_of[slot].set_broken(slot, broken, now_ns):
            self._tell_link(slot, now_ns)

    def set_loss(self, slot: int, loss: Loss | None) -> None:
        """Let frames get lost at a port, or no more."""
        self._loss.pop(slot, None)
        if loss is not None:
            self._loss[slot] = loss
        self._switch_of[slot].changed()

    def link(self, slot: int) -> bool:
        """Return whether the device sees a link."""
        return self._port(slot).link

    def set_copies_only(self, slot: int, copies_only: bool, now_ns: int) -> None:
        """Let a port take part in nothing but receiving copies, or in everything again."""
        self._switch_of[slot].set_copies_only(slot, copies_only, now_ns)
        self.shifted(self._switch_of[slot], now_ns)

    def set_vlan(self, slot: int, vlan: int, now_ns: int) -> None:
        """Move a port to another access VLAN."""
        self.elsewhere.left(self._switch_of[slot])  # before the VLAN's counters are kept
        if self._port(slot).policy.trunk is None:
            self._watching.leave_vlan(self._switch_of[slot], self._port(slot), self.counters(slot))
        self._switch_of[slot].set_vlan(slot, vlan, now_ns)

    def attach(self, slot: int, sink: FrameSink, now_ns: int, takes: Takes | None = None) -> None:
        """Give the port a carrier. Raises FailedPrecondition `PORT_ATTACHED` when another sink holds it."""
        if slot in self._sinks:
            raise FailedPrecondition(
                f"{self._port(slot).name} has a stream attached already.",
                reason="PORT_ATTACHED",
                next_step="End that stream first, or attach to another port.",
                port=self._port(slot).name,
            )
        self._sinks[slot] = sink
        self._egress.attached(slot, takes)
        self._switch_of[slot].set_attached(slot, True, now_ns)
        self.shifted(self._switch_of[slot], now_ns)

    def detach(self, slot: int, sink: FrameSink, now_ns: int) -> bool:
        """Take the carrier away. False: `sink` was not attached here."""
        if self._sinks.get(slot) is not sink:
            return False
        del self._sinks[slot]
        self._egress.detached(slot)
        self._port(slot).listening = None
        self._switch_of[slot].set_attached(slot, False, now_ns)
        self._policing.went_down(self._port(slot), now_ns)
        self._egress.settle(self._policing.keeps_frames)
        self.shifted(self._switch_of[slot], now_ns)
        return True

    def transmit(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Switch a batch and put each copy in the queue of its port; return how many were dropped on the way in."""
        switch = self._switch_of[slot]
        port = switch.ports[slot]
        alone = len(frames) == 1 and type(frames[0]) is bytes and now_ns < port.record_due_ns
        if alone and not self._loss and self._watching.observer is None:
            target = forward_known(switch, port, frames[0], now_ns)
            if target:
                receiver = switch.ports[target]
                send = self.deliver if self._egress.busy or not receiver.plain else self.put
                send(receiver, list(frames), now_ns)
                return 0
        lost = 0
        if port.policy.trunk is not None:
            self._watching.of_trunks(switch).received(port, frames)
        if slot in self._loss:
            frames, gone = self._loss[slot].split(frames)
            port.counters.received(gone)
            self._lose(port, Direction.INGRESS, gone, now_ns)
            lost = len(gone)
        if now_ns >= port.record_due_ns and frames:
            self._watching.entering(switch, port, frames, now_ns)
        if self._egress.busy:
            self._watching.traced(switch, port, frames, now_ns)
        result = forward(switch, port, frames, now_ns)
        if self._watching.observer is not None:
            self._watching.entered(port, frames, result, now_ns)
        self.conclude(slot, result, now_ns)
        if not port.plain:
            self._policing.entering(port)
        return lost + sum(len(dropped) for dropped in result.drops.values())

    def deliver(self, port: Port, frames: list[bytes], now_ns: int) -> None:
        """Hand frames to whoever is behind a port, as its policy allows."""
        if not port.plain:
            frames = self._policing.leaving(port, frames, now_ns)
        if frames:
            self.pass_on(port, frames, now_ns)

    def pass_on(self, port: Port, frames: list[bytes], now_ns: int) -> None:
        """Hand frames to whoever is behind a port, past its policy."""
        if port.slot in self._loss:
            frames, gone = self._loss[port.slot].split(frames)
            self._lose(port, Direction.EGRESS, gone, now_ns)
        given = self._egress.wanted(port, frames) if self._egress.busy else frames
        frames = self._egress.ready(port, given, now_ns) if self._egress.busy else frames
        if frames:
            self.put(port, frames, now_ns, given)

    def put(self, port: Port, frames: list[bytes], now_ns: int, given: Sequence[bytes] = (), counted: int = 0) -> int:
        """Put frames into the queue of a device; return how many it took. They are what was made of those `given`, if
        any were; the first `counted` were in the queue before."""
        taken = self._sinks[port.slot].deliver(frames)
        if taken < len(frames):
            lost = (self._egress.traceable(port, given) if any_laden(given) else frames)[taken:]
            frames = frames[:taken]
            self.overflowed(port.slot, lost, now_ns)
        new = frames[counted:] if counted else frames
        port.counters.sent(new)
        if port.policy.trunk is not None:
            self._watching.of_trunks(self._switch_of[port.slot]).sent(port, new)
        if self._watching.observer is not None and new:
            self._watching.observer.passed(port, Direction.EGRESS, new, now_ns)
        return taken

    def copy(self, slot: int, frames: Sequence[bytes], now_ns: int) -> int:
        """Send copies of a mirror out of a port; return how many: none when it is not up."""
        port = self._port(slot)
        if not port.up:
            return 0
        self.deliver(port, list(frames), now_ns)
        return len(frames)

    def drop(
        self,
        port: Port,
        reason: DropReason,
        frames: Sequence[bytes],
        now_ns: int,
        direction: Direction = Direction.EGRESS,
    ) -> None:
        """Count drops at a port, behind the switch if nothing else is said, and tell of them."""
        port.counters.dropped(reason, len(frames))
        self._tell_dropped(port, direction, reason, frames, now_ns)

    def turned_away(self, slot: int, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Count and report frames that a transport found bad on the way in."""
        if frames:
            port = self._port(slot)
            port.counters.received(frames)
            if port.policy.trunk is not None:
                self._watching.of_trunks(self._switch_of[slot]).received(port, frames)
            self.drop(port, reason, frames, now_ns, Direction.INGRESS)

    def listen(self, slot: int, listening: ReceiveFilter) -> None:
        """Note what the device at a port listens to."""
        self._port(slot).listening = listening
        self._switch_of[slot].changed()
        self._egress.filtered(slot)

    def _lose(self, port: Port, direction: Direction, frames: list[bytes], now_ns: int) -> None:
        if frames:
            self.drop(port, DropReason.FAULT, frames, now_ns, direction)

    def _tell_dropped(
        self,
        port: Port,
        direction: Direction,
        reason: DropReason,
        frames: Sequence[bytes],
        now_ns: int,
        decision: Decision | None = None,
    ) -> None:
        """Tell everybody who wants to know of drops that were counted at `port`; every drop comes here."""
        self._notices.dropped(port, reason, frames, now_ns)
        self._watching.dropped(self._switch_of[port.slot], port, direction, reason, frames, now_ns, decision)

    def _tell_link(self, slot: int, now_ns: int) -> None:
        if not self._port(slot).link:
            self._policing.went_down(self._port(slot), now_ns)
        sink = self._sinks.get(slot)
        if sink is not None:
            sink.link_changed(self._port(slot).link)
        self.shifted(self._switch_of[slot], now_ns)

    def attached(self, slot: int) -> bool:
        """Return whether a sink is attached."""
        return slot in self._sinks

    def refused(self, slot: int, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Count and report frames that whoever is behind a port could not use."""
        self.drop(self._port(slot), reason, frames, now_ns)

    # Policies

    def set_policy(self, slot: int, vlan: int, policy: PolicyInForce, now_ns: int) -> None:
        """Let a policy hold for a port, with its access or native VLAN."""
        switch, port = self._switch_of[slot], self._port(slot)
        self.elsewhere.left(switch)
        was_trunk = port.policy.trunk is not None
        if not was_trunk and (port.vlan != vlan or policy.trunk is not None):
            self._watching.leave_vlan(switch, port, self.counters(slot))
        self._policing.set_policy(slot, vlan, policy, now_ns)
        self._egress.settle(self._policing.keeps_frames)
        if was_trunk and policy.trunk is None:
            self._watching.enter_vlan(switch, port, self.counters(slot))

    def set_loop_detection(self, name: str, detection: LoopDetection | None, rng: Rng, now_ns: int) -> None:
        """Watch a switch for loops, or no more."""
        self._policing.set_loop_detection(self._switches[name], detection, rng, now_ns)

    def set_lease_book(self, book: LeaseBook) -> None:
        """Ask this book which port was given which address."""
        self._leases = book
        for switch in self._switches.values():
            switch.leases = book

    def shut(self, slot: int) -> Shut | None:
        """Return why a port is shut; None when it is not."""
        return self._port(slot).shut

    def reopen(self, slot: int, now_ns: int) -> Shut | None:
        """Open a shut port again; return why it was shut, None when it was not."""
        return self._policing.reopen(slot, now_ns)

    def advance(self, now_ns: int) -> None:
        """Do what is due by now: frames that leave shapers, probes, ports that are tried again."""
        self._policing.advance(self._switches, now_ns)
        self._egress.settle(self._policing.keeps_frames)

    @property
    def timer(self) -> Callable[[int | None], None]:
        """Who is told when `advance` is wanted next."""
        return self._policing.timer

    @timer.setter
    def timer(self, timer: Callable[[int | None], None]) -> None:
        self._policing.timer = timer

    # What the compiled plane needs, which switches bursts of frames in memory beside `transmit`

    def switch_at(self, slot: int) -> Switch:
        """Return the switch that a port belongs to."""
        return self._switch_of[slot]

    def sink_at(self, slot: int) -> FrameSink | None:
        """Return what is attached to a port."""
        return self._sinks.get(slot)

    def direct(self, slot: int, *, tags: bool = False) -> bool:
        """Return whether plain frames, and such with `tags`, pass between queue and pipeline of a port as they are."""
        return slot not in self._loss and self._port(slot).listening is None and self._egress.untouched(slot, tags)

    def record(self, slot: int, frames: Iterable[bytes], now_ns: int) -> None:
        """Record what will become of the first one that passes of frames that are about to enter at a port."""
        self._watching.entering(self._switch_of[slot], self._port(slot), frames, now_ns)

    def conclude(self, slot: int, result: Forwarding, now_ns: int) -> None:
        """Deliver and report what was decided elsewhere about frames that entered at a port, as `transmit` does."""
        switch = self._switch_of[slot]
        port = switch.ports[slot]
        if result.moves:
            self.elsewhere.moved(switch, result.moves)
        deliveries = result.deliveries
        for target in sorted(deliveries) if len(deliveries) > 1 else deliveries:
            receiver = switch.ports[target]
            (self.pass_on if receiver.plain else self.deliver)(receiver, deliveries[target], now_ns)
        for reason in sorted(result.drops):
            first = result.decisions.get(reason)
            self._tell_dropped(port, Direction.INGRESS, reason, result.drops[reason], now_ns, first)
        self._notices.forwarded(switch, port, result, now_ns)
        if result.flooded and port.policy.trunk is not None:
            self._watching.of_trunks(switch).flooded(port, result.flooded)
        if result.shut:
            self._policing.shut(switch, result.shut, now_ns)
            self.shifted(switch, now_ns)

    def overflowed(self, slot: int, frames: Sequence[bytes], now_ns: int) -> None:
        """Count and report frames that did not fit into the queue of a port."""
        self.refused(slot, DropReason.QUEUE_FULL, frames, now_ns)

    def _changed(self, slot: int) -> None:
        self.port_changed(slot)

    def _port(self, slot: int) -> Port:
        return self._switch_of[slot].ports[slot]


def _nobody(slot: int) -> None:
    """Is told of ports where nobody wants to know."""
