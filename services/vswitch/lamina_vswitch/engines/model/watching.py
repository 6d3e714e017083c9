"""What the engine tells and keeps of frames for people: an observer, records, counters of VLANs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

from lamina_vswitch.domain.capture.observer import Direction, Observer, accepted
from lamina_vswitch.domain.capture.records import FrameRecord, RecordBook, is_sampled, lost_at, lost_behind
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.port.counters import Counters
from lamina_vswitch.domain.sampling import PERIOD_NS
from lamina_vswitch.domain.switch.decision import Decision, decide
from lamina_vswitch.domain.switch.forwarding import Forwarding
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.domain.switch.trace import Trace, tell, trace
from lamina_vswitch.domain.switch.vlan_counters import VlanCounters, vlan_of
from lamina_vswitch.engines.model.mac_tables import Tables


class Watching:
    """Hears of every frame from the engine. With no observer, and no record due, it costs two tests a batch."""

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self.book = RecordBook()
        self._vlans: dict[str, VlanCounters] = {}

    def entering(self, switch: Switch, port: Port, frames: Iterable[bytes], now_ns: int) -> None:
        """Record, before anything is learned from them, what will become of the first frame of a batch that passes."""
        for frame in frames:
            decision = decide(switch, port, frame, now_ns)
            if decision.drop is not None or is_sampled(frame):  # `traced` records it
                continue
            told = tell(switch, port, frame, decision, now_ns)
            if told.decision.drop is None:
                port.record_due_ns = now_ns + PERIOD_NS
                self.book.add(switch.name, port.name, frame, told, now_ns)
                return
        port.record_due_ns = now_ns + PERIOD_NS // 100  # a port that sends nothing good is not looked at each time

    def traced(self, switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int) -> None:
        """Record the frames of a batch that carry a sampled trace, before they are switched."""
        for frame in frames:
            if type(frame) is not bytes and is_sampled(frame):
                self.book.add(switch.name, port.name, frame, trace(switch, port, frame, now_ns), now_ns)

    def entered(self, port: Port, frames: Sequence[bytes], result: Forwarding, now_ns: int) -> None:
        """Tell of the frames of a batch that pass."""
        passing = accepted(frames, result.drops)
        if self.observer is not None and passing:
            self.observer.passed(port, Direction.INGRESS, passing, now_ns)

    def dropped(
        self,
        switch: Switch,
        port: Port,
        direction: Direction,
        reason: DropReason,
        frames: Sequence[bytes],
        now_ns: int,
        decision: Decision | None = None,
    ) -> None:
        """Count drops for the VLANs of a trunk, and tell of them."""
        if port.policy.trunk is not None:
            self._vlans[switch.name].dropped(port, reason, frames)
        self.lost(switch, port, direction, reason, frames, now_ns, decision)

    def lost(
        self,
        switch: Switch,
        port: Port,
        direction: Direction,
        reason: DropReason,
        frames: Sequence[bytes],
        now_ns: int,
        decision: Decision | None = None,
    ) -> None:
        """Tell of drops, and record the first one of a port and reason in a second, and each with a sampled trace.

        `decision` is what the switch decided about the first frame; None when the frames were lost at the port itself.
        """
        if self.observer is not None:
            self.observer.dropped(port, direction, reason, frames, now_ns)
        if decision is None:
            for lost in frames:
                if type(lost) is not bytes and is_sampled(lost):
                    self._record_drop(switch, port, direction, reason, lost, now_ns, None)
        if is_sampled(frames[0]):
            return  # it has been recorded: here, or by `traced`
        if self.book.is_due(port.name, reason.name, now_ns):
            self._record_drop(switch, port, direction, reason, frames[0], now_ns, decision)

    def _record_drop(
        self,
        switch: Switch,
        port: Port,
        direction: Direction,
        reason: DropReason,
        frame: bytes,
        now_ns: int,
        decision: Decision | None,
    ) -> None:
        told = tell(switch, port, frame, decision, now_ns) if decision is not None else None
        if told is None and direction is Direction.INGRESS:
            told = trace(switch, port, frame, now_ns)  # decided elsewhere: by the same rules
        if told is not None and told.decision.drop is reason:
            self.book.add(switch.name, port.name, frame, told, now_ns)
        else:
            self._record_loss(switch, port, direction, reason, frame, now_ns)

    def _record_loss(
        self, switch: Switch, port: Port, direction: Direction, reason: DropReason, frame: bytes, now_ns: int
    ) -> None:
        """Record a frame that was lost on its way into the switch, or behind it with the way that it had come."""
        entry = switch.fdb.lookup(vlan_of(port, frame), frame[6:12], now_ns) if direction is Direction.EGRESS else None
        source = switch.ports[entry.port] if entry is not None and entry.port != port.slot else None
        if source is None:
            self.book.add(switch.name, port.name, frame, lost_at(port.name, reason), now_ns)
        else:
            told = trace(switch, source, frame, now_ns)
            self.book.add(switch.name, source.name, frame, lost_behind(told, port.name, reason), now_ns)

    # The rest is bookkeeping of VLANs

    def add_switch(self, switch: str) -> None:
        """Begin to count."""
        self._vlans[switch] = VlanCounters()

    def remove_switch(self, switch: str) -> None:
        """Forget what is kept of a switch."""
        del self._vlans[switch]
        self.book.forget_switch(switch)

    def remove_port(self, switch: Switch, port: Port, counted: Counters) -> None:
        """Keep what a port that goes counted for its VLAN; `counted` is a copy."""
        if port.policy.trunk is None:
            self.leave_vlan(switch, port, counted)
        self._vlans[switch.name].forget(port.slot)
        self.book.forget_port(port.name)

    def leave_vlan(self, switch: Switch, port: Port, counted: Counters) -> None:
        """Keep what a port counted for its VLAN so far, as a copy: it goes to another one."""
        self._vlans[switch.name].leave(port.slot, port.vlan, counted)

    def enter_vlan(self, switch: Switch, port: Port, counted: Counters) -> None:
        """Let what a port counts from now on, beyond this copy, be its VLAN's: it was a trunk."""
        self._vlans[switch.name].enter(port.slot, counted)

    def of_trunks(self, switch: Switch) -> VlanCounters:
        """Return where the frames of a switch's trunks are counted one by one."""
        return self._vlans[switch.name]

    def vlan_counters(self, switch: Switch, counters: Callable[[int], Counters]) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN that has or had ports, ordered by number; `counters` has a port's."""
        access = [port for port in switch.ports.values() if port.policy.trunk is None]
        return self._vlans[switch.name].all((port.slot, port.vlan, counters(port.slot)) for port in access)


