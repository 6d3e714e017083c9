"""Decisions of the kernel: what lets a frame in is decided here, what becomes of it then the kernel decides.

The rules of `domain/switch/decision.py` are read beside, over the mirror of the kernel's table. They say in words why a
frame goes where it goes, and whether the kernel did what they say; where it did something else, its word stands.
"""

from __future__ import annotations

import errno

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import is_group, parse, untagged
from lamina_vswitch.domain.switch.admission import Admission, Refusal, Rule, Tag
from lamina_vswitch.domain.switch.decision import Decision, decide, let_in, look_up, refused, way_out
from lamina_vswitch.domain.switch.fdb import Learned
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.linux.bridge.bridges import Bridges
from lamina_vswitch.engines.linux.bridge.kernel import Kernel, Stray
from lamina_vswitch.engines.linux.bridge.leg import Leg
from lamina_vswitch.engines.linux.netlink.links import RESERVED_MAC
from lamina_vswitch.engines.linux.refusal import KernelRefusal


def leaves_at(switch: Switch, stray: Stray, now_ns: int) -> int:
    """Return the port at which a frame leaves that a device of the kernel sent; 0: it leaves by another copy.

    The kernel floods to all uplinks, and takes a known station to the one where it was heard; the team of the sender
    may use another one.
    """
    slot, vlan, frame = stray
    header = parse(frame, switch.mtu_bytes)
    if slot not in switch.teams.uplinks or isinstance(header, DropReason):
        return slot
    source = switch.fdb.lookup(vlan, header.src, now_ns)
    sender = switch.ports[source.port if source is not None and source.port not in switch.teams.uplinks else slot]
    known = None if is_group(header.dst) else switch.fdb.lookup(vlan, header.dst, now_ns)
    if sender.slot == slot or (known is not None and known.static):
        return slot
    chosen = way_out(switch, sender, Admission(header, vlan, Tag.NONE), frame)
    return chosen if chosen == slot or known is not None else 0


class Crossing:
    """Decides for one switch: a `Decider`. `disagreements` counts frames that took another way than the rules say."""

    def __init__(self, kernel: Kernel, bridges: Bridges) -> None:
        self.disagreements = 0
        self._kernel = kernel
        self._bridges = bridges

    def __call__(
        self, switch: Switch, port: Port, frame: bytes, now_ns: int, *, acts: bool, released: bool = False
    ) -> Decision:
        """Send a frame through the kernel, and return what became of it; a trace is decided by the rules alone."""
        if not acts:
            return decide(switch, port, frame, now_ns, released=released)
        admitted = let_in(switch, port, frame, now_ns, acts=True, released=released)
        if isinstance(admitted, Refusal):
            return refused(admitted)
        try:
            leg = self._leg(port, admitted)
            return self._cross(switch, port, leg, admitted, frame, now_ns)
        except LaminaError:  # of the kernel's, or of a device's rules and programs when the switch was settled
            learned = switch.fdb.would_learn(admitted.vlan, admitted.header.src, port.slot, now_ns)
            return self._lost(look_up(switch, port, admitted, learned, now_ns, frame))

    def _cross(self, switch: Switch, port: Port, leg: Leg, admitted: Admission, frame: bytes, now_ns: int) -> Decision:
        header, vlan, tag = admitted
        before = switch.fdb.lookup(vlan, header.src, now_ns)
        was = before.port if before is not None else 0
        inner = frame if tag is Tag.NONE else untagged(frame)
        slots = self._kernel.cross(leg, inner, now_ns)
        learned = self._learned(switch, port, admitted, was, now_ns)
        if learned is Learned.MOVED:
            switch.fdb.moved_from = was
        expected = look_up(switch, port, admitted, learned, now_ns, frame)
        outputs = self._outputs(switch, port, admitted, slots, expected)
        if outputs == expected.outputs:
            return expected
        self.disagreements += 1
        if not outputs:
            return self._lost(expected)
        return expected._replace(outputs=outputs, drop=None)

    def _leg(self, port: Port, admitted: Admission) -> Leg:
        """Return where a frame enters the kernel. Raises Unavailable `KERNEL_REFUSED` when there can be none."""
        if not self._bridges.is_settled:
            self._bridges.settle()
        leg = self._bridges.leg(port.slot, admitted.vlan)
        if leg is None:
            self._bridges.wake(admitted.vlan)
            leg = self._bridges.leg(port.slot, admitted.vlan)
        if leg is None:
            raise KernelRefusal("a place in a VLAN", errno.ENODEV, f"port {port.slot} has none in {admitted.vlan}")
        return leg

    def _learned(self, switch: Switch, port: Port, admitted: Admission, was: int, now_ns: int) -> Learned:
        """Return what the kernel made of the source, read off what it told since."""
        entry = switch.fdb.lookup(admitted.vlan, admitted.header.src, now_ns)
        if entry is None:
            return Learned.STATIC_ELSEWHERE if admitted.header.src == RESERVED_MAC else Learned.FULL
        if entry.static:
            return Learned.STATIC if entry.port == port.slot else Learned.STATIC_ELSEWHERE
        if not was:
            return Learned.NEW
        outside = was in switch.teams.uplinks and entry.port in switch.teams.uplinks
        return Learned.REFRESHED if was == entry.port or outside else Learned.MOVED

    def _outputs(
        self, switch: Switch, port: Port, admitted: Admission, slots: list[int], expected: Decision
    ) -> tuple[int, ...]:
        """Return who gets the frame: whom the kernel gave it to, as far as that is for a bridge to say.

        No bridge knows of ports that hear everything, nor of several ways out of which a frame takes one: it floods to
        all uplinks, and what comes in at one goes out at another.
        """
        provider, uplinks = admitted.tag is Tag.PROVIDER, switch.teams.uplinks
        given = {slot for slot in slots if switch.ports[slot].carries(admitted.vlan, provider)}
        devices = self._kernel.devices  # where nobody sees a frame come out: the kernel is taken at the rules' word
        given.update(slot for slot in expected.outputs if devices.carries(slot, admitted.vlan))
        if expected.rule is Rule.KNOWN_UNICAST and switch.listening:
            given.update(switch.audience(port, admitted.vlan, provider).listeners)
        if port.slot in uplinks:
            given.difference_update(uplinks)
            given.intersection_update(expected.outputs)
        elif not given.isdisjoint(uplinks):
            given.difference_update(uplinks)
            given.update(slot for slot in expected.outputs if slot in uplinks)
        return tuple(sorted(given))

    def _lost(self, expected: Decision) -> Decision:
        """Return the decision about a frame that the kernel kept: for the rules' reason, or for its own."""
        reason = expected.drop if expected.drop is not None else DropReason.KERNEL
        return expected._replace(outputs=(), drop=reason)
