"""The way of a frame through everything of this host that would decide about it, hop by hop.

Nothing is sent, learned or counted: a switch is asked for its trace, and a *place* behind one of its ports (a router,
an overlay, a tunnel, an uplink) for its explanation. What a hop sends on is followed in the order in which it would
happen; at most 64 hops are told.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.offload.egress import finished
from lamina_vswitch.domain.offload.features import PLAIN
from lamina_vswitch.domain.switch.trace import Step, Trace

MAX_HOPS = 64


class Verdict(enum.Enum):
    """What a hop does with a frame."""

    FORWARDED = "forwarded"
    FLOODED = "flooded"
    DROPPED = "dropped"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class Hop:
    """One stop. `object` is the resource name of what decided, `parent` the index of the hop before, or -1.

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


class Place(Protocol):
    """Something behind a port that decides about frames."""

    def follow(self, stop: Stop, number: int, now_ns: int) -> tuple[Hop, list[Stop]]:
        """Return the hop of a frame that got here, which has this number, and the stops that come next."""


class World(Protocol):
    """What a walk asks."""

    def switch_of(self, slot: int) -> str:
        """Return the name of the switch of a port."""

    def trace(self, slot: int, frame: bytes) -> Trace:
        """Return what that switch would do with a frame that enters at the port."""

    def behind(self, slot: int) -> Place | None:
        """Return what is behind a port, if this layer knows it."""


class Stop(NamedTuple):
    """A stop to come: a frame that enters a switch at `slot`, or one that gets to a place.

    `parent` is the number of the hop that sent it. With `routed`, `data` is a packet that another router hands over.
    """

    parent: int
    data: bytes
    slot: int = 0
    place: Place | None = None
    routed: bool = False


def walk(world: World, slot: int, frame: bytes, now_ns: int) -> tuple[list[Hop], bool]:
    """Return the hops of a frame that enters at a port, and whether the way was cut off after 64 of them."""
    hops: list[Hop] = []
    stops = deque([Stop(-1, frame, slot)])
    while stops:
        if len(hops) == MAX_HOPS:
            return hops, True
        stop = stops.popleft()
        number = len(hops)
        if stop.place is None:
            hop, following = _at_switch(world, stop, number)
        else:
            hop, following = stop.place.follow(stop, number, now_ns)
        hops.append(hop)
        stops.extend(following)
    return hops, False


def refused(switch: str, reason: DropReason) -> Hop:
    """Return the one hop of a frame whose offload header does not fit it."""
    step = Step("offload", f"offload.drop_{reason.name.lower()}", EXPLANATION[reason])
    return Hop(switch, -1, Verdict.DROPPED, reason, 0, (), b"", (step,))


def _at_switch(world: World, stop: Stop, number: int) -> tuple[Hop, list[Stop]]:
    told = world.trace(stop.slot, stop.data)
    decision = told.decision
    verdict = Verdict.FLOODED if decision.flooded else Verdict.FORWARDED
    if decision.drop is not None:
        verdict = Verdict.DROPPED
    name = world.switch_of(stop.slot)
    hop = Hop(name, stop.parent, verdict, decision.drop, told.vlan, told.outputs, bytes(told.frame), told.steps)
    following = []
    for output in decision.outputs:
        place = world.behind(output)
        if place is not None:
            first = finished([told.frame], PLAIN)[0]  # of a segmented frame the first segment stands for all
            following.append(Stop(number, bytes(first), place=place))
    return hop, following
