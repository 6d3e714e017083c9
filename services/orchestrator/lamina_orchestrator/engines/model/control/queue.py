"""What is to be looked at: keys of controllers, each at most once, and times at which to look again.

Nothing is polled: an entry is there because something changed or because a time came at which something can change.
Controllers that look at many objects at once come last: a thousand changed pods are counted once, not a thousand times.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

from lamina_orchestrator.domain.kinds.plain_object import Key
from lamina_orchestrator.engines.model.control.causes import TIME


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One object to be looked at by one controller."""

    controller: str
    key: Key


class WorkQueue:
    """First in, first out, without duplicates; with timers. Items of the controllers named `last` come after others."""

    def __init__(self, last: Collection[str] = ()) -> None:
        self._ready: dict[Item, str] = {}
        self._last: dict[Item, str] = {}
        self._about: Key | None = None
        self._why = ""
        self.cause = ""
        """Why the item that was popped last had been queued; the first cause counts."""
        self._counting = frozenset(last)
        self._timers: list[tuple[int, int, Item]] = []
        self._due: dict[Item, int] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._last)

    def because(self, about: Key | None, why: str) -> None:
        """Notes the cause of what is queued from now on: a change of `about`, and why that was made, or just `why`."""
        self._about = about
        self._why = why

    def add(self, controller: str, key: Key) -> None:
        """Queues an object; one that is queued already keeps its place."""
        about = self._about
        self._add(Item(controller, key), self._why if about is None or about == key else about.resource_name)

    def _add(self, item: Item, cause: str) -> None:
        (self._last if item.controller in self._counting else self._ready).setdefault(item, cause)

    def add_at(self, controller: str, key: Key, at_ns: int) -> None:
        """Queues an object at a time; of several times for one object the earliest counts."""
        item = Item(controller, key)
        known = self._due.get(item)
        if known is not None and known <= at_ns:
            return
        self._sequence += 1
        self._due[item] = at_ns
        heapq.heappush(self._timers, (at_ns, self._sequence, item))

    def forget(self, controller: str, key: Key) -> None:
        """Drops the timer of an object that is gone."""
        self._due.pop(Item(controller, key), None)

    def advance(self, now_ns: int) -> None:
        """Queues what is due."""
        while self._timers and self._timers[0][0] <= now_ns:
            at_ns, _, item = heapq.heappop(self._timers)
            if self._due.get(item) == at_ns:
                del self._due[item]
                self._add(item, TIME)

    def pop(self) -> Item | None:
        """Takes the next object out that does not come last, or None."""
        return self._first(self._ready)

    def pop_last(self) -> Item | None:
        """Takes the next object out of those that come last, or None."""
        return self._first(self._last)

    def next_due(self) -> int:
        """When the next timer is due; 0 if there is none."""
        while self._timers:
            at_ns, _, item = self._timers[0]
            if self._due.get(item) == at_ns:
                return at_ns
            heapq.heappop(self._timers)
        return 0

    def _first(self, items: dict[Item, str]) -> Item | None:
        if not items:
            return None
        item = next(iter(items))
        self.cause = items.pop(item)
        return item
