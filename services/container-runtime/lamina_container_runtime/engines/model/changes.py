"""The changes of containers, in order: what watchers see.

Revisions count up by one. The newest 10,000 are kept; a watcher that asks for older ones lists anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lamina_container_runtime.domain.containers.container import ContainerEvent, ContainerRecord, EventType
from lamina_container_runtime.domain.wait import WaitQueue
from lamina_kit.errors import OutOfRange

KEPT = 10_000
FIRST_REVISION = 1
"""The revision before any change: a watcher's 0 means the beginning, so no list may show 0."""


class Changes:
    """The event history. `store` makes an event durable before anybody sees it."""

    def __init__(self, kept: Iterable[ContainerEvent], revision: int, store: Callable[[ContainerEvent], None]) -> None:
        self._events: deque[ContainerEvent] = deque(kept, maxlen=KEPT)
        self._store = store
        self.revision = max(revision, FIRST_REVISION)
        self.queue = WaitQueue()

    def add(self, kind: EventType, container: ContainerRecord, time_ns: int) -> ContainerRecord:
        """Notes a change and returns the container with its new revision."""
        changed = replace(container, revision=self.revision + 1)
        event = ContainerEvent(changed.revision, kind, changed, time_ns)
        self._store(event)
        self.revision = event.revision
        self._events.append(event)
        self.queue.wake()
        return changed

    def after(self, revision: int) -> Sequence[ContainerEvent]:
        """Returns the events after `revision`, oldest first."""
        if revision > self.revision:
            raise OutOfRange(
                f"Revision {revision} does not exist yet; the newest is {self.revision}.",
                reason="REVISION_FUTURE",
                next_step="List the containers and watch from the list's revision.",
            )
        missed = self.revision - revision
        if missed > len(self._events):
            raise OutOfRange(
                f"The history after revision {revision} is gone; the oldest event kept is "
                f"{self.revision - len(self._events) + 1}.",
                reason="REVISION_COMPACTED",
                next_step="List the containers and watch from the list's revision.",
            )
        return [event for event in self._events if event.revision > revision] if missed else []
