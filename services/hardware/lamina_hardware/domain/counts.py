"""What cores and contexts count. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

REASONS = 39

EVENTS = (
    "tlb_fills", "walk_faults", "code_invalidations", "walk_references", "ept_references", "fills_4k", "fills_2m",
    "fills_1g", "accessed_bits_set", "dirty_bits_set", "interrupts", "tlb_hits",
)  # fmt: skip
"""What a core counts while it runs, in the order of its counters; after these the exceptions by vector."""
VECTORS = 32
COUNTERS = len(EVENTS) + VECTORS
NOTHING = (0,) * COUNTERS

_PLACE = {name: place for place, name in enumerate(EVENTS)}


@dataclass(slots=True)
class Counts:
    """Counters since something was made.

    `exits` and `handling_ns` have one place for each exit reason, by its number; the second is the time from an exit to
    the next run. `events` has one for each of `EVENTS` and, behind them, for each exception vector.
    """

    instructions: int = 0
    exits: list[int] = field(default_factory=lambda: [0] * REASONS)
    handling_ns: list[int] = field(default_factory=lambda: [0] * REASONS)
    events: list[int] = field(default_factory=lambda: [0] * COUNTERS)
    shootdowns: int = 0
    run_time_ns: int = 0
    wait_time_ns: int = 0
    migrations: int = 0

    def event(self, name: str) -> int:
        """Returns how often one of `EVENTS` happened."""
        return self.events[_PLACE[name]]

    @property
    def exceptions(self) -> Sequence[int]:
        """How often each exception vector was raised."""
        return self.events[len(EVENTS) :]

    def count(self, events: Sequence[int]) -> None:
        """Adds what a core counted."""
        self.events = [mine + news for mine, news in zip(self.events, events, strict=True)]

    def add(self, other: Counts) -> None:
        """Adds another's counts to these."""
        self.instructions += other.instructions
        self.exits = [mine + theirs for mine, theirs in zip(self.exits, other.exits, strict=True)]
        self.handling_ns = [mine + theirs for mine, theirs in zip(self.handling_ns, other.handling_ns, strict=True)]
        self.count(other.events)
        self.shootdowns += other.shootdowns
        self.run_time_ns += other.run_time_ns
        self.wait_time_ns += other.wait_time_ns
        self.migrations += other.migrations

    def copy(self) -> Counts:
        """Returns counters of their own with the same values."""
        made = Counts()
        made.add(self)
        return made
