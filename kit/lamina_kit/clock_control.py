"""Who moves a stack's clock: what is behind the `Clock` service that every host serves.

`clock.py` is what the layers see of time. This is the other side: its rate, its pauses, its advances. On the machine's
clock there is nothing to control (`MachineControl`); on a virtual loop the gateway is the one that does
(`gateway.py`), and puts itself at the clock as its `control`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, InvalidArgument, OutOfRange, Violation

REAL_TIME_PERMILLE = 1000
MAX_RATE_PERMILLE = 1_000_000_000
YEAR_NS = 365 * 86_400 * 10**9
MAX_ADVANCE_NS = 10 * YEAR_NS
MAX_TIME_NS = 250 * YEAR_NS
"""Far enough below 2^63 - 1 (292 years) that timers set then still fit."""
DEFAULT_INTERVAL_MS = 1000


@dataclass(frozen=True)
class ClockReading:
    """A stack's clock at one instant. Times in nanoseconds since the stack's start, `wall_ns` in Unix time."""

    mode: str
    """`real`, `scaled`, `stepped` or `virtual`."""
    now_ns: int
    wall_ns: int
    rate_permille: int = REAL_TIME_PERMILLE
    """Thousandths of real time; 0 when the clock has no rate or does not go by itself."""
    paused: bool = False
    next_event_ns: int | None = None
    """When something is scheduled next; None when nothing is, or nobody knows."""
    seed: int | None = None
    waiting_calls: int = 0
    advances: int = 0
    behind_ns: int = 0


@dataclass(frozen=True)
class Advanced:
    """What an advance did: where it began, the clock at its end, and how long it took in real time."""

    start_ns: int
    clock: ClockReading
    real_ns: int


class ClockControl(Protocol):
    """Reads and moves the clock of a stack."""

    def read(self) -> ClockReading:
        """Returns the clock as it is."""

    async def change(self, rate_permille: int | None, paused: bool | None) -> ClockReading:
        """Changes what is given and returns the clock. Raises as `SetClock` says."""

    async def advance(self, duration_ns: int | None, time_ns: int | None) -> Advanced:
        """Lets time pass, by a duration or to a time, and returns when the stack is quiescent then. Raises as
        `AdvanceClock` says; when it is cancelled the clock stays where it came to."""

    def watch(self, interval_ms: int) -> AsyncIterator[ClockReading]:
        """Yields the clock at once, then when it has changed, at most once in `interval_ms` of real time."""


def control_of(clock: Clock) -> ClockControl:
    """Returns who controls a clock: its `control`, or one that only reads it."""
    found: ClockControl | None = getattr(clock, "control", None)
    return MachineControl(clock) if found is None else found


class MachineControl:
    """Reads a clock that nobody here moves: the machine's, or that of a virtual loop whose owner keeps it to itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def read(self) -> ClockReading:
        """Returns the clock as it is."""
        mode = self._clock.mode
        rate = REAL_TIME_PERMILLE if mode == "real" else 0
        return ClockReading(mode, self._clock.now_ns(), self._clock.wall_ns(), rate)

    async def change(self, rate_permille: int | None, paused: bool | None) -> ClockReading:
        """Refuses: `CLOCK_NOT_STEPPED`. A request that changes nothing passes."""
        if rate_permille is not None or paused is not None:
            raise self._refusal("changed")
        return self.read()

    async def advance(self, duration_ns: int | None, time_ns: int | None) -> Advanced:
        """Refuses: `CLOCK_NOT_STEPPED`."""
        raise self._refusal("advanced")

    async def watch(self, interval_ms: int) -> AsyncIterator[ClockReading]:
        """Yields the clock once an interval: this one always has changed."""
        check_interval(interval_ms)
        while True:
            yield self.read()
            await asyncio.sleep((interval_ms or DEFAULT_INTERVAL_MS) / 1000)

    def _refusal(self, verb: str) -> FailedPrecondition:
        mode = self._clock.mode
        return FailedPrecondition(
            f"The clock of this stack is {mode} and cannot be {verb} from here.",
            reason="CLOCK_NOT_STEPPED",
            next_step="Start a stack whose clock can be: `lamina up --clock stepped`.",
            mode=mode,
        )


def check_rate(mode: str, rate_permille: int) -> None:
    """Raises `CLOCK_RATE_INVALID` unless a clock of `mode` can go at this rate."""
    if mode == "virtual":
        problem = "a virtual clock has no rate: it goes as fast as the work allows"
    else:
        low = 1 if mode == "scaled" else 0
        if low <= rate_permille <= MAX_RATE_PERMILLE:
            return
        problem = f"is {rate_permille}, not within {low} to {MAX_RATE_PERMILLE}"
    raise InvalidArgument(
        f"The rate of a {mode} clock cannot be {rate_permille} thousandths of real time: {problem}.",
        reason="CLOCK_RATE_INVALID",
        violations=[Violation("rate_permille", problem)],
        next_step="1000 is as fast as real time.",
    )


def check_interval(interval_ms: int) -> None:
    """Raises `InvalidArgument` unless `interval_ms` is 0 (the default) or 10 to 60,000."""
    if interval_ms and not 10 <= interval_ms <= 60_000:
        raise InvalidArgument(
            f"A clock cannot be watched every {interval_ms} ms.",
            reason="REQUEST_INVALID",
            violations=[Violation("interval_ms", f"is {interval_ms}, not within 10 to 60000")],
        )


def target_of(now_ns: int, duration_ns: int | None, time_ns: int | None) -> int:
    """Returns the time at which an advance that begins now ends.

    Raises:
        InvalidArgument: `CLOCK_TARGET_MISSING`.
        OutOfRange: `CLOCK_BACKWARDS`, `CLOCK_ADVANCE_TOO_LONG`.
    """
    if duration_ns is None and time_ns is None:
        raise InvalidArgument(
            "An advance needs a duration or a time.",
            reason="CLOCK_TARGET_MISSING",
            violations=[Violation("target", "is not given")],
            next_step="Give one, for example `lamina clock advance 1h`.",
        )
    field = "duration_ns" if duration_ns is not None else "time_ns"
    target = now_ns + duration_ns if duration_ns is not None else time_ns or 0
    if target < now_ns:
        raise OutOfRange(
            f"The clock stands at {now_ns} ns and cannot go back to {target} ns.",
            reason="CLOCK_BACKWARDS",
            violations=[Violation(field, f"lies {now_ns - target} ns before the clock")],
            next_step="Advance to a later time, or start a stack anew.",
            now_ns=now_ns,
        )
    if target - now_ns > MAX_ADVANCE_NS or target > MAX_TIME_NS:
        raise OutOfRange(
            f"The clock cannot advance from {now_ns} ns to {target} ns: 10 years at once and 250 in all are the limit.",
            reason="CLOCK_ADVANCE_TOO_LONG",
            violations=[Violation(field, f"lies {target - now_ns} ns ahead, at {target} ns")],
            next_step="Advance in parts, or start a stack anew.",
            now_ns=now_ns,
        )
    return target
