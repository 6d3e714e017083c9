"""ApplyObjects: a manifest is planned as a whole, then written in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.domain.admission.chain import SYSTEM_FIELDS, describe, shaped, update
from lamina_orchestrator.domain.controllers.namespaces import DEFAULT
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind, kind_of
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    annotations_of,
    canonical,
    metadata,
    name_of,
    namespace_of,
    spec_of,
    with_annotations,
)
from lamina_orchestrator.domain.objects.manifest import parse_manifest
from lamina_orchestrator.domain.objects.patch import LAST_APPLIED, three_way
from lamina_orchestrator.engines.interface import Applied, Stored
from lamina_orchestrator.engines.model.api.registry import Registry, stored, traced
from lamina_orchestrator.engines.model.state.ledger import Intent, Ledger


@dataclass(frozen=True, slots=True)
class _Planned:
    key: Key
    obj: Object
    action: str


class Applier:
    """Applies manifests."""

    def __init__(self, ledger: Ledger, registry: Registry) -> None:
        self._ledger = ledger
        self._registry = registry

    def apply(self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool) -> list[Applied]:
        """Applies a manifest; see the contract's ApplyObjects."""
        wanted = []
        for value in parse_manifest(text):
            kind = kind_of(value)
            wanted.append((kind, shaped(kind, value, namespace or DEFAULT)))
        _check_distinct(wanted)
        brought = {name_of(obj) for kind, obj in wanted if kind == kinds.NAMESPACE}
        planned = [self._plan(kind, obj, brought, now_ns, traceparent) for kind, obj in wanted]
        if dry_run:
            return [Applied(stored(plan.obj), plan.action) for plan in planned]
        writes = [Intent(plan.key, plan.obj) for plan in planned if plan.action != "unchanged"]
        written = iter(self._ledger.commit(writes) if writes else [])
        return [Applied(self._result(plan, written), plan.action) for plan in planned]

    def _result(self, plan: _Planned, written: Any) -> Stored:
        result: Stored = stored(plan.obj) if plan.action == "unchanged" else next(written)
        return result

    def _plan(self, kind: Kind, wanted: Object, brought: set[str], now_ns: int, traceparent: str) -> _Planned:
        key = kind.key(namespace_of(wanted), name_of(wanted))
        old = self._ledger.cache.get(key) if key.name else None
        note = {LAST_APPLIED: canonical(_as_written(wanted))}
        if old is None:
            made = self._create(kind, with_annotations(wanted, **note), brought, now_ns, traceparent)
            return _Planned(kind.key(namespace_of(made), name_of(made)), made, "created")
        merged = with_annotations(three_way(_last_applied(old), wanted, _writable(old)), **note)
        new = update(kind, old, shaped(kind, merged, key.namespace))
        if _writable(new) == _writable(old):
            return _Planned(key, old, "unchanged")
        if spec_of(new) != spec_of(old):
            new = traced(new, traceparent)
        return _Planned(key, new, "configured")

    def _create(self, kind: Kind, obj: Object, brought: set[str], now_ns: int, traceparent: str) -> Object:
        if namespace_of(obj) in brought:
            return self._registry.admit(kind, obj, now_ns, traceparent, check_namespace=False)
        return self._registry.admit(kind, obj, now_ns, traceparent)


def _check_distinct(wanted: list[tuple[Kind, Object]]) -> None:
    seen: set[Key] = set()
    for kind, obj in wanted:
        key = kind.key(namespace_of(obj), name_of(obj))
        if key.name and key in seen:
            raise InvalidArgument(
                f"The manifest names {describe(kind, obj)} twice.",
                reason="MANIFEST_MALFORMED",
                next_step="Keep one of them.",
            )
        seen.add(key)


def _as_written(obj: Object) -> Object:
    """The manifest as it is remembered: what a caller may write."""
    return {name: part for name, part in _writable(obj).items() if name != "status"}


def _writable(obj: Object) -> Object:
    """The object without what only the system writes, and without the memory of the last apply."""
    fields = {name: value for name, value in metadata(obj).items() if name not in SYSTEM_FIELDS}
    notes = {name: text for name, text in annotations_of(obj).items() if name != LAST_APPLIED}
    fields.pop("annotations", None)
    return {**obj, "metadata": {**fields, **({"annotations": notes} if notes else {})}}


def _last_applied(obj: Object) -> Any:
    """What the last apply wrote, or None if there was none or it was changed into something else."""
    text = annotations_of(obj).get(LAST_APPLIED, "")
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
