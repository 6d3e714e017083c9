"""Storm control: how many frames a second a port may send to everybody."""

from __future__ import annotations

import enum
from typing import NamedTuple

from lamina_vswitch.domain.policy.bucket import TokenBucket
from lamina_vswitch.domain.policy.settings import NS_PER_SECOND, StormControl

CALM_NS = NS_PER_SECOND
"""Time without a drop after which a storm is over."""


class StormClass(enum.Enum):
    """Frames that go to everybody."""

    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    UNKNOWN_UNICAST = "unknown_unicast"


class StormJudgement(NamedTuple):
    """Whether a frame passes, and whether the port is to be shut because the storm went on for too long."""

    passes: bool
    shut: bool = False


PASSES = StormJudgement(True)


class StormMeter:
    """The buckets of one port: for each class, one that holds what the rate brings in a second.

    A storm begins with a drop and is over when a second passes without one.
    """

    def __init__(self, control: StormControl, now_ns: int) -> None:
        self.control = control
        rates = {
            StormClass.BROADCAST: control.broadcast,
            StormClass.MULTICAST: control.multicast,
            StormClass.UNKNOWN_UNICAST: control.unknown_unicast,
        }
        self._buckets = {kind: TokenBucket(rate, rate, now_ns) for kind, rate in rates.items() if rate}
        self._begun_ns = 0
        self._last_ns: int | None = None

    def limits(self, kind: StormClass) -> bool:
        """Tell whether frames of a class are counted."""
        return kind in self._buckets

    def judge(self, kind: StormClass, now_ns: int, *, acts: bool) -> StormJudgement:
        """Judge a frame of a limited class. Only if `acts`, the frame is counted."""
        bucket = self._buckets[kind]
        if bucket.holds(1, now_ns):
            if acts:
                bucket.spend(1, now_ns)
            return PASSES
        begun = now_ns if self._last_ns is None or now_ns - self._last_ns >= CALM_NS else self._begun_ns
        if acts:
            self._begun_ns, self._last_ns = begun, now_ns
        lasted = self.control.shut_after_ns > 0 and now_ns - begun >= self.control.shut_after_ns
        return StormJudgement(False, lasted)

    def reopened(self) -> None:
        """Forget the storm for which the port was shut; the buckets stay as they are."""
        self._last_ns = None
