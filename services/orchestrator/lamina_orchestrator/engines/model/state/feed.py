"""What changed, for watchers: recent changes from memory, older ones from the store.

A watcher holds a position, not a queue: however slowly it reads, it costs nothing, until its position is compacted.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Key, Object, canonical, labels_of, parse_path
from lamina_orchestrator.domain.objects.selectors import FieldSelector, Selector
from lamina_orchestrator.engines.interface import Store, Stored, WatchEvent

RECENT = 8192
BOOKMARK_EVERY = 1000
INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class Noticed:
    """A change with its objects: `obj` after it (its last state if `deleted`), `before` None for a new object."""

    revision: int
    key: Key
    obj: Object
    before: Object | None
    deleted: bool
    text: str


class Feed:
    """The newest changes of a store."""

    def __init__(self, store: Store, recent: int = RECENT) -> None:
        self._store = store
        self._recent: deque[Noticed] = deque(maxlen=recent)

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._store.revision

    def push(self, changes: Sequence[Noticed]) -> None:
        """Takes in changes that were just committed."""
        self._recent.extend(changes)

    def since(self, revision: int, limit: int) -> list[Noticed]:
        """Up to `limit` changes behind a revision. Raises OutOfRange as `Store.changes` does."""
        if self._recent and self._recent[0].revision <= revision + 1 <= self._recent[-1].revision + 1:
            start = revision + 1 - self._recent[0].revision
            return list(islice(self._recent, start, start + limit))
        return [
            Noticed(
                change.revision,
                parse_path(change.path),
                json.loads(change.value),
                json.loads(change.previous) if change.previous else None,
                change.deleted,
                change.value,
            )
            for change in self._store.changes(revision, limit)
        ]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which objects a listing or watch shows."""

    kind: Kind
    namespace: str
    labels: Selector
    fields: FieldSelector

    def matches(self, key: Key, obj: Object) -> bool:
        """Whether an object of this kind's resource is shown."""
        if self.namespace and key.namespace != self.namespace:
            return False
        return self.labels.matches(labels_of(obj)) and self.fields.matches(obj)


class FeedCursor:
    """A watcher's position in the feed. `initial` are objects that are sent first, as of `revision`."""

    def __init__(
        self, feed: Feed, shown: Filter, revision: int, initial: Sequence[Stored] | None, bookmarks: bool
    ) -> None:
        self._feed = feed
        self._filter = shown
        self._revision = revision
        self._initial = initial
        self._bookmarks = bookmarks
        self._marked = revision

    def next(self, limit: int) -> list[WatchEvent]:
        """The events since the last call; see `interface.Cursor`."""
        if self._initial is not None:
            events = [WatchEvent("ADDED", stored) for stored in self._initial]
            self._initial = None
            return [*events, WatchEvent("BOOKMARK", self._bookmark(initial_end=True))]
        events = []
        while self._revision < self._feed.revision and len(events) < limit:
            changes = self._feed.since(self._revision, limit)
            for change in changes:
                event = self._event(change)
                if event is not None:
                    events.append(event)
                    self._marked = change.revision
            self._revision = changes[-1].revision
        if self._bookmarks and self._revision - self._marked >= BOOKMARK_EVERY:
            self._marked = self._revision
            events.append(WatchEvent("BOOKMARK", self._bookmark()))
        return events

    def _event(self, change: Noticed) -> WatchEvent | None:
        if change.key.resource != self._filter.kind.resource:
            return None
        was = change.before is not None and self._filter.matches(change.key, change.before)
        now = not change.deleted and self._filter.matches(change.key, change.obj)
        if not was and not now:
            return None
        kind = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        return WatchEvent(kind, Stored(change.obj, change.text))

    def _bookmark(self, *, initial_end: bool = False) -> Stored:
        fields: dict[str, object] = {"resourceVersion": str(self._revision)}
        if initial_end:
            fields["annotations"] = {INITIAL_END: "true"}
        kind = self._filter.kind
        obj: Object = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": fields}
        return Stored(obj, canonical(obj))
