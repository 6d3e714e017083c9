"""Kubernetes objects as plain data: keys, metadata, the canonical text.

An object is a dictionary as its JSON reads. Objects that were stored are shared and never changed in place: a change
builds a new dictionary around the parts that stay (`evolve`, `with_metadata`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identity of an object in the store.

    `resource` is the plural, followed by `.GROUP` outside the core group (`pods`, `deployments.apps`). `namespace` is
    empty for kinds without one.
    """

    resource: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Text under which the store files the object; listing it in order lists namespaces, then names."""
        return f"{self.resource}/{self.namespace}/{self.name}" if self.namespace else f"{self.resource}/{self.name}"

    @property
    def resource_name(self) -> str:
        """Name for people and for `Explain`: `namespaces/default/pods/hello-1` or `nodes/h1`."""
        plural = self.resource.partition(".")[0]
        return f"namespaces/{self.namespace}/{plural}/{self.name}" if self.namespace else f"{plural}/{self.name}"


def parse_path(path: str) -> Key:
    """Turns a store path back into its key. The path has to be one that `Key.path` made."""
    parts = path.split("/")
    return Key(parts[0], parts[1], parts[2]) if len(parts) == 3 else Key(parts[0], "", parts[1])


def canonical(value: Any) -> str:
    """Canonical JSON: keys sorted, no spaces, UTF-8 as it is. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def clone(value: Any) -> Any:
    """Copies nested lists and dictionaries; leaves are immutable and shared."""
    if isinstance(value, dict):
        return {name: clone(part) for name, part in value.items()}
    if isinstance(value, list):
        return [clone(part) for part in value]
    return value


def metadata(obj: Object) -> dict[str, Any]:
    """The object's metadata; empty if it has none."""
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def name_of(obj: Object) -> str:
    """metadata.name, or an empty string."""
    return str(metadata(obj).get("name", ""))


def namespace_of(obj: Object) -> str:
    """metadata.namespace, or an empty string."""
    return str(metadata(obj).get("namespace", ""))


def uid_of(obj: Object) -> str:
    """metadata.uid, or an empty string."""
    return str(metadata(obj).get("uid", ""))


def revision_of(obj: Object) -> int:
    """metadata.resourceVersion as a number; 0 for an object that was never stored."""
    return int(metadata(obj).get("resourceVersion") or 0)


def labels_of(obj: Object) -> dict[str, str]:
    """metadata.labels; empty if there are none."""
    return metadata(obj).get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    """metadata.annotations; empty if there are none."""
    return metadata(obj).get("annotations") or {}


def is_deleting(obj: Object) -> bool:
    """Whether the object is marked as being deleted."""
    return "deletionTimestamp" in metadata(obj)


def finalizers_of(obj: Object) -> list[str]:
    """metadata.finalizers; empty if there are none."""
    return metadata(obj).get("finalizers") or []


def spec_of(obj: Object) -> dict[str, Any]:
    """The object's spec; empty if it has none."""
    return obj.get("spec") or {}


def status_of(obj: Object) -> dict[str, Any]:
    """The object's status; empty if it has none."""
    return obj.get("status") or {}


def evolve(obj: Object, **parts: Any) -> Object:
    """A copy of the object with some top-level parts replaced."""
    return {**obj, **parts}


def with_metadata(obj: Object, **fields: Any) -> Object:
    """A copy with metadata fields replaced; None or an empty collection removes a field."""
    merged = {**metadata(obj), **fields}
    kept = {name: value for name, value in merged.items() if value is not None and value not in ({}, [])}
    return {**obj, "metadata": kept}


def with_annotations(obj: Object, **changes: str | None) -> Object:
    """A copy with annotations set; None removes one. Keys with dots or slashes are passed as `**{key: value}`."""
    merged = {**annotations_of(obj), **changes}
    return with_metadata(obj, annotations={name: value for name, value in merged.items() if value is not None})
