"""The ReplicaSet controller: as many pods as asked for.

Source: Kubernetes documentation, "ReplicaSet" (scaling down); k8s.io/kubernetes/pkg/controller ActivePodsWithRanks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina_orchestrator.domain.kinds.kinds import POD, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    annotations_of,
    clone,
    is_deleting,
    labels_of,
    metadata,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.kinds.timestamps import parse_time
from lamina_orchestrator.domain.objects.actions import NORMAL, Action, Again, Create, Decide, Emit, Remove, SetStatus
from lamina_orchestrator.domain.objects.ownership import claim, controller_reference, inherit_trace
from lamina_orchestrator.domain.objects.selectors import Selector, label_selector
from lamina_orchestrator.domain.pods.status import available_at, is_active, is_ready, phase_of, ready_since

BURST = 500
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_COMPONENT = "replicaset-controller"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def reconcile(replica_set: Object, candidates: Sequence[Object], now_ns: int) -> list[Action]:
    """What brings the pods to the count that the ReplicaSet asks for, and its status.

    `candidates` are the pods that it controls and those of its namespace without controller, ordered by name.
    """
    selector = label_selector(spec_of(replica_set)["selector"])
    claimed, actions = claim(replica_set, REPLICA_SET, POD, selector, candidates)
    active = [pod for pod in claimed if is_active(pod)]
    if not is_deleting(replica_set):
        wanted = int(spec_of(replica_set)["replicas"])
        if len(active) < wanted:
            actions += _create(replica_set, min(wanted - len(active), BURST), wanted, len(active))
        elif len(active) > wanted:
            actions += _delete(replica_set, active, min(len(active) - wanted, BURST), wanted)
    return actions + _status(replica_set, active, selector, now_ns)


def new_pod(replica_set: Object) -> Object:
    """A pod from the ReplicaSet's template, not yet named."""
    template = spec_of(replica_set)["template"]
    given = template.get("metadata") or {}
    fields: dict[str, Any] = {
        "generateName": f"{name_of(replica_set)}-",
        "namespace": namespace_of(replica_set),
        "ownerReferences": [controller_reference(REPLICA_SET, replica_set)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if given.get(part):
            fields[part] = clone(given[part])
    return inherit_trace(replica_set, {"metadata": fields, "spec": clone(template["spec"])})


def _create(replica_set: Object, count: int, wanted: int, active: int) -> list[Action]:
    key = REPLICA_SET.key(namespace_of(replica_set), name_of(replica_set))
    inputs: dict[str, str | int] = {"wanted": wanted, "active": active, "created": count}
    decided = Decide(key, "pods.created", "fewer active pods than spec.replicas", inputs=inputs)
    return [decided, *(Create(POD, new_pod(replica_set)) for _ in range(count))]


def _delete(replica_set: Object, active: list[Object], count: int, wanted: int) -> list[Action]:
    key = REPLICA_SET.key(namespace_of(replica_set), name_of(replica_set))
    chosen = victims(active, count)
    inputs: dict[str, str | int] = {"wanted": wanted, "active": len(active), "deleted": count}
    made: list[Action] = [Decide(key, "pods.deleted", "more active pods than spec.replicas", inputs=inputs)]
    for pod, why in chosen:
        pod_key = POD.key(namespace_of(pod), name_of(pod))
        made.append(Decide(pod_key, "pod.chosen_for_scale_down", why, key.resource_name))
        made.append(Remove(pod_key, uid_of(pod), "scaled down"))
        text = f"Deleted pod: {name_of(pod)}"
        made.append(Emit(replica_set, NORMAL, "SuccessfulDelete", text, _COMPONENT))
    return made


def victims(active: Sequence[Object], count: int) -> list[tuple[Object, str]]:
    """The pods to delete first, each with the rule that put it before the next.

    Order: not bound to a node, pending, not ready, lower deletion cost, most pods of the set on its node, ready for the
    shortest time, most restarts, newest; the name decides what is left.
    """
    per_node: dict[str, int] = {}
    for pod in active:
        node = spec_of(pod).get("nodeName", "")
        per_node[node] = per_node.get(node, 0) + 1
    ranked = sorted(((_rank(pod, per_node), name_of(pod), pod) for pod in active), key=lambda item: item[:2])
    chosen = []
    for position in range(count):
        following = ranked[position + 1][0] if position + 1 < len(ranked) else None
        chosen.append((ranked[position][2], _deciding_rule(ranked[position][0], following)))
    return chosen


_RULES = (
    "not bound to a node",
    "earlier phase",
    "not ready",
    "lower pod-deletion-cost",
    "most pods of the set on its node",
    "ready for the shortest time",
    "most restarts",
    "newest",
)


def _rank(pod: Object, per_node: dict[str, int]) -> tuple[int, ...]:
    node = spec_of(pod).get("nodeName", "")
    restarts = sum(int(found["restartCount"]) for found in status_of(pod).get("containerStatuses") or [])
    return (
        1 if node else 0,
        _PHASES.get(phase_of(pod), 0),
        1 if is_ready(pod) else 0,
        _cost(annotations_of(pod).get(DELETION_COST, "0")),
        -per_node.get(node, 0) if node else 0,
        -ready_since(pod),
        -restarts,
        -parse_time(metadata(pod)["creationTimestamp"]),
    )


def _cost(text: str) -> int:
    digits = text.lstrip("+-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else 0


def _deciding_rule(rank: tuple[int, ...], following: tuple[int, ...] | None) -> str:
    for rule, mine, other in zip(_RULES, rank, following or (), strict=False):
        if mine != other:
            return rule
    return "first by name" if following else "the last one left"


def _status(replica_set: Object, active: list[Object], selector: Selector, now_ns: int) -> list[Action]:
    spec = spec_of(replica_set)
    wanted = ((spec["template"].get("metadata") or {}).get("labels") or {}).items()
    minimum = int(spec.get("minReadySeconds", 0))
    ready = [pod for pod in active if is_ready(pod)]
    moments = [moment for pod in ready if (moment := available_at(pod, minimum)) is not None] if minimum else []
    status: dict[str, Any] = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(1 for pod in active if wanted <= labels_of(pod).items()),
        "readyReplicas": len(ready),
        "availableReplicas": sum(1 for moment in moments if moment <= now_ns) if minimum else len(ready),
        "observedGeneration": int(metadata(replica_set).get("generation", 1)),
    }
    made: list[Action] = []
    if status != status_of(replica_set):
        key = REPLICA_SET.key(namespace_of(replica_set), name_of(replica_set))
        made.append(SetStatus(REPLICA_SET, key, status))
    later = [moment for moment in moments if moment > now_ns]
    return [*made, Again(min(later))] if later else made
