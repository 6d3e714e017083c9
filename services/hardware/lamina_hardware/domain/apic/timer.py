"""The timer of a local APIC: a count that goes down with a frequency and fires at 0. Pure.

Nothing counts: the timer remembers when it had which count, and everything else is arithmetic on the clock, in whole
nanoseconds. A count of n ends at the first nanosecond by which n ticks have passed. A periodic timer that would fire
more often than every `LEAST_PERIOD_NS` fires that often: fires that the processor has not looked at are one anyway.

Source: Intel SDM vol. 3, 11.5.4 (APIC timer).
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_PERIOD_NS = 10_000
_SECOND = 1_000_000_000


def divisor(register: int) -> int:
    """Returns by what the divide configuration register divides: 1 to 128."""
    code = register & 3 | register >> 1 & 4
    return 1 if code == 7 else 2 << code


@dataclass(slots=True)
class ApicTimer:
    """`frequency_hz` is that of the undivided clock. `base_count` ticks after `base_ns` it fires; 0: it rests."""

    frequency_hz: int
    divide: int = 2
    initial: int = 0
    periodic: bool = False
    base_ns: int = 0
    base_count: int = 0
    last_fired_ns: int | None = None

    def start(self, initial: int, now: int) -> None:
        """Begins to count from `initial`; 0 stops."""
        self.initial = self.base_count = initial
        self.base_ns = now
        self.last_fired_ns = None

    def reset(self) -> None:
        """Brings it to the state after power-on: one-shot, divided by 2, at rest."""
        self.divide, self.periodic = 2, False
        self.start(0, 0)

    def resume(self, initial: int, left: int, now: int) -> None:
        """Goes on with what is left of a count from `initial`; `left` is at most that, 0: it rests."""
        self.start(initial, now)
        self.base_count = left

    def count(self, now: int) -> int:
        """Returns the count at a time."""
        if not self.base_count:
            return 0
        passed = self._ticks(now - self.base_ns)
        if passed < self.base_count:
            return self.base_count - passed
        if not self.periodic:
            return 0
        return self.initial - (passed - self.base_count) % self.initial

    def set_divide(self, divide: int, now: int) -> None:
        """Goes on from the present count with another divisor."""
        self._rebase(now)
        self.divide = divide

    def set_frequency(self, frequency_hz: int, now: int) -> None:
        """Goes on from the present count with another frequency."""
        if frequency_hz != self.frequency_hz:
            self._rebase(now)
            self.frequency_hz = frequency_hz

    def forget_past(self, now: int) -> None:
        """Lets a one-shot timer rest whose deadline passed while nobody waited for it."""
        if self.base_count and not self.periodic and self.base_ns + self._time(self.base_count) < now:
            self.base_count = 0

    def set_periodic(self, periodic: bool) -> None:
        """Chooses one-shot or periodic; another mode stops the timer."""
        if periodic != self.periodic:
            self.periodic = periodic
            self.base_count = self.initial = 0

    def deadline(self, now: int) -> int | None:
        """Returns when the timer fires next, at `now` or later; None when it does not.

        For a one-shot timer that has fired this is None once `fired` was told.
        """
        if not self.base_count:
            return None
        due = self.base_ns + self._time(self.base_count)
        if self.periodic and due < now:
            missed = (self._ticks(now - self.base_ns) - self.base_count) // self.initial
            due = self.base_ns + self._time(self.base_count + missed * self.initial)
            if due < now:
                due = self.base_ns + self._time(self.base_count + (missed + 1) * self.initial)
        if self.last_fired_ns is not None:
            due = max(due, self.last_fired_ns + LEAST_PERIOD_NS)
        return max(due, now)

    def fired(self, now: int) -> None:
        """Notes that the deadline has passed: a one-shot timer rests, a periodic one begins its next period."""
        if not self.periodic:
            self.base_count = 0
            return
        passed = self._ticks(now - self.base_ns)
        periods = 1 + max(0, passed - self.base_count) // self.initial
        self.base_count += periods * self.initial
        self.last_fired_ns = now

    def _rebase(self, now: int) -> None:
        if left := self.count(now):
            self.base_count, self.base_ns = left, now

    def _ticks(self, ns: int) -> int:
        return max(0, ns) * self.frequency_hz // (self.divide * _SECOND)

    def _time(self, ticks: int) -> int:
        return -(-ticks * self.divide * _SECOND // self.frequency_hz)
