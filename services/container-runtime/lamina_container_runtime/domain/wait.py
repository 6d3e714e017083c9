"""Waiting and waking: wait queues.

A step that has to wait enters its waiter into the queues of what it waits for and yields `Wait`. Whoever changes such a
thing wakes the queue; the first reason that comes wins, and the step looks at everything again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable


class Woken(enum.Enum):
    """Why a wait ended."""

    EVENT = "event"
    TIMEOUT = "timeout"
    SIGNAL = "signal"


class Waiter:
    """One waiting step. `on_fire` is set by who performs the wait, and called once."""

    __slots__ = ("on_fire", "reason")

    def __init__(self) -> None:
        self.reason: Woken | None = None
        self.on_fire: Callable[[], None] | None = None

    def fire(self, reason: Woken) -> None:
        """Ends the wait, unless it has ended."""
        if self.reason is None:
            self.reason = reason
            if self.on_fire is not None:
                self.on_fire()


class WaitQueue:
    """Those who wait for one thing, in the order in which they came."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    @property
    def pending(self) -> int:
        """How many wait and were not woken yet."""
        return sum(waiter.reason is None for waiter in self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Enters a waiter."""
        self._waiters.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Takes a waiter out; one that is not there is passed over."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def wake(self, count: int | None = None) -> int:
        """Wakes the first `count` waiters, or all; returns how many."""
        chosen = [waiter for waiter in self._waiters if waiter.reason is None][:count]
        for waiter in chosen:
            waiter.fire(Woken.EVENT)
        return len(chosen)
