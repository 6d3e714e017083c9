"""Forwarding of batches: the data plane of one switch.

A batch enters at one port at one instant. Within it, frames with the same fourteen header bytes meet the same rules as
long as the fdb does not change, so the first one is decided and the others follow it (a flow cache that lives for one
batch). Tagged frames and frames whose source could not be learned are decided one by one. Frames between two stations
that the fdb knows take a short cut: a dynamic entry belongs to a station address and names a port of the VLAN that is
up, so no other rule can apply to them, if only the header is whole and untagged. The property suite holds the short
cuts to the rules.

Frames are immutable and never copied here, but for a tag that is taken off: all ports that a frame is flooded to
receive the same bytes object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lamina_vswitch.domain.decision import Decision, decide
from lamina_vswitch.domain.drop import DropReason
from lamina_vswitch.domain.fdb import Learned
from lamina_vswitch.domain.frame import HEADER_BYTES, TPID_8021Q, untagged
from lamina_vswitch.domain.topology import Port, Switch

Append = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Move:
    """An address that was learned at one port and was now seen at another; slots of both."""

    mac: bytes
    vlan: int
    old_port: int
    new_port: int


@dataclass(slots=True)
class Forwarding:
    """What became of a batch.

    `deliveries` maps the slot of a receiving port to its frames, and `drops` a reason to the frames dropped for it,
    both in the order in which the frames came; `decisions` has what was decided about the first frame of each reason.
    `learned` are the frames whose source was new, `refused` those whose source the full fdb could not learn, `spoofed`
    those whose source has a static entry elsewhere; all were forwarded.
    """

    deliveries: dict[int, list[bytes]] = field(default_factory=dict)
    drops: dict[DropReason, list[bytes]] = field(default_factory=dict)
    decisions: dict[DropReason, Decision] = field(default_factory=dict)
    flooded: list[bytes] = field(default_factory=list)
    learned: list[bytes] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    spoofed: list[bytes] = field(default_factory=list)

    def route(self, decision: Decision) -> tuple[Append, ...]:
        """Return what has to be called with a frame for which this was decided."""
        if decision.drop is not None:
            self.decisions.setdefault(decision.drop, decision)
            return (self.drops.setdefault(decision.drop, []).append,)
        lists = [self.deliveries.setdefault(slot, []) for slot in decision.outputs]
        if decision.flooded:
            lists.append(self.flooded)
        return tuple(chosen.append for chosen in lists)


def forward(switch: Switch, port: Port, frames: Sequence[bytes], now_ns: int) -> Forwarding:
    """Switch a batch of frames that entered at `port`; learn, and count at `port`.

    The caller delivers what the result says, and counts what the receiving ports took. Never raises for any bytes.
    """
    result = Forwarding()
    port.counters.received(frames)
    fdb, longest, version = switch.fdb, switch.mtu_bytes + HEADER_BYTES, switch.fdb.version
    routes: dict[bytes, tuple[Append, ...]] = {}
    for frame in frames:
        head = frame[:HEADER_BYTES]
        fits = len(frame) <= longest
        route = routes.get(head) if fits else None
        if route is None and fits and len(head) == HEADER_BYTES and head[12:] != TPID_8021Q:
            known = fdb.known_route(port.vlan, head[:6], head[6:12], port.slot, now_ns)
            if known:
                route = routes[head] = (result.deliveries.setdefault(known, []).append,)
        if route is None:
            decision = decide(switch, port, frame, now_ns, fdb.learn)
            _note_source(decision, switch, port, frame, result)
            if version != fdb.version:
                version = fdb.version
                routes.clear()
            route = result.route(decision)
            if _repeatable(decision):
                routes[head] = route
            elif decision.drop is None and decision.header is not None and decision.header.tag_vid is not None:
                frame = untagged(frame)
        for append in route:
            append(frame)
    _count(switch, port, result)
    return result


def _note_source(decision: Decision, switch: Switch, port: Port, frame: bytes, result: Forwarding) -> None:
    """Note what the source address of a frame did, if that was out of the ordinary."""
    if decision.learned is Learned.NEW:
        result.learned.append(frame)
    elif decision.learned is Learned.MOVED and decision.header is not None:
        result.moves.append(Move(decision.header.src, port.vlan, switch.fdb.moved_from, port.slot))
    elif decision.learned is Learned.FULL:
        result.refused.append(frame)
    elif decision.learned is Learned.STATIC_ELSEWHERE:
        result.spoofed.append(frame)


def _repeatable(decision: Decision) -> bool:
    """Tell whether the next frame with the same header bytes meets the same decision and leaves the same traces."""
    header = decision.header
    return (
        header is not None
        and header.tag_vid is None
        and decision.learned not in (Learned.FULL, Learned.STATIC_ELSEWHERE)
    )


def _count(switch: Switch, port: Port, result: Forwarding) -> None:
    port.counters.flooded_frames += len(result.flooded)
    for reason, frames in result.drops.items():
        port.counters.dropped(reason, len(frames))
    switch.mac_moves += len(result.moves)
    switch.mac_refusals += len(result.refused)
