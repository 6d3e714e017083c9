"""The kinds that this orchestrator serves."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lamina_kit.errors import InvalidArgument, Violation
from lamina_orchestrator.domain.kinds.plain_object import Key, Object, name_of, namespace_of


@dataclass(frozen=True, slots=True)
class Kind:
    """One served kind: `apps/v1` `Deployment`, plural `deployments`."""

    api_version: str
    name: str
    plural: str
    namespaced: bool
    short_names: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""

    @property
    def resource(self) -> str:
        """Plural with its group: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def key(self, namespace: str, name: str) -> Key:
        """Key of an object of this kind; the namespace of a kind without one is dropped."""
        return Key(self.resource, namespace if self.namespaced else "", name)


NAMESPACE = Kind("v1", "Namespace", "namespaces", False, ("ns",))
NODE = Kind("v1", "Node", "nodes", False, ("no",))
POD = Kind("v1", "Pod", "pods", True, ("po",))
EVENT = Kind("v1", "Event", "events", True, ("ev",))
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets", True, ("rs",))
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", True, ("deploy",))
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", True)

KINDS = (NAMESPACE, NODE, POD, EVENT, REPLICA_SET, DEPLOYMENT, LEASE)
_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_RESOURCE = {kind.resource: kind for kind in KINDS}


def kind_named(name: str, api_version: str = "") -> Kind:
    """The kind of that name.

    Raises InvalidArgument `KIND_UNKNOWN`, naming the near kinds, for an unknown one or another apiVersion.
    """
    found = _BY_NAME.get(name)
    if found is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]}?" if near else f"served kinds: {', '.join(_BY_NAME)}"
        raise _unknown("kind", name, f'no kind "{name[:100]}" is served; {hint}')
    if api_version and api_version != found.api_version:
        text = f'no kind "{name}" in version "{api_version}"; it is served in "{found.api_version}"'
        raise _unknown("apiVersion", api_version, text)
    return found


def _unknown(field: str, value: str, text: str) -> InvalidArgument:
    shown = f'Unsupported value: "{value[:100]}": {text[:400]}'
    return InvalidArgument(
        f"The object cannot be served: {text[:400]}.",
        reason="KIND_UNKNOWN",
        next_step="Use one of the served kinds and its apiVersion.",
        violations=[Violation(field, shown)],
    )


def kind_of_resource(resource: str) -> Kind:
    """The kind whose objects are filed under that resource. KeyError for one that is not served."""
    return _BY_RESOURCE[resource]


def kind_of(obj: Object) -> Kind:
    """The kind of an object. Raises InvalidArgument `KIND_UNKNOWN`."""
    return kind_named(str(obj.get("kind", "")), str(obj.get("apiVersion", "")))


def key_of(obj: Object) -> Key:
    """The key of an object."""
    return kind_of(obj).key(namespace_of(obj), name_of(obj))
