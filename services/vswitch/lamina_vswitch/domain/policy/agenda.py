"""What is to be done when: at most one time for each thing. Pure; whoever owns the clock asks for the next time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple


class Task(NamedTuple):
    """Something to do: what kind of thing, and with which switch or port (its name, or its slot as text)."""

    kind: str
    subject: str


class Agenda:
    """Tasks by time. A task that is set again has its new time only; times are nanoseconds since the stack's start."""

    def __init__(self) -> None:
        self._times: dict[Task, int] = {}
        self._heap: list[tuple[int, int, Task]] = []
        self._serial = 0

    def set(self, task: Task, at_ns: int | None) -> None:
        """Give a task its time; None takes it off."""
        if at_ns is None:
            self._times.pop(task, None)
        elif self._times.get(task) != at_ns:
            self._times[task] = at_ns
            self._serial += 1
            heapq.heappush(self._heap, (at_ns, self._serial, task))
        if len(self._heap) > 2 * len(self._times) + 64:
            self._heap = [place for place in self._heap if self._times.get(place[2]) == place[0]]
            heapq.heapify(self._heap)

    def has(self, *kinds: str) -> bool:
        """Tell whether something of one of these kinds is to be done."""
        return any(task.kind in kinds for task in self._times)

    def next_ns(self) -> int | None:
        """Return the earliest time; None when there is nothing to do."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterator[tuple[int, Task]]:
        """Take tasks whose time has come, with those times, the earliest first; also those set meanwhile."""
        while (at_ns := self.next_ns()) is not None and at_ns <= now_ns:
            _, _, task = heapq.heappop(self._heap)
            del self._times[task]
            yield at_ns, task
