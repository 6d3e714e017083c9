"""The garbage collector: what is owned goes with its owner.

Source: Kubernetes documentation, "Garbage Collection" and "Owners and Dependents".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_orchestrator.domain.kinds.kinds import POD, kind_of
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    finalizers_of,
    is_deleting,
    metadata,
    name_of,
    namespace_of,
    uid_of,
    with_metadata,
)
from lamina_orchestrator.domain.objects.actions import Action, Decide, Remove, Replace
from lamina_orchestrator.domain.objects.ownership import owners_of, without_owner

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


def collect_dependent(obj: Object, exists: Callable[[str], bool]) -> list[Action]:
    """Deletes an object all of whose owners are gone; drops the references to those that are, if some are left.

    `exists(uid)` says whether an object of that uid is stored.
    """
    owners = owners_of(obj)
    gone = [owner for owner in owners if not exists(owner["uid"])]
    if not gone or is_deleting(obj):
        return []
    kind = kind_of(obj)
    key = kind.key(namespace_of(obj), name_of(obj))
    names = ", ".join(f"{owner['kind']}/{owner['name']}" for owner in gone)
    if len(gone) < len(owners):
        kept = [owner for owner in owners if owner not in gone]
        return [Replace(kind, with_metadata(obj, ownerReferences=kept))]
    rule = "every owner is gone"
    return [Decide(key, "object.collected", rule, inputs={"owners": names}), Remove(key, uid_of(obj), "owner is gone")]


def finalize_owner(owner: Object, dependents: Sequence[Object]) -> list[Action]:
    """Carries on with an owner whose deletion waits for its dependents to go first, or to be orphaned."""
    if not is_deleting(owner):
        return []
    if ORPHAN in finalizers_of(owner):
        released = [Replace(kind_of(obj), without_owner(obj, uid_of(owner))) for obj in dependents]
        return [*released, _without_finalizer(owner, ORPHAN)]
    if FOREGROUND not in finalizers_of(owner):
        return []
    blocking = [obj for obj in dependents if _blocks(obj, uid_of(owner))]
    if not blocking:
        return [_without_finalizer(owner, FOREGROUND)]
    return [_remove(obj) for obj in dependents if not is_deleting(obj)]


def _remove(obj: Object) -> Action:
    kind = kind_of(obj)
    key = kind.key(namespace_of(obj), name_of(obj))
    return Remove(key, uid_of(obj), "foreground deletion", foreground=kind != POD)  # pods own nothing to wait for


def _blocks(obj: Object, owner_uid: str) -> bool:
    return any(owner["uid"] == owner_uid and owner.get("blockOwnerDeletion") for owner in owners_of(obj))


def _without_finalizer(owner: Object, name: str) -> Action:
    kept = [found for found in finalizers_of(owner) if found != name]
    return Replace(kind_of(owner), with_metadata({**owner, "metadata": dict(metadata(owner))}, finalizers=kept))
