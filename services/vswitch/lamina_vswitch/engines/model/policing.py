"""What policies have the engine do beside deciding: hold frames back, send probes, shut ports and open them again.

Everything that happens later is on one agenda. Whoever owns a clock is told the next time, and calls `advance` then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lamina_kit.rng import Rng
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.agenda import Agenda, Task
from lamina_vswitch.domain.policy.loops import LoopWatch
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.forwarding import Forwarding, forward_released
from lamina_vswitch.domain.switch.topology import Port, Shut, ShutReason, Switch
from lamina_vswitch.domain.switch.trace import refused_at

ENTER, LEAVE, PROBE, REOPEN = "enter", "leave", "probe", "reopen"
_NOTHING_YET = -1


class Plane(Protocol):
    """What the data plane does for policies."""

    def switch_at(self, slot: int) -> Switch:
        """Return the switch that a port belongs to."""

    def conclude(self, slot: int, result: Forwarding, now_ns: int) -> None:
        """Deliver and report what was decided about frames that entered at a port."""

    def deliver(self, port: Port, frames: list[bytes], now_ns: int) -> None:
        """Hand frames to whoever is behind a port, as if they had been switched there."""

    def pass_on(self, port: Port, frames: list[bytes], now_ns: int) -> None:
        """Hand frames to whoever is behind a port, past its policy."""

    def drop(self, port: Port, reason: DropReason, frames: Sequence[bytes], now_ns: int) -> None:
        """Count drops at a port, and tell of them."""

    def shifted(self, switch: Switch, now_ns: int) -> None:
        """Tell of teams that came to use other uplinks."""


class Policing:
    """The policies of the ports of a host at work. `timer` is told when `advance` is wanted next, None for never."""

    def __init__(self, plane: Plane, notice: Callable[[Notice], None]) -> None:
        self.timer: Callable[[int | None], None] = lambda _: None
        self._plane = plane
        self._notice = notice
        self._agenda = Agenda()
        self._told: int | None = None

    # Frames that wait

    def entering(self, port: Port) -> None:
        """See to it that frames which wait at the way in of a port go on in time."""
        if port.ingress is not None:
            self._at(ENTER, port.slot, port.ingress.due_ns)

    def leaving(self, port: Port, frames: list[bytes], now_ns: int) -> list[bytes]:
        """Return what may leave at a port now, of what waits there and of what comes; the rest waits or is lost."""
        passing: list[bytes] = []
        refused: dict[DropReason, list[bytes]] = {}
        for frame in frames:
            if port.egress is not None:
                passing.extend(port.egress.release(now_ns))
            reason = refused_at(port, now_ns)
            if reason is not None:
                refused.setdefault(reason, []).append(frame)
            elif port.egress is not None:
                port.egress.push(frame, now_ns)
            else:
                passing.append(frame)
        if port.egress is not None:
            passing.extend(port.egress.release(now_ns))
            self._at(LEAVE, port.slot, port.egress.due_ns)
        for reason, lost in refused.items():
            self._plane.drop(port, reason, lost, now_ns)
        return passing

    def keeps_frames(self) -> bool:
        """Tell whether frames wait at any port."""
        return self._agenda.has(ENTER, LEAVE)

    def went_down(self, port: Port, now_ns: int) -> None:
        """Drop what waits at a port, unless it is up all the same: one that is held outlives its device."""
        if port.up:
            return
        for shaper in (port.ingress, port.egress):
            waiting = shaper.clear() if shaper is not None else []
            if waiting:
                self._plane.drop(port, DropReason.SHAPED, waiting, now_ns)
        self._forget(port.slot, ENTER, LEAVE)

    def set_policy(self, slot: int, vlan: int, policy: PolicyInForce, now_ns: int) -> None:
        """Let another policy hold for a port; what waited for a shaper that ends goes on at once."""
        switch = self._plane.switch_at(slot)
        port = switch.ports[slot]
        entering = port.ingress.clear() if port.ingress is not None and policy.ingress_shaping is None else []
        leaving = port.egress.clear() if port.egress is not None and policy.egress_shaping is None else []
        switch.set_policy(slot, vlan, policy, now_ns)
        if entering:
            self._plane.conclude(slot, forward_released(switch, port, entering, now_ns), now_ns)
        if leaving:
            self._plane.pass_on(port, leaving, now_ns)
        self._at(ENTER, slot, port.ingress.due_ns if port.ingress is not None else None)
        self._at(LEAVE, slot, port.egress.due_ns if port.egress is not None else None)

    # Ports that are shut

    def shut(self, switch: Switch, slots: Sequence[int], now_ns: int) -> None:
        """Report ports that the data plane shut, and plan when loops are tried again."""
        for slot in slots:
            port = switch.ports[slot]
            if port.shut is not None:
                word = port.shut.reason.name.lower()
                self._note(port.name, "port.shut", f"shut.{word}", reason=word, peer=port.shut.peer)
                self.went_down(port, now_ns)
                self._plan_reopening(switch, port)

    def reopen(self, slot: int, now_ns: int) -> Shut | None:
        """Open a shut port again; return why it was shut."""
        switch = self._plane.switch_at(slot)
        shut = switch.reopen_port(slot)
        self._forget(slot, REOPEN)
        if shut is not None:
            word = shut.reason.name.lower()
            self._note(switch.ports[slot].name, "port.reopened", f"shut.{word}", reason=word, peer=shut.peer)
            self._plane.shifted(switch, now_ns)
        return shut

    def removed(self, slot: int) -> None:
        """Forget a port that is gone."""
        self._forget(slot, ENTER, LEAVE, REOPEN)

    def _plan_reopening(self, switch: Switch, port: Port) -> None:
        after_ns = switch.loop.detection.reopen_after_ns if switch.loop is not None else 0
        looped = port.shut is not None and port.shut.reason is ShutReason.LOOP
        at_ns = port.shut.since_ns + after_ns if port.shut is not None and looped and after_ns else None
        self._at(REOPEN, port.slot, at_ns)

    # Loops

    def set_loop_detection(self, switch: Switch, detection: LoopDetection | None, rng: Rng, now_ns: int) -> None:
        """Watch a switch for loops, from now on, or no more."""
        if detection is None:
            switch.loop = None
        elif switch.loop is None:
            switch.loop = LoopWatch(detection, rng)
        else:
            switch.loop.detection = detection
        switch.changed()
        self._at(PROBE, switch.name, now_ns if detection is not None else None)
        for port in switch.ports.values():
            self._plan_reopening(switch, port)

    def forget_switch(self, name: str) -> None:
        """Forget a switch that is gone."""
        self._at(PROBE, name, None)

    def _probe(self, switch: Switch, at_ns: int, now_ns: int) -> None:
        if switch.loop is None:
            return
        slots = [slot for slot, port in sorted(switch.ports.items()) if port.takes_part]
        slots = [slot for slot in slots if slot not in switch.teams.uplinks]
        interval_ns = switch.loop.detection.probe_interval_ns
        late = max(0, now_ns - at_ns) // interval_ns
        try:
            for slot, frame in switch.loop.probes(slots):
                port = switch.ports[slot]
                if port.takes_part:  # a probe that came back at once may have shut it
                    self._plane.deliver(port, [frame], now_ns)
        finally:
            self._at(PROBE, switch.name, at_ns + (late + 1) * interval_ns)

    # Time

    def advance(self, switches: dict[str, Switch], now_ns: int) -> None:
        """Do what is due by now, in the order of its times.

        A task that raises is off the agenda, unless it comes round by itself; the others are still due, and told so.
        """
        try:
            for at_ns, task in self._agenda.due(now_ns):
                if task.kind == PROBE:
                    self._probe(switches[task.subject], at_ns, now_ns)
                else:
                    self._attend(int(task.subject), task.kind, now_ns)
        finally:
            self._told = _NOTHING_YET  # whoever woke for the time that he was told has to hear even of the same one
            self._tell()

    def _attend(self, slot: int, kind: str, now_ns: int) -> None:
        switch = self._plane.switch_at(slot)
        port = switch.ports[slot]
        if kind == REOPEN:
            self.reopen(slot, now_ns)
        elif kind == ENTER and port.ingress is not None:
            frames = port.ingress.release(now_ns)
            self.entering(port)
            self._plane.conclude(slot, forward_released(switch, port, frames, now_ns), now_ns)
        elif kind == LEAVE and port.egress is not None:
            self._plane.pass_on(port, self.leaving(port, [], now_ns), now_ns)

    def _at(self, kind: str, subject: int | str, at_ns: int | None) -> None:
        self._agenda.set(Task(kind, str(subject)), at_ns)
        self._tell()

    def _forget(self, slot: int, *kinds: str) -> None:
        for kind in kinds:
            self._agenda.set(Task(kind, str(slot)), None)
        self._tell()

    def _tell(self) -> None:
        next_ns = self._agenda.next_ns()
        if next_ns != self._told:
            self._told = next_ns
            self.timer(next_ns)

    def _note(self, name: str, event: str, rule: str, **inputs: str) -> None:
        given = {key: value for key, value in inputs.items() if value}
        self._notice(Notice(name, event, rule, tuple(sorted(given.items()))))
