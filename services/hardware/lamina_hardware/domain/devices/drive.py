"""What a device has to tell its driver: states that merge until they are sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interrupts:
    """Vectors, ascending; time of the first interrupt; how many are merged."""

    vectors: tuple[int, ...]
    time_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class Link:
    """The state of a link. The rate is 0 when it is down."""

    up: bool
    rate: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused transfers of one queue: the first, and how many."""

    queue: int
    iova: int
    write: bool
    count: int


Told = Interrupts | Link | Refused


class Outbox:
    """What waits for a driver's stream. A newer state replaces one that was not sent; nothing here grows."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[int, int]] = {}
        self._masked: dict[int, None] = {}
        self._link: Link | None = None
        self._refused: dict[int, Refused] = {}

    def interrupt(self, vector: int, now_ns: int) -> None:
        """Raises a vector."""
        first, count = self._pending.get(vector, (now_ns, 0))
        self._pending[vector] = (first, count + 1)

    def mask(self, vectors: list[int]) -> None:
        """Holds interrupts of vectors back."""
        self._masked.update(dict.fromkeys(vectors))

    def unmask(self, vectors: list[int]) -> None:
        """Lets interrupts of vectors through again."""
        for vector in vectors:
            self._masked.pop(vector, None)

    def link(self, up: bool, rate: int) -> None:
        """Says what state the link is in."""
        self._link = Link(up, rate if up else 0)

    def refuse(self, queue: int, iova: int, write: bool) -> None:
        """Says that a transfer of a queue was refused."""
        known = self._refused.get(queue)
        if known is None:
            self._refused[queue] = Refused(queue, iova, write, 1)
        else:
            self._refused[queue] = Refused(queue, known.iova, known.write, known.count + 1)

    def take(self) -> Told | None:
        """Returns the next thing to send: links before faults before interrupts; None when nothing waits."""
        if self._link is not None:
            link, self._link = self._link, None
            return link
        if self._refused:
            return self._refused.pop(next(iter(self._refused)))
        ready = sorted(vector for vector in self._pending if vector not in self._masked)
        if not ready:
            return None
        taken = [self._pending.pop(vector) for vector in ready]
        return Interrupts(tuple(ready), min(first for first, _ in taken), sum(count for _, count in taken))
