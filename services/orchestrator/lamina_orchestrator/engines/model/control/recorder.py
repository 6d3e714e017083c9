"""Event objects: what happened to an object, as `kubectl describe` shows it.

The same happening again counts up one Event; an Event goes an hour after it happened last. Source: Kubernetes API
reference, Event v1; client-go `record`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from lamina_orchestrator.domain.controllers.namespaces import DEFAULT
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import EVENT
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    is_deleting,
    metadata,
    name_of,
    namespace_of,
    uid_of,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND, parse_time, rfc3339
from lamina_orchestrator.domain.objects.names import uid
from lamina_orchestrator.engines.model.state.ledger import Intent, Ledger

LIFETIME_NS = 3600 * SECOND
SWEEP_NS = 60 * SECOND
MAX_MESSAGE = 1024


class EventRecorder:
    """Writes Event objects. `entropy(n)` gives n random bytes."""

    def __init__(self, ledger: Ledger, entropy: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._entropy = entropy
        self._known: dict[tuple[str, ...], Key] = {}
        self._ages: deque[tuple[int, Key]] = deque()

    def load(self) -> None:
        """Takes in the Events that are stored."""
        stored = self._ledger.cache.of_kind(EVENT)
        for event in sorted(stored, key=lambda found: (_last(found), name_of(found))):
            key = EVENT.key(namespace_of(event), name_of(event))
            self._known[_identity(event)] = key
            self._ages.append((_last(event), key))

    def emit(self, about: Object, kind: str, reason: str, message: str, component: str, now_ns: int) -> None:
        """Records that something happened to an object; `kind` is Normal or Warning."""
        namespace = namespace_of(about) or DEFAULT
        where = self._ledger.cache.get(kinds.NAMESPACE.key("", namespace))
        if where is None or is_deleting(where):
            return  # nothing is created in a namespace that ends, and its Events end with it
        fields = _fields(about, kind, reason, message[:MAX_MESSAGE], component, now_ns)
        identity = _identity(fields)
        key = self._known.get(identity)
        known = self._ledger.cache.get(key) if key is not None else None
        if key is not None and known is not None:
            again = {**known, "count": int(known.get("count", 1)) + 1, "lastTimestamp": rfc3339(now_ns)}
            self._ledger.put(key, again)
        else:
            key = self._create(about, namespace, fields, now_ns)
            self._known[identity] = key
        self._ages.append((now_ns, key))

    def _create(self, about: Object, namespace: str, fields: dict[str, Any], now_ns: int) -> Key:
        name = f"{name_of(about)[:230]}.{self._entropy(8).hex()}"
        made = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid(self._entropy(16)),
                "creationTimestamp": rfc3339(now_ns),
            },
            **fields,
        }
        key = EVENT.key(namespace, name)
        self._ledger.put(key, made)
        return key

    def sweep(self, now_ns: int) -> int:
        """Removes Events that are over; returns when to sweep again, 0 if there are none left."""
        gone: dict[Key, Object] = {}
        while self._ages and self._ages[0][0] + LIFETIME_NS <= now_ns:
            _, key = self._ages.popleft()
            event = self._ledger.cache.get(key)
            if event is not None and _last(event) + LIFETIME_NS <= now_ns:
                gone[key] = event
        for event in gone.values():
            self._known.pop(_identity(event), None)
        if gone:
            self._ledger.commit([Intent(key, event, deleted=True) for key, event in gone.items()])
        return self.next_sweep()

    def next_sweep(self) -> int:
        """When the oldest Event is to be removed; 0 without Events."""
        return sweep_after(self._ages[0][0]) if self._ages else 0


def sweep_after(happened_ns: int) -> int:
    """When an Event is removed that happened then: an hour later, rounded up to a minute so that they go in batches."""
    return -(-(happened_ns + LIFETIME_NS) // SWEEP_NS) * SWEEP_NS


def _last(event: Object) -> int:
    text = event.get("lastTimestamp") or event.get("eventTime") or metadata(event).get("creationTimestamp")
    return parse_time(text) if text else 0


def _fields(about: Object, kind: str, reason: str, message: str, component: str, now_ns: int) -> dict[str, Any]:
    involved = {
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": name_of(about),
        "uid": uid_of(about),
    }
    if namespace_of(about):
        involved["namespace"] = namespace_of(about)
    return {
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": rfc3339(now_ns),
        "lastTimestamp": rfc3339(now_ns),
        "count": 1,
    }


def _identity(event: Object) -> tuple[str, ...]:
    involved = event.get("involvedObject") or {}
    source = event.get("source") or {}
    parts = (involved.get("uid"), event.get("type"), event.get("reason"), event.get("message"), source.get("component"))
    return tuple(str(part or "") for part in parts)
