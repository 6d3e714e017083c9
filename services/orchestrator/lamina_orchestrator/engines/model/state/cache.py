"""All stored objects, decoded, with the indices that controllers look things up by.

Objects are shared and never changed in place. Every listing comes in the order of keys, so that controllers see the
same order whatever happened before.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from lamina_orchestrator.domain.kinds.kinds import POD, Kind
from lamina_orchestrator.domain.kinds.plain_object import Key, Object, annotations_of, namespace_of, spec_of, uid_of
from lamina_orchestrator.domain.objects.ownership import controller_of, owners_of

REQUEST_ID = "lamina.dev/request-id"


_ORDER = attrgetter("resource", "namespace", "name")


class Index:
    """Keys by a text. Their order is kept until a key is added or dropped."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[Key, None]] = {}
        self._ordered: dict[str, list[Key]] = {}

    def add(self, text: str, key: Key) -> None:
        """Files a key."""
        self._keys.setdefault(text, {})[key] = None
        self._ordered.pop(text, None)

    def drop(self, text: str, key: Key) -> None:
        """Takes a key out."""
        keys = self._keys.get(text)
        if keys is not None:
            keys.pop(key, None)
            self._ordered.pop(text, None)
            if not keys:
                del self._keys[text]

    def keys(self, text: str) -> list[Key]:
        """The keys under a text, ordered; not to be changed."""
        if text not in self._keys:
            return []
        found = self._ordered.get(text)
        if found is None:
            found = self._ordered[text] = sorted(self._keys[text], key=_ORDER)
        return found


class Cache:
    """The newest version of every object."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._resources: dict[str, dict[Key, None]] = {}
        self._uids: dict[str, Key] = {}
        self._owned = Index()
        self._loose = Index()
        self._on_node = Index()
        self._in_namespace = Index()
        self._requests: dict[str, Key] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: Key) -> Object | None:
        """The object of that key, or None."""
        return self._objects.get(key)

    def put(self, key: Key, obj: Object) -> Object | None:
        """Takes in a new version; returns the one before, or None."""
        before = self._objects.get(key)
        self._objects[key] = obj
        if before is None or _filing(before) != _filing(obj):
            if before is not None:
                self._unfile(key, before)
            self._file(key, obj)
        return before

    def drop(self, key: Key) -> Object | None:
        """Forgets an object; returns it."""
        before = self._objects.pop(key, None)
        if before is not None:
            self._unfile(key, before)
        return before

    def of_kind(self, kind: Kind) -> list[Object]:
        """All objects of a kind, ordered by key."""
        return self._all(sorted(self._resources.get(kind.resource, ()), key=_ORDER))

    def in_namespace(self, namespace: str) -> list[Object]:
        """All objects in a namespace, ordered by key."""
        return self._all(self._in_namespace.keys(namespace))

    def everything(self) -> list[Object]:
        """All objects, ordered by key."""
        return self._all(sorted(self._objects, key=_ORDER))

    def by_uid(self, uid: str) -> Object | None:
        """The object of that uid, or None."""
        key = self._uids.get(uid)
        return self._objects.get(key) if key is not None else None

    def exists(self, uid: str) -> bool:
        """Whether an object of that uid is stored."""
        return uid in self._uids

    def owned(self, uid: str) -> list[Object]:
        """Objects that name an owner of that uid, ordered by key."""
        return self._all(self._owned.keys(uid))

    def candidates(self, kind: Kind, owner: Object) -> list[Object]:
        """Objects of a kind that the owner controls, and those of its namespace without controller."""
        owned = [key for key in self._owned.keys(uid_of(owner)) if key.resource == kind.resource]
        loose = self._loose.keys(f"{kind.resource}/{namespace_of(owner)}")
        return self._all(sorted({*owned, *loose}, key=_ORDER) if loose else owned)

    def pods_on(self, node: str) -> list[Object]:
        """Pods bound to a node, ordered by key."""
        return self._all(self._on_node.keys(node))

    def made_by(self, request_id: str) -> Object | None:
        """The object that a create call with that request id made, or None."""
        key = self._requests.get(request_id)
        return self._objects.get(key) if key is not None else None

    def _all(self, keys: Iterable[Key]) -> list[Object]:
        return [self._objects[key] for key in keys]

    def _file(self, key: Key, obj: Object) -> None:
        self._resources.setdefault(key.resource, {})[key] = None
        self._uids[uid_of(obj)] = key
        for owner in owners_of(obj):
            self._owned.add(owner["uid"], key)
        if key.namespace:
            self._in_namespace.add(key.namespace, key)
            if controller_of(obj) is None:
                self._loose.add(f"{key.resource}/{key.namespace}", key)
        if key.resource == POD.resource and spec_of(obj).get("nodeName"):
            self._on_node.add(spec_of(obj)["nodeName"], key)
        request_id = annotations_of(obj).get(REQUEST_ID)
        if request_id:
            self._requests[request_id] = key

    def _unfile(self, key: Key, obj: Object) -> None:
        self._resources[key.resource].pop(key, None)
        self._uids.pop(uid_of(obj), None)
        for owner in owners_of(obj):
            self._owned.drop(owner["uid"], key)
        if key.namespace:
            self._in_namespace.drop(key.namespace, key)
            self._loose.drop(f"{key.resource}/{key.namespace}", key)
        if key.resource == POD.resource and spec_of(obj).get("nodeName"):
            self._on_node.drop(spec_of(obj)["nodeName"], key)
        request_id = annotations_of(obj).get(REQUEST_ID)
        if request_id:
            self._requests.pop(request_id, None)


def _filing(obj: Object) -> tuple[object, ...]:
    """What the indices file an object by."""
    return uid_of(obj), owners_of(obj), spec_of(obj).get("nodeName"), annotations_of(obj).get(REQUEST_ID)
