"""Evictions with their reasons: what was chosen, why, and what would have been next. Pure.

The victims of one reclaim are a batch: they share the candidates behind them, which are looked at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT = 65_536
"""Evictions that are remembered."""
OTHERS = 8
"""Most pages that an eviction tells as those that would have been next."""


class Candidate(NamedTuple):
    """A page that may leave RAM, as it stood at one moment.

    `place` names the space (`space`, number, address) or object (`object`, number, offset) that has it; None when
    nothing did. `age` in sampled accesses of other pages; `standing` is what the policy knows, in words.
    """

    frame: int
    place: tuple[str, int, int] | None
    age: int
    dirty: bool
    standing: str


@dataclass(slots=True)
class Batch:
    """Victims of one reclaim of `group`, in the order of choice, and the candidates behind them."""

    group: str
    wanted_by: str
    victims: list[Candidate] = field(default_factory=list)
    behind: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Eviction:
    """One that happened. `index` is the victim's place in its batch; `slot` -1 for a page that was dropped.

    `spaces` are the numbers of the spaces that had the page; `charged` is the group that paid for it.
    """

    sequence: int
    time_ns: int
    batch: Batch
    index: int
    policy: str
    reason: str
    slot: int
    spaces: tuple[int, ...]
    charged: str
    cause: str

    @property
    def victim(self) -> Candidate:
        """Returns the page as it stood."""
        return self.batch.victims[self.index]

    @property
    def others(self) -> list[Candidate]:
        """Returns the pages that would have been next, the next first."""
        return [*self.batch.victims[self.index + 1 :], *self.batch.behind][:OTHERS]


class Evictions:
    """The last evictions."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[Eviction] = deque(maxlen=kept)
        self._sequence = 0

    def next_sequence(self) -> int:
        """Returns the position of the next eviction."""
        self._sequence += 1
        return self._sequence

    def add(self, eviction: Eviction) -> None:
        """Remembers one; the oldest is forgotten when there are too many."""
        self._kept.append(eviction)

    def newest_first(self, before: int = 0) -> Iterator[Eviction]:
        """Yields evictions with positions below `before` (0: all), newest first."""
        return (one for one in reversed(self._kept) if not before or one.sequence < before)
