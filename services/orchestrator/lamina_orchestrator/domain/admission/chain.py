"""What an object passes before it is stored: shape, defaults, rules, and the metadata that only the system writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lamina_kit.errors import Aborted, InvalidArgument, Violation
from lamina_orchestrator.domain.admission.defaults import with_defaults, with_tolerations
from lamina_orchestrator.domain.admission.validation import check_create, check_update
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    finalizers_of,
    is_deleting,
    metadata,
    name_of,
    namespace_of,
    revision_of,
    spec_of,
    uid_of,
    with_metadata,
)
from lamina_orchestrator.domain.kinds.schema import forbidden, invalid, refuse, wrong_type
from lamina_orchestrator.domain.kinds.shapes import SHAPES
from lamina_orchestrator.domain.kinds.timestamps import rfc3339
from lamina_orchestrator.domain.objects.names import generated_name, uid
from lamina_orchestrator.domain.pods.status import initial_status

SYSTEM_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
_INITIAL_STATUS: dict[Kind, dict[str, Any]] = {kinds.NAMESPACE: {"phase": "Active"}}


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules with what they need from outside.

    `entropy(n)` gives n random bytes; `toleration_seconds` is how long a pod that says nothing stays on a lost node.
    """

    entropy: Callable[[int], bytes]
    toleration_seconds: int

    def create(self, kind: Kind, obj: Object, now_ns: int) -> Object:
        """A checked object as it is stored first.

        Raises InvalidArgument `OBJECT_INVALID`. `obj` has passed `shaped`.
        """
        filled = with_defaults(kind, obj)
        found = check_create(kind, filled)
        if metadata(obj).get("resourceVersion"):
            found.append(forbidden("metadata.resourceVersion", "may not be set on objects to be created"))
        refuse(describe(kind, obj), found)
        return self.complete(kind, filled, now_ns)

    def complete(self, kind: Kind, obj: Object, now_ns: int) -> Object:
        """Adds what only the system writes to a new object that is known to be right: name, uid, times, status."""
        fields = {name: value for name, value in metadata(obj).items() if name not in SYSTEM_FIELDS}
        if not fields.get("name"):
            fields["name"] = generated_name(fields["generateName"], self.entropy(8))
        fields.update(uid=uid(self.entropy(16)), creationTimestamp=rfc3339(now_ns), generation=1)
        made: Object = {**obj, "apiVersion": kind.api_version, "kind": kind.name, "metadata": fields}
        made.pop("status", None)
        if kind == kinds.POD:
            made = with_tolerations(made, self.toleration_seconds)
            made["status"] = initial_status(made)
        elif kind != kinds.EVENT:
            made["status"] = dict(_INITIAL_STATUS.get(kind, {}))
        return made


def shaped(kind: Kind, value: Object, default_namespace: str) -> Object:
    """The value checked against the kind's shape, with its namespace filled in.

    Raises InvalidArgument `OBJECT_INVALID`.
    """
    if value.get("metadata") is not None and not isinstance(value["metadata"], dict):
        refuse(f"{kind.name}", [wrong_type("metadata", value["metadata"], "object")])
    found: list[Violation] = []
    checked = SHAPES[kind].check(value, "", found)
    refuse(describe(kind, value), found)
    fields = {"labels": {}, "annotations": {}, **checked["metadata"]}
    if kind.namespaced and not fields.get("namespace"):
        fields["namespace"] = default_namespace
    version = fields.get("resourceVersion", "")
    if version and not (version.isascii() and version.isdigit()):
        refuse(describe(kind, value), [invalid("metadata.resourceVersion", version, "must be a number")])
    obj: Object = with_metadata(checked, **fields)
    return obj


def update(kind: Kind, old: Object, new: Object, *, status_only: bool = False) -> Object:
    """The object after an update; equal to `old` if nothing changes.

    `new` has passed `shaped`. Raises Aborted `CONFLICT` when it names another uid or resource version than `old` has,
    and InvalidArgument `OBJECT_INVALID`.
    """
    check_preconditions(kind, old, uid_of(new), revision_of(new))
    if status_only:
        return {**old, "status": new.get("status", {})}
    kept = {name: value for name, value in metadata(old).items() if name in SYSTEM_FIELDS}
    given = {name: value for name, value in metadata(new).items() if name not in SYSTEM_FIELDS}
    merged: Object = {**new, "apiVersion": kind.api_version, "kind": kind.name}
    merged = with_metadata({**merged, "metadata": {}}, **{**given, **kept})
    if kind != kinds.EVENT:
        merged["status"] = old.get("status", {})
    merged = with_defaults(kind, merged)
    found = check_update(kind, old, merged)
    added = [name for name in finalizers_of(merged) if name not in finalizers_of(old)]
    if is_deleting(old) and added:
        found.append(forbidden("metadata.finalizers", "no new finalizers can be added to an object being deleted"))
    refuse(describe(kind, merged), found)
    if spec_of(merged) != spec_of(old):
        merged = with_metadata(merged, generation=int(metadata(old).get("generation", 1)) + 1)
    return merged


def check_preconditions(kind: Kind, obj: Object, wanted_uid: str, wanted_version: int) -> None:
    """Raises Aborted `CONFLICT` when a uid or version is wanted and the object has another."""
    if wanted_uid and wanted_uid != uid_of(obj):
        raise _conflict(kind, obj, f"it has uid {uid_of(obj)}, not {wanted_uid[:64]}")
    if wanted_version and wanted_version != revision_of(obj):
        raise _conflict(kind, obj, f"it is at resource version {revision_of(obj)}, not {wanted_version}")


def _conflict(kind: Kind, obj: Object, why: str) -> Aborted:
    return Aborted(
        f"{describe(kind, obj)} has been modified: {why}.",
        reason="CONFLICT",
        next_step="Read the object again and repeat the change on its newest version.",
    )


def describe(kind: Kind, obj: Object) -> str:
    """`Deployment "default/hello"`: how messages name an object."""
    name = str(metadata(obj).get("name") or metadata(obj).get("generateName") or "")
    where = f"{namespace_of(obj)}/" if kind.namespaced and namespace_of(obj) else ""
    return f'{kind.name} "{where[:64]}{name[:100]}"'


def check_same(kind: Kind, obj: Object, namespace: str, name: str) -> None:
    """Refuses an object whose name or namespace differ from the one that is written."""
    found = []
    if name_of(obj) != name:
        found.append(invalid("metadata.name", name_of(obj), "may not be changed"))
    if kind.namespaced and namespace_of(obj) != namespace:
        found.append(invalid("metadata.namespace", namespace_of(obj), "may not be changed"))
    refuse(describe(kind, obj), found)


def patch_malformed(why: str) -> InvalidArgument:
    """The error for a merge patch that is none."""
    return InvalidArgument(
        f"The merge patch cannot be used: {why}.",
        reason="PATCH_MALFORMED",
        next_step="Send a JSON object with the fields to change.",
    )
