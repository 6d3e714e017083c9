"""The API of objects: what a caller may write, each write through admission.

Everything is checked before anything is written; a dry run stops just there. Source: Kubernetes documentation, "API
Concepts" (resource versions, dry run, deletion).
"""

from __future__ import annotations

from typing import Any

from lamina_kit.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from lamina_orchestrator.domain.admission.chain import (
    Admission,
    check_preconditions,
    check_same,
    describe,
    patch_malformed,
    shaped,
    update,
)
from lamina_orchestrator.domain.controllers import deletion
from lamina_orchestrator.domain.controllers.namespaces import DEFAULT, PROTECTED
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind, kind_of
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    canonical,
    is_deleting,
    name_of,
    namespace_of,
    spec_of,
    with_annotations,
)
from lamina_orchestrator.domain.kinds.schema import invalid, refuse
from lamina_orchestrator.domain.objects.manifest import parse_json
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT
from lamina_orchestrator.domain.objects.patch import merge_patch
from lamina_orchestrator.engines.interface import Stored
from lamina_orchestrator.engines.model.state.cache import REQUEST_ID
from lamina_orchestrator.engines.model.state.ledger import Ledger

SCALABLE = (kinds.DEPLOYMENT, kinds.REPLICA_SET)
MAX_REPLICAS = 100_000
MAX_REQUEST_ID = 64


