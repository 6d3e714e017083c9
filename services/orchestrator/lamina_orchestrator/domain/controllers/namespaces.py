"""Namespaces: which every cluster has, and how one ends."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_orchestrator.domain.kinds.kinds import NAMESPACE, kind_of
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    is_deleting,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.objects.actions import Action, Remove, Replace, SetStatus

DEFAULT = "default"
NODE_LEASES = "kube-node-lease"
PROTECTED = (DEFAULT, "kube-public", "kube-system", NODE_LEASES)


def reconcile(namespace: Object, content: Sequence[Object]) -> list[Action]:
    """Empties a namespace that is being deleted, and lets it go when nothing is left.

    `content` is everything in it, ordered by kind and name.
    """
    if not is_deleting(namespace):
        return []
    actions: list[Action] = []
    if status_of(namespace).get("phase") != "Terminating":
        actions.append(SetStatus(NAMESPACE, NAMESPACE.key("", name_of(namespace)), {"phase": "Terminating"}))
    for obj in content:
        if not is_deleting(obj):
            key = kind_of(obj).key(namespace_of(obj), name_of(obj))
            actions.append(Remove(key, uid_of(obj), "its namespace is being deleted"))
    if not content and spec_of(namespace).get("finalizers"):
        return [Replace(NAMESPACE, {**namespace, "spec": {**spec_of(namespace), "finalizers": []}})]
    return actions
