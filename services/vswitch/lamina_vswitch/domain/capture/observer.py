"""Who watches frames: what the data plane tells, and in which words.

The engine has one observer, or none: then watching costs one test a batch. An observer changes nothing of what it
watches, returns at once and never raises. Every frame that enters is told once: as passed, or as dropped.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.switch.topology import Port


class Direction(enum.IntEnum):
    """Which way a frame goes, seen from the switch; the numbers are those of the contract's enum and of `epb_flags`."""

    INGRESS = 1
    EGRESS = 2


class Observer(Protocol):
    """Hears of every frame at the ports of a host. Times are nanoseconds since the stack's start."""

    def wants(self, port: Port) -> bool:
        """Tell whether anybody wants to hear of a port; an engine asks where telling costs something."""

    def missed(self, port: Port, direction: Direction, count: int, now_ns: int) -> None:
        """Hear that so many frames, at least one, went this way at a port and could not be told."""

    def passed(self, port: Port, direction: Direction, frames: Sequence[bytes], now_ns: int) -> None:
        """Hear of frames that entered at `port` and went somewhere, or that were put in its queue; never empty."""

    def dropped(
        self, port: Port, direction: Direction, reason: DropReason, frames: Sequence[bytes], now_ns: int
    ) -> None:
        """Hear of frames on their way into the switch or out of it whose drop is counted at `port`; never empty."""


def accepted(frames: Sequence[bytes], drops: Mapping[DropReason, Sequence[bytes]]) -> Sequence[bytes]:
    """Return what is left of a batch without its drops, in order.

    Of equal frames the first ones count as dropped. Frames that a shaper let go with the batch may be among the drops.
    """
    if not drops:
        return frames
    gone = Counter(frame for lost in drops.values() for frame in lost)
    kept = []
    for frame in frames:
        if gone[frame]:
            gone[frame] -= 1
        else:
            kept.append(frame)
    return kept
