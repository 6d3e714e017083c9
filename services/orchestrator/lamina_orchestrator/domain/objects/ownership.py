"""Who owns an object: owner references, and the claim of a controller to what its selector names.

Source: Kubernetes documentation, "Owners and Dependents"; k8s.io/kubernetes/pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    annotations_of,
    is_deleting,
    labels_of,
    metadata,
    name_of,
    uid_of,
    with_annotations,
    with_metadata,
)
from lamina_orchestrator.domain.objects.actions import Action, Replace
from lamina_orchestrator.domain.objects.selectors import Selector

TRACEPARENT = "lamina.dev/traceparent"


def owners_of(obj: Object) -> list[dict[str, Any]]:
    """metadata.ownerReferences; empty if there are none."""
    return metadata(obj).get("ownerReferences") or []


def controller_of(obj: Object) -> dict[str, Any] | None:
    """The owner reference of the object's controller, or None."""
    return next((owner for owner in owners_of(obj) if owner.get("controller")), None)


def is_controlled_by(obj: Object, owner_uid: str) -> bool:
    """Whether that owner is the object's controller."""
    owner = controller_of(obj)
    return owner is not None and owner["uid"] == owner_uid


def controller_reference(kind: Kind, owner: Object) -> dict[str, Any]:
    """The reference by which an object names its controller."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def without_owner(obj: Object, owner_uid: str) -> Object:
    """The object without its reference to that owner."""
    kept = [owner for owner in owners_of(obj) if owner["uid"] != owner_uid]
    return with_metadata(obj, ownerReferences=kept)


def inherit_trace(owner: Object, obj: Object) -> Object:
    """The object with its owner's trace annotation, or without one if the owner has none.

    Work on the object then joins the trace of the request that its owner carries out.
    """
    return with_annotations(obj, **{TRACEPARENT: annotations_of(owner).get(TRACEPARENT)})


def claim(
    owner: Object, owner_kind: Kind, kind: Kind, selector: Selector, candidates: Iterable[Object]
) -> tuple[list[Object], list[Action]]:
    """The candidates that the owner controls, with the actions that adopt and release.

    An object without controller that matches is adopted; one that does not match any more is released. Objects of other
    controllers, and those being deleted, are left alone.
    """
    claimed: list[Object] = []
    actions: list[Action] = []
    for obj in candidates:
        matches = selector.matches(labels_of(obj))
        controller = controller_of(obj)
        if controller is not None and controller["uid"] != uid_of(owner):
            continue
        if controller is not None and matches:
            claimed.append(obj)
        elif controller is not None and not is_deleting(owner):
            actions.append(Replace(kind, without_owner(obj, uid_of(owner))))
        elif controller is None and matches and not is_deleting(obj) and not is_deleting(owner):
            adopted = with_metadata(obj, ownerReferences=[*owners_of(obj), controller_reference(owner_kind, owner)])
            actions.append(Replace(kind, adopted))
            claimed.append(adopted)
    return claimed, actions
