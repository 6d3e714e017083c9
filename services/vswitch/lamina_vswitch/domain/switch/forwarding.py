"""Forwarding of batches: the data plane of one switch.

A batch enters at one port at one instant. At a plain port, frames with the same fourteen header bytes meet the same
rules as long as neither the fdb nor a port changes, so the first one is decided and the others follow it (a flow cache
that lives for one batch). Tagged frames and frames whose source could not be learned are decided one by one, and so is
everything at a port whose policy has something to say. Frames between two stations that the fdb knows take a short cut:
a dynamic entry belongs to a station address and names a port of the VLAN that is up, so no other rule can apply to
them, if only the header is whole and untagged. The property suite holds the short cuts to the rules.

Frames are immutable and never copied here, but for a tag that is put on or taken off: all ports that a frame leaves in
the same form receive the same bytes object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import HEADER_BYTES, TPID_8021Q
from lamina_vswitch.domain.policy.loops import PROBE_TYPE
from lamina_vswitch.domain.policy.shaper import Shaper
from lamina_vswitch.domain.switch.admission import Admission, Shutting, Tag, admit
from lamina_vswitch.domain.switch.decision import Decision, decide, refused
from lamina_vswitch.domain.switch.fdb import Learned
from lamina_vswitch.domain.switch.tagging import Form, form_at, in_form
from lamina_vswitch.domain.switch.topology import Port, Shut, ShutReason, Switch

Append = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Move:
    """An address that was learned at one port and was now seen at another; slots of both."""

    mac: bytes
    vlan: int
    old_port: int
    new_port: int


@dataclass(slots=True, init=False)
class Forwarding:
    """What became of a batch.

    `deliveries` maps the slot of a receiving port to its frames, and `drops` a reason to the frames dropped for it,
    both in the order in which the frames came; `decisions` has what was decided about the first frame of each reason.
    `learned` are the frames whose source was new, `refused` those whose source the full fdb could not learn, `spoofed`
    those whose source has a static entry elsewhere; all were forwarded.
    `shut` are the slots of ports that were shut. Frames that wait for the port's shaper are in none of these.
    """

    deliveries: dict[int, list[bytes]]
    drops: dict[DropReason, list[bytes]]
    decisions: dict[DropReason, Decision]
    flooded: list[bytes]
    learned: list[bytes]
    moves: list[Move]
    refused: list[bytes]
    spoofed: list[bytes]
    shut: list[int]

    def __init__(self, decisions: dict[DropReason, Decision] | None = None) -> None:
        # One is made for each batch: written out, this takes half of what nine default factories take.
        self.deliveries, self.drops, self.decisions = {}, {}, {} if decisions is None else decisions
        self.flooded, self.learned, self.moves, self.refused, self.spoofed, self.shut = [], [], [], [], [], []

    def route(self, switch: Switch, decision: Decision) -> tuple[Append, ...]:
        """Return what has to be called with an untagged frame for which this was decided."""
        if decision.drop is not None:
            self.decisions.setdefault(decision.drop, decision)
            return (self.drops.setdefault(decision.drop, []).append,)
        route = self._appends(switch, decision.outputs, decision.vlan)
        return (*route, self.flooded.append) if decision.flooded else route

    def known(self, switch: Switch, port: Port, slot: int) -> tuple[Append, ...]:
        """Return the same for a frame that goes to a port of which the fdb knows, and to whoever hears everything."""
        if not switch.listening:
            return self._appends(switch, (slot,), port.vlan)
        listeners = switch.audience(port, port.vlan).listeners
        return self._appends(switch, listeners if slot in listeners else (slot, *listeners), port.vlan)

    def send(self, switch: Switch, decision: Decision, frame: bytes) -> None:
        """Send one frame, tagged or not, where it was decided that it goes."""
        if decision.drop is not None:
            self.decisions.setdefault(decision.drop, decision)
            self.drops.setdefault(decision.drop, []).append(frame)
            return
        if not switch.trunked and decision.tag is Tag.NONE:
            for slot in decision.outputs:
                self.deliveries.setdefault(slot, []).append(frame)
        else:
            self._send_formed(switch, decision, frame)
        if decision.flooded:
            self.flooded.append(frame)

    def _send_formed(self, switch: Switch, decision: Decision, frame: bytes) -> None:
        forms: dict[Form, bytes] = {}
        tag_vid = decision.header.tag_vid if decision.header is not None else None
        for slot in decision.outputs:
            form = form_at(switch.ports[slot], decision.vlan, decision.tag, tag_vid)
            if form not in forms:
                forms[form] = in_form(frame, form, decision.vlan)
            self.deliveries.setdefault(slot, []).append(forms[form])

    def _appends(self, switch: Switch, slots: tuple[int, ...], vlan: int) -> tuple[Append, ...]:
        if not switch.trunked:
            return tuple([self.deliveries.setdefault(slot, []).append for slot in slots])
        same: list[Append] = []
        tagged: list[Append] = []
        for slot in slots:
            append = self.deliveries.setdefault(slot, []).append
            form = form_at(switch.ports[slot], vlan, Tag.NONE, None)
            (same if form is Form.AS_IT_CAME else tagged).append(append)
        return (*same, _tagging(tuple(tagged), vlan)) if tagged else tuple(same)


def forward(switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int) -> Forwarding:
    """Switch a batch of frames that entered at `port`; learn, and count at `port`.

    The caller delivers what the result says, and counts what the receiving ports took. Never raises for any bytes.
    """
    result = Forwarding()
    port.counters.received(frames)
    if port.plain and switch.decider is None and not switch.leads_out(port.vlan):
        _flows(switch, port, frames, now_ns, result)
    elif port.ingress is None:
        _each(switch, port, frames, now_ns, result)
    else:
        _shape(switch, port, port.ingress, frames, now_ns, result)
    _count(switch, port, result)
    return result


def forward_known(switch: Switch, port: Port, frame: bytes, now_ns: int) -> int:
    """Take the short cut with a frame that came alone; return the slot of the port where it goes, as it is.

    0: it is for `forward`, and nothing was noted of it.
    """
    size = len(frame)
    if not (port.plain and switch.alike) or not HEADER_BYTES <= size <= switch.mtu_bytes + HEADER_BYTES:
        return 0
    if frame[12:HEADER_BYTES] == TPID_8021Q or switch.leads_out(port.vlan):
        return 0
    slot = switch.fdb.known_route(port.vlan, frame[:6], frame[6:12], port.slot, now_ns)
    if slot:
        port.counters.received_frames += 1
        port.counters.received_bytes += size
    return slot


def forward_released(switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int) -> Forwarding:
    """Switch frames that the shaper of `port` has let go; they were counted when they came."""
    result = Forwarding()
    _each(switch, port, frames, now_ns, result, released=True)
    _count(switch, port, result)
    return result


def _flows(switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int, result: Forwarding) -> None:
    """Switch frames of a port whose policy has nothing to say."""
    fdb, longest = switch.fdb, switch.mtu_bytes + HEADER_BYTES
    version = fdb.version, switch.revision
    alike, delivery = switch.alike, result.deliveries.setdefault
    vlan, slot = port.vlan, port.slot
    routes: dict[bytes, tuple[Append, ...]] = {}
    for frame in frames:
        head = frame[:HEADER_BYTES]
        fits = len(frame) <= longest
        route = routes.get(head) if fits else None
        if route is None and fits and len(head) == HEADER_BYTES and head[12:] != TPID_8021Q:
            known = fdb.known_route(vlan, head[:6], head[6:12], slot, now_ns)
            if known:
                route = (delivery(known, []).append,) if alike else result.known(switch, port, known)
                routes[head] = route
        if route is None:
            decision = decide(switch, port, frame, now_ns, acts=True)
            _note(decision, switch, port, frame, now_ns, result)
            if version != (fdb.version, switch.revision):  # a frame may have had a port shut, this one or another
                version = fdb.version, switch.revision
                routes.clear()
            if not _repeatable(decision):
                result.send(switch, decision, frame)
                continue
            route = routes[head] = result.route(switch, decision)
        for append in route:
            append(frame)


def _each(
    switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int, result: Forwarding, *, released: bool = False
) -> None:
    """Switch frames one by one."""
    decide_one = switch.decider or decide
    for frame in frames:
        decision: Decision = decide_one(switch, port, frame, now_ns, acts=True, released=released)
        _note(decision, switch, port, frame, now_ns, result)
        result.send(switch, decision, frame)


def _shape(
    switch: Switch, port: Port, shaper: Shaper, frames: Sequence[bytes], now_ns: int, result: Forwarding
) -> None:
    """Let frames that come in wait for the shaper; switch those that have left it by now."""
    for frame in frames:
        _each(switch, port, shaper.release(now_ns), now_ns, result, released=True)
        admitted = admit(switch, port, frame, now_ns, acts=True)
        if isinstance(admitted, Admission):
            shaper.push(frame, now_ns)
            continue
        decision = refused(admitted)
        _note(decision, switch, port, frame, now_ns, result)
        result.send(switch, decision, frame)
    _each(switch, port, shaper.release(now_ns), now_ns, result, released=True)


def _note(decision: Decision, switch: Switch, port: Port, frame: bytes, now_ns: int, result: Forwarding) -> None:
    """Note what a frame did beside going somewhere, if that was out of the ordinary."""
    if decision.learned is Learned.NEW:
        result.learned.append(frame)
    elif decision.learned is Learned.MOVED and decision.header is not None:
        old, mac = switch.fdb.moved_from, decision.header.src
        result.moves.append(Move(mac, decision.vlan, old, port.slot))
        loop = switch.loop.moved(decision.vlan, mac, old, port.slot, now_ns) if switch.loop is not None else None
        if loop is not None:
            _shut(switch, Shutting(loop.shut, ShutReason.LOOP, loop.peer), now_ns, result)
    elif decision.learned is Learned.FULL:
        result.refused.append(frame)
    elif decision.learned is Learned.STATIC_ELSEWHERE:
        result.spoofed.append(frame)
    if decision.shutting is not None:
        _shut(switch, decision.shutting, now_ns, result)


def _shut(switch: Switch, shutting: Shutting, now_ns: int, result: Forwarding) -> None:
    peer = switch.ports[shutting.peer].name if shutting.peer else ""
    if switch.shut_port(shutting.slot, Shut(shutting.reason, now_ns, peer)):
        result.shut.append(shutting.slot)


def _repeatable(decision: Decision) -> bool:
    """Tell whether the next frame with the same header bytes meets the same decision and leaves the same traces."""
    header = decision.header
    return (
        header is not None
        and header.tag_vid is None
        and header.ethertype != PROBE_TYPE
        and decision.learned not in (Learned.FULL, Learned.STATIC_ELSEWHERE)
    )


def _count(switch: Switch, port: Port, result: Forwarding) -> None:
    port.counters.flooded_frames += len(result.flooded)
    for reason, frames in result.drops.items():
        port.counters.dropped(reason, len(frames))
    switch.mac_moves += len(result.moves)
    switch.mac_refusals += len(result.refused)


def _tagging(appends: tuple[Append, ...], vlan: int) -> Append:
    """Return what puts a VLAN's tag on a frame and calls all of `appends` with it."""

    def append(frame: bytes) -> None:
        tagged = in_form(frame, Form.TAGGED, vlan)
        for each in appends:
            each(tagged)

    return append
