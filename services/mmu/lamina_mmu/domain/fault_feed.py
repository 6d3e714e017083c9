"""Those who watch faults: each has a queue of its own, and what it is too slow for is counted. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from lamina_mmu.domain.outcome import FaultResult

MOST_QUEUED = 8192
"""Faults that wait for one reader; more are missed by it."""
MOST_EVICTED = 4096
"""Frames of which is remembered for whom they were evicted."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """A resolved fault: in which space (by number), where, what for, when, for how long, how it ended."""

    space: int
    address: int
    access: int
    time_ns: int
    duration_ns: int
    result: FaultResult


@dataclass(slots=True)
class FaultWatch:
    """One reader: of the space with the number `space` (0: of all), of one fault in `sample`.

    `closed` says that the space is gone; what is queued may still be read.
    """

    id: int
    space: int
    sample: int
    queue: deque[FaultEvent] = field(default_factory=deque)
    missed: int = 0
    closed: bool = False
    seen: int = 0

    def take(self, most: int) -> tuple[list[FaultEvent], int]:
        """Takes up to `most` events, and how many were missed since the last call."""
        found = [self.queue.popleft() for _ in range(min(most, len(self.queue)))]
        missed, self.missed = self.missed, 0
        return found, missed


def watch_key(watch: int) -> tuple[str, int]:
    """Returns the key that is woken when a watch has something new."""
    return ("faults", watch)


class FaultFeed:
    """All readers of one host's faults."""

    def __init__(self, wake: Callable[[Hashable, object], object]) -> None:
        self._wake = wake
        self.watches: dict[int, FaultWatch] = {}
        self._evicted_for: dict[int, str] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self.watches)

    def open(self, space: int, sample: int) -> FaultWatch:
        """Adds a reader."""
        self._last += 1
        self.watches[self._last] = FaultWatch(self._last, space, sample)
        return self.watches[self._last]

    def close(self, watch: FaultWatch) -> None:
        """Forgets a reader."""
        self.watches.pop(watch.id, None)

    def wants(self, space: int) -> bool:
        """Returns whether anybody watches a space."""
        return bool(self.watches) and any(watch.space in (0, space) for watch in self.watches.values())

    def add(self, event: FaultEvent) -> None:
        """Tells a fault to those who watch its space, as far as it is in their sample."""
        for watch in self.watches.values():
            if watch.space not in (0, event.space):
                continue
            watch.seen += 1
            if (watch.seen - 1) % watch.sample:
                continue
            if len(watch.queue) >= MOST_QUEUED:
                watch.missed += 1
                continue
            watch.queue.append(event)
            self._wake(watch_key(watch.id), None)

    def note_evicted(self, frame: int, cause: str) -> None:
        """Remembers for whom a frame was evicted, as long as somebody watches."""
        if self.watches:
            if len(self._evicted_for) >= MOST_EVICTED:
                self._evicted_for.clear()
            self._evicted_for[frame] = cause

    def was_evicted_for(self, frame: int, cause: str) -> bool:
        """Returns whether a frame was evicted for `cause`, and forgets it."""
        return self._evicted_for.pop(frame, "") == cause

    def end(self, space: int) -> None:
        """Tells those who watch one space that it is gone."""
        for watch in self.watches.values():
            if watch.space == space:
                watch.closed = True
                self._wake(watch_key(watch.id), None)
