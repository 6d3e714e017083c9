"""How long contexts waited for cores, as /proc/pressure tells it. Pure.

Nothing is sampled: the state changes at known times, and between two changes an average that forgets with a time
constant of T moves towards the state as 1 - e^(-dt/T), which is computed when it is wanted.

Source: Linux, Documentation/accounting/psi.rst; kernel/sched/psi.c (avg10, avg60, avg300).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

WINDOWS_NS = (10_000_000_000, 60_000_000_000, 300_000_000_000)
_PPM = 1_000_000


@dataclass(slots=True)
class Share:
    """One kind of waiting: whether it goes on, for how long in all, and the averages over the windows."""

    on: bool = False
    since: int = 0
    total_ns: int = 0
    averages: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def turn(self, on: bool, now: int) -> None:
        """Notes the state from `now` on."""
        if on is not self.on:
            self.advance(now)
            self.on = on

    def advance(self, now: int) -> None:
        """Adds the time up to `now`."""
        passed = now - self.since
        if passed <= 0:
            return
        self.since = now
        if self.on:
            self.total_ns += passed
        target = 1.0 if self.on else 0.0
        self.averages = [
            target + (average - target) * math.exp(-passed / window)
            for average, window in zip(self.averages, WINDOWS_NS, strict=True)
        ]

    def ppm(self) -> tuple[int, int, int]:
        """Returns the averages over 10, 60 and 300 s, in parts a million."""
        ten, sixty, more = (round(average * _PPM) for average in self.averages)
        return ten, sixty, more


@dataclass(slots=True)
class Waiting:
    """Contexts of one group: how many wait for a core, how many have one."""

    ready: int = 0
    running: int = 0
    some: Share = field(default_factory=Share)
    full: Share = field(default_factory=Share)

    def change(self, ready: int, running: int, now: int) -> None:
        """Adds to the two numbers at `now`."""
        self.ready += ready
        self.running += running
        self.some.turn(self.ready > 0, now)
        self.full.turn(self.ready > 0 and self.running == 0, now)

    def advance(self, now: int) -> None:
        """Brings the times up to `now`."""
        self.some.advance(now)
        self.full.advance(now)
