"""The one place where objects are written: store, cache and feed move together.

The ledger gives a version its resource version and generation, and turns the update that completes a deletion into the
deletion itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina_orchestrator.domain.controllers.deletion import is_complete
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    canonical,
    metadata,
    parse_path,
    revision_of,
    spec_of,
    with_metadata,
)
from lamina_orchestrator.engines.interface import Store, Stored, Write
from lamina_orchestrator.engines.model.state.cache import Cache
from lamina_orchestrator.engines.model.state.feed import Feed, Noticed

Listener = Callable[[Noticed], None]


@dataclass(frozen=True, slots=True)
class Intent:
    """An object to write under a key, or to delete."""

    key: Key
    obj: Object
    deleted: bool = False


class Ledger:
    """Writes objects. `history` is how many revisions are kept for watchers beyond the newest."""

    def __init__(self, store: Store, history: int) -> None:
        self.store = store
        self.cache = Cache()
        self.feed = Feed(store)
        self._history = history
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Calls a listener with every change, in order, after it was written."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Fills the cache from the store."""
        for record in self.store.list(""):
            self.cache.put(parse_path(record.path), json.loads(record.value))

    def put(self, key: Key, obj: Object) -> Stored:
        """Writes one object; returns it as stored."""
        return self.commit([Intent(key, obj)])[0]

    def remove(self, key: Key) -> Stored:
        """Deletes one object; returns its last state."""
        obj = self.cache.get(key)
        assert obj is not None, key
        return self.commit([Intent(key, obj, deleted=True)])[0]

    def commit(self, intents: Sequence[Intent]) -> list[Stored]:
        """Writes objects in one transaction; returns them as stored. No two intents have the same key."""
        base = self.store.revision
        made = [self._prepared(intent, base + 1 + number) for number, intent in enumerate(intents)]
        self.store.commit([write for _, write, _ in made])
        stored: list[Stored] = []
        noticed: list[Noticed] = []
        for number, (obj, write, key) in enumerate(made):
            before = self.cache.drop(key) if write.deleted else self.cache.put(key, obj)
            stored.append(Stored(obj, write.value))
            noticed.append(Noticed(base + 1 + number, key, obj, before, write.deleted, write.value))
        self.feed.push(noticed)
        self._compact()
        for change in noticed:
            for listener in self._listeners:
                listener(change)
        return stored

    def _prepared(self, intent: Intent, revision: int) -> tuple[Object, Write, Key]:
        before = self.cache.get(intent.key)
        obj = with_metadata(intent.obj, resourceVersion=str(revision))
        if before is not None and not intent.deleted and spec_of(before) != spec_of(obj):
            generation = int(metadata(before).get("generation", 0)) + 1
            obj = with_metadata(obj, generation=generation)
        deleted = intent.deleted or (before is not None and is_complete(obj))
        write = Write(intent.key.path, canonical(obj), revision_of(before) if before else 0, deleted)
        return obj, write, intent.key

    def _compact(self) -> None:
        if self.store.revision - self.store.compacted > 2 * self._history:
            self.store.compact(self.store.revision - self._history)