class Registry:
    """Writes of callers. `ledger` stores, `admission` checks."""

    def __init__(self, ledger: Ledger, admission: Admission) -> None:
        self._ledger = ledger
        self._admission = admission

    # ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(
        self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool, request_id: str
    ) -> Stored:
        """Creates one object; see the contract's CreateObject."""
        if len(request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                f"The request_id has {len(request_id)} characters, more than {MAX_REQUEST_ID}.",
                reason="REQUEST_INVALID",
                next_step="Give a shorter one.",
            )
        known = self._ledger.cache.made_by(request_id) if request_id else None
        if known is not None:
            return stored(known)
        kind, obj = object_of(text, namespace)
        made = self.admit(kind, obj, now_ns, traceparent)
        if request_id:
            made = with_annotations(made, **{REQUEST_ID: request_id})
        return stored(made) if dry_run else self._ledger.put(kind.key(namespace_of(made), name_of(made)), made)

    def admit(self, kind: Kind, obj: Object, now_ns: int, traceparent: str, *, check_namespace: bool = True) -> Object:
        """A new object that may be stored: checked, completed, its name free and its namespace there."""
        made = self._admission.create(kind, obj, now_ns)
        if kind.namespaced and check_namespace:
            self.check_namespace(namespace_of(made))
        key = kind.key(namespace_of(made), name_of(made))
        if self._ledger.cache.get(key) is not None:
            raise AlreadyExists(
                f"{describe(kind, made)} already exists.",
                reason="OBJECT_EXISTS",
                next_step="Update it, or choose another name.",
            )
        return traced(made, traceparent)

    def check_namespace(self, name: str) -> None:
        """Refuses to create in a namespace that is not there or is being deleted."""
        namespace = self._ledger.cache.get(kinds.NAMESPACE.key("", name))
        if namespace is None:
            raise NotFound(
                f'Namespace "{name}" does not exist.', reason="NAMESPACE_NOT_FOUND", next_step="Create it first."
            )
        if is_deleting(namespace):
            raise FailedPrecondition(
                f'Namespace "{name}" is being deleted.',
                reason="NAMESPACE_TERMINATING",
                next_step="Wait until it is gone, or use another.",
            )

    # ── change ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, kind: Kind, namespace: str, name: str) -> tuple[Key, Object]:
        """The object of that name. Raises NotFound `OBJECT_NOT_FOUND`."""
        key = kind.key(namespace or DEFAULT, name)
        obj = self._ledger.cache.get(key)
        if obj is None:
            where = f' in namespace "{key.namespace[:64]}"' if key.namespace else ""
            raise NotFound(
                f'{kind.name} "{name[:100]}" does not exist{where}.',
                reason="OBJECT_NOT_FOUND",
                next_step=f"List the {kind.plural} that exist.",
            )
        return key, obj

    def update(self, text: str, namespace: str, traceparent: str, status_only: bool, dry_run: bool) -> Stored:
        """Replaces one object; see the contract's UpdateObject."""
        kind, obj = object_of(text, namespace)
        key, old = self.find(kind, namespace_of(obj), name_of(obj))
        return self._write(kind, key, old, update(kind, old, obj, status_only=status_only), traceparent, dry_run)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        text: str,
        traceparent: str,
        status_only: bool,
        dry_run: bool,
    ) -> Stored:
        """Applies a merge patch; see the contract's PatchObject."""
        patch = parse_json(text)
        if not isinstance(patch, dict):
            raise patch_malformed("it is not a JSON object")
        key, old = self.find(kind, namespace, name)
        wanted = merge_patch(_but_metadata(old), _but_metadata(patch))
        fields = merge_patch(without_version(old), patch.get("metadata", {}))
        merged = {**wanted, "metadata": fields}
        if merged.get("apiVersion") != kind.api_version or merged.get("kind") != kind.name:
            raise patch_malformed("apiVersion and kind may not be changed")
        new = shaped(kind, merged, namespace or DEFAULT)
        check_same(kind, new, key.namespace, key.name)
        return self._write(kind, key, old, update(kind, old, new, status_only=status_only), traceparent, dry_run)

    def scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        replicas: int,
        traceparent: str,
        current: int | None,
        revision: int,
    ) -> Stored:
        """Sets spec.replicas; see the contract's ScaleObject."""
        if kind not in SCALABLE:
            raise InvalidArgument(
                f"{kind.name} objects have no replicas.",
                reason="KIND_NOT_SCALABLE",
                next_step=f"Scale one of {', '.join(found.name for found in SCALABLE)}.",
            )
        key, old = self.find(kind, namespace, name)
        if not 0 <= replicas <= MAX_REPLICAS:
            why = "must be greater than or equal to 0" if replicas < 0 else f"must be at most {MAX_REPLICAS}"
            refuse(describe(kind, old), [invalid("spec.replicas", replicas, why)])
        check_preconditions(kind, old, "", revision)
        have = int(spec_of(old)["replicas"])
        if current is not None and current != have:
            raise conflict(f"{describe(kind, old)} asks for {have} replicas, not {current}.")
        new = {**old, "spec": {**spec_of(old), "replicas": replicas}}
        return self._write(kind, key, old, new, traceparent, False)

    def _write(self, kind: Kind, key: Key, old: Object, new: Object, traceparent: str, dry_run: bool) -> Stored:
        if new == old:
            return stored(old)
        if spec_of(new) != spec_of(old) and kind in (*SCALABLE, kinds.POD):
            new = traced(new, traceparent)
        return stored(new) if dry_run else self._ledger.put(key, new)

    # ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        now_ns: int,
        propagation: str,
        grace_seconds: int | None,
        uid: str,
        revision: int,
        dry_run: bool,
    ) -> tuple[Stored, bool]:
        """Deletes one object; see the contract's DeleteObject."""
        key, obj = self.find(kind, namespace, name)
        check_preconditions(kind, obj, uid, revision)
        if kind == kinds.NAMESPACE and name in PROTECTED:
            raise FailedPrecondition(
                f'Namespace "{name}" belongs to every cluster and may not be deleted.',
                reason="NAMESPACE_PROTECTED",
                next_step="Delete the objects in it instead.",
            )
        if grace_seconds is not None and not 0 <= grace_seconds <= 86400:
            raise InvalidArgument(
                f"The grace period is {grace_seconds} s, not within 0 to 86400.",
                reason="REQUEST_INVALID",
                next_step="Give a period of at most a day.",
            )
        marked = deletion.mark(kind, obj, now_ns, propagation, grace_seconds)
        if dry_run:
            return stored(marked or obj), marked is None
        if marked is None:
            return self._ledger.remove(key), True
        return (self._ledger.put(key, marked) if marked is not obj else stored(obj)), False


def object_of(text: str, namespace: str) -> tuple[Kind, Object]:
    """Kind and shaped object of one JSON text."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise InvalidArgument(
            "The text is not a JSON object.", reason="MANIFEST_MALFORMED", next_step="Send one object as JSON."
        )
    kind = kind_of(value)
    return kind, shaped(kind, value, namespace or DEFAULT)


def stored(obj: Object) -> Stored:
    """An object with its text."""
    return Stored(obj, canonical(obj))


def traced(obj: Object, traceparent: str) -> Object:
    """The object with the trace of the request that wants it, or without one if the request is not sampled."""
    return with_annotations(obj, **{TRACEPARENT: traceparent or None})


def conflict(message: str) -> Aborted:
    """The error for a lost race."""
    return Aborted(message, reason="CONFLICT", next_step="Read the object again and repeat the change.")


def without_version(obj: Object) -> dict[str, Any]:
    """The object's metadata without its resource version, so that a patch names one only if it wants to."""
    return {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}


def _but_metadata(patch: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in patch.items() if name != "metadata"}
