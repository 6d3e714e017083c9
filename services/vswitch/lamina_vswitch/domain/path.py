"""The way of a frame through everything of this host that would decide about it: switches and routers, hop by hop.

Nothing is sent, learned or counted: each hop asks what the switch's trace and the router's explanation say. What a hop
sends on is followed in the order in which it would happen; at most 64 hops are told.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lamina_vswitch.domain.drop import EXPLANATION, DropReason
from lamina_vswitch.domain.offload.finish import finished
from lamina_vswitch.domain.offload.takes import PLAIN
from lamina_vswitch.domain.router.explain import Handling, explain_frame, explain_packet
from lamina_vswitch.domain.router.router import Router
from lamina_vswitch.domain.trace import Step, Trace

MAX_HOPS = 64


class Verdict(enum.Enum):
    """What a hop does with a frame."""

    FORWARDED = "forwarded"
    FLOODED = "flooded"
    DROPPED = "dropped"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class Hop:
    """One stop. `object` is the resource name of the switch or network, `parent` the index of the hop before, or -1.

    `outputs` are the names of the ports that get the frame, `frame` is the frame as it goes on.
    """

    object: str
    parent: int
    verdict: Verdict
    drop: DropReason | None
    vlan: int
    outputs: tuple[str, ...]
    frame: bytes
    steps: tuple[Step, ...]


class RouterPlace(NamedTuple):
    """Where a router is: name of its network, the router, name and slot of its port, VLAN."""

    name: str
    router: Router
    port: str
    slot: int
    vlan: int


class World(Protocol):
    """What a walk asks."""

    def switch_of(self, slot: int) -> str:
        """Return the name of the switch of a port."""

    def trace(self, slot: int, frame: bytes) -> Trace:
        """Return what that switch would do with a frame that enters at the port."""

    def router_behind(self, slot: int) -> RouterPlace | None:
        """Return the router behind a port, if one is there."""

    def router_of(self, network: str) -> RouterPlace | None:
        """Return the router of a network of the host, by the network's id."""


class _Stop(NamedTuple):
    """A stop to come: a frame that enters a switch at `slot`, or a frame or a packet that reaches a router."""

    parent: int
    data: bytes
    slot: int = 0
    place: RouterPlace | None = None
    routed: bool = False


def walk(world: World, slot: int, frame: bytes, now_ns: int) -> tuple[list[Hop], bool]:
    """Return the hops of a frame that enters at a port, and whether the way was cut off after 64 of them."""
    hops: list[Hop] = []
    stops = deque([_Stop(-1, frame, slot)])
    while stops:
        if len(hops) == MAX_HOPS:
            return hops, True
        stop = stops.popleft()
        number = len(hops)
        if stop.place is None:
            hop, following = _at_switch(world, stop, number)
        else:
            hop, following = _at_router(world, stop, stop.place, number, now_ns)
        hops.append(hop)
        stops.extend(following)
    return hops, False


def refused(switch: str, reason: DropReason) -> Hop:
    """Return the one hop of a frame whose offload header does not fit it."""
    step = Step("offload", f"offload.drop_{reason.name.lower()}", EXPLANATION[reason])
    return Hop(switch, -1, Verdict.DROPPED, reason, 0, (), b"", (step,))


def _at_switch(world: World, stop: _Stop, number: int) -> tuple[Hop, list[_Stop]]:
    told = world.trace(stop.slot, stop.data)
    decision = told.decision
    verdict = Verdict.FLOODED if decision.flooded else Verdict.FORWARDED
    if decision.drop is not None:
        verdict = Verdict.DROPPED
    name = world.switch_of(stop.slot)
    hop = Hop(name, stop.parent, verdict, decision.drop, told.vlan, told.outputs, bytes(told.frame), told.steps)
    following = []
    for output in decision.outputs:
        place = world.router_behind(output)
        if place is not None:
            first = finished([told.frame], PLAIN)[0]  # of a segmented frame the first segment stands for all
            following.append(_Stop(number, bytes(first), place=place))
    return hop, following


def _at_router(world: World, stop: _Stop, place: RouterPlace, number: int, now_ns: int) -> tuple[Hop, list[_Stop]]:
    explain = explain_packet if stop.routed else explain_frame
    handling = explain(place.router, stop.data, now_ns)
    following = [_Stop(number, frame, place.slot) for frame in handling.frames]
    if handling.to_network:
        other = world.router_of(handling.to_network)
        if other is not None:
            following.append(_Stop(number, handling.packet, place=other, routed=True))
    verdict = Verdict.FORWARDED if following else Verdict.CONSUMED
    if handling.drop is not None:
        verdict = Verdict.DROPPED
    return _routed_hop(stop, place, handling, verdict), following


def _routed_hop(stop: _Stop, place: RouterPlace, handling: Handling, verdict: Verdict) -> Hop:
    outputs = (place.port,) if handling.frames else ()
    frame = handling.frames[0] if handling.frames else b""
    return Hop(place.name, stop.parent, verdict, handling.drop, place.vlan, outputs, frame, handling.steps)
