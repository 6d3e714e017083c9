"""What cores and contexts count. Pure.

A core counts events for itself; each slice's share belongs to the context that it ran. While one context keeps a core,
the latest reading stands for all before it; only when another comes, or somebody asks, are differences taken.
"""

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
    the next run. `owing` may have events to add, and is asked before they are read.
    """

    instructions: int = 0
    exits: list[int] = field(default_factory=lambda: [0] * REASONS)
    handling_ns: list[int] = field(default_factory=lambda: [0] * REASONS)
    shootdowns: int = 0
    run_time_ns: int = 0
    wait_time_ns: int = 0
    migrations: int = 0
    owing: EventAccount | None = field(default=None, repr=False, compare=False)
    _events: list[int] = field(default_factory=lambda: [0] * COUNTERS)

    @property
    def events(self) -> list[int]:
        """How often each of `EVENTS` happened and, behind them, how often each exception vector was raised."""
        if self.owing is not None:
            self.owing.fold()
        return self._events

    def event(self, name: str) -> int:
        """Returns how often one of `EVENTS` happened."""
        return self.events[_PLACE[name]]

    @property
    def exceptions(self) -> Sequence[int]:
        """How often each exception vector was raised."""
        return self.events[len(EVENTS) :]

    def count(self, events: Sequence[int]) -> None:
        """Adds what a core counted."""
        self._events = [mine + news for mine, news in zip(self._events, events, strict=True)]

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


class EventAccount:
    """Events of one core that are yet to be added to its counts, `core`, and to those of the context that it ran."""

    def __init__(self, core: Counts) -> None:
        self._core = core
        self._counted: Sequence[int] = NOTHING
        self._latest: Sequence[int] = NOTHING
        self._owner: Counts | None = None
        core.owing = self

    def note(self, owner: Counts, counted: Sequence[int]) -> None:
        """Takes a core's counters as they stand after a slice of the context that `owner` counts for.

        The caller leaves `counted` as it is from then on.
        """
        if owner is not self._owner:
            self._leave()
            if owner.owing is not None:  # it ran on another core before
                owner.owing._leave()
            self._owner, owner.owing = owner, self
        self._latest = counted

    def fold(self) -> None:
        """Adds what happened since the last time."""
        if self._latest is self._counted:
            return
        news = [new - old for new, old in zip(self._latest, self._counted, strict=True)]
        self._counted = self._latest
        self._core.count(news)
        if self._owner is not None:
            self._owner.count(news)

    def _leave(self) -> None:
        """Ends with the owner."""
        self.fold()
        if self._owner is not None:
            self._owner.owing = None
            self._owner = None