class WatchedTables(Tables):
    """The part of the engine that shows what was watched."""

    def __init__(self) -> None:
        super().__init__()
        self._watching = Watching()

    @property
    def observer(self) -> Observer | None:
        """Who hears of every frame."""
        return self._watching.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        if observer is not self._watching.observer:
            self._watching.observer = observer
            for switch in self._switches.values():
                switch.changed()
        self._attended()

    def _attended(self) -> None:
        """Do nothing: what passes here is seen in any case."""

    def records(self, switch: str) -> list[FrameRecord]:
        """Return what is recorded of the frames of a switch, newest first."""
        self._settled(switch)
        return list(self._watching.book.newest_first(switch))

    def counters(self, slot: int) -> Counters:
        """Return a copy of the counters of a port."""
        self.elsewhere.settle(self._switch_of[slot])
        return copy.deepcopy(self._switch_of[slot].ports[slot].counters)

    def trace(self, slot: int, frame: bytes, now_ns: int) -> Trace:
        """Return what would happen to a frame, and change nothing."""
        self.elsewhere.settle(self._switch_of[slot])
        return trace(self._switch_of[slot], self._switch_of[slot].ports[slot], frame, now_ns)

    def count_trunks_by(self, switch: Switch, elsewhere: Callable[[], Iterable[tuple[int, Counters]]]) -> None:
        """Let somebody count for VLANs at trunks of a switch, who is asked when that is wanted."""
        self._watching.of_trunks(switch).elsewhere = elsewhere

    def vlan_counters(self, switch: str) -> list[tuple[int, Counters]]:
        """Return the counters of every VLAN of a switch that has or had ports, ordered by number."""
        made = self._settled(switch)
        return self._watching.vlan_counters(made, lambda slot: made.ports[slot].counters)
