"""The status of a Deployment: counts, availability, progress.

Source: k8s.io/kubernetes/pkg/controller/deployment/progress.go and Kubernetes documentation, "Deployment status".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina_orchestrator.domain.controllers.rollout import Bounds
from lamina_orchestrator.domain.kinds.plain_object import Object, metadata, name_of, spec_of, status_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND, parse_time, rfc3339
from lamina_orchestrator.domain.objects.actions import Again
from lamina_orchestrator.domain.pods.status import condition

_COUNTS = ("updatedReplicas", "readyReplicas", "availableReplicas")


def is_complete(deployment: Object, status: dict[str, Any]) -> bool:
    """Whether all replicas are of the newest template and available, and no old one is left."""
    wanted = int(spec_of(deployment)["replicas"])
    counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [wanted] * 3 and status.get("observedGeneration") == metadata(deployment).get("generation")


def deployment_status(
    deployment: Object,
    sets: Sequence[Object],
    new: Object | None,
    bounds: Bounds,
    now_ns: int,
    *,
    created: str = "",
) -> tuple[dict[str, Any], list[Again]]:
    """The status, and when to look again because the progress deadline could pass.

    `created` names a ReplicaSet that this reconciliation makes.
    """
    before = status_of(deployment)
    status = _counts(deployment, sets, new, before)
    conditions = [_available(status, bounds, before, now_ns)]
    progress, again = _progress(deployment, status, name_of(new) if new else created, bool(created), now_ns)
    if progress:
        conditions.append(progress)
    status["conditions"] = conditions
    return status, again


def _counts(deployment: Object, sets: Sequence[Object], new: Object | None, before: dict[str, Any]) -> dict[str, Any]:
    def total(name: str) -> int:
        return sum(int(status_of(found).get(name, 0)) for found in sets)

    wanted = sum(int(spec_of(found)["replicas"]) for found in sets)
    available = total("availableReplicas")
    status: dict[str, Any] = {
        "observedGeneration": int(metadata(deployment).get("generation", 1)),
        "replicas": total("replicas"),
        "updatedReplicas": int(status_of(new).get("replicas", 0)) if new else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    if "collisionCount" in before:
        status["collisionCount"] = before["collisionCount"]
    return status


def _available(status: dict[str, Any], bounds: Bounds, before: dict[str, Any], now_ns: int) -> dict[str, Any]:
    enough = status["availableReplicas"] >= bounds.least
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    text = "Deployment has minimum availability." if enough else "Deployment does not have minimum availability."
    return _condition("Available", "True" if enough else "False", reason, text, before, now_ns)


def _condition(
    kind: str, value: str, reason: str, text: str, before: dict[str, Any], now_ns: int, *, fresh: bool = False
) -> dict[str, Any]:
    known = condition({"status": before}, kind)
    same = known is not None and known["status"] == value and known["reason"] == reason and known["message"] == text
    if known is not None and same and not fresh:
        return known
    moved = known is None or known["status"] != value
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": text,
        "lastUpdateTime": rfc3339(now_ns),
        "lastTransitionTime": rfc3339(now_ns) if known is None or moved else known["lastTransitionTime"],
    }


def _progress(
    deployment: Object, status: dict[str, Any], name: str, created: bool, now_ns: int
) -> tuple[dict[str, Any] | None, list[Again]]:
    before = status_of(deployment)
    known = condition(deployment, "Progressing")
    if spec_of(deployment).get("paused"):
        text = "Deployment is paused"
        return _condition("Progressing", "Unknown", "DeploymentPaused", text, before, now_ns), []
    if created:
        text = f'Created new replica set "{name}"'
        return _condition("Progressing", "True", "NewReplicaSetCreated", text, before, now_ns), []
    if is_complete(deployment, status):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return _condition("Progressing", "True", "NewReplicaSetAvailable", text, before, now_ns), []
    if known and known["reason"] == "NewReplicaSetAvailable" and status["replicas"] == status["updatedReplicas"]:
        return known, []  # the rollout is over; pods that come and go later are no progress of it
    deadline = int(spec_of(deployment)["progressDeadlineSeconds"]) * SECOND
    text = f'ReplicaSet "{name}" is progressing.'
    if known is None or known["reason"] in ("DeploymentPaused", "NewReplicaSetAvailable") or _moved_on(before, status):
        made = _condition("Progressing", "True", "ReplicaSetUpdated", text, before, now_ns, fresh=True)
        return made, [Again(now_ns + deadline)]
    due = parse_time(known["lastUpdateTime"]) + deadline
    if known["reason"] == "ProgressDeadlineExceeded":
        return known, []
    if now_ns < due:
        return known, [Again(due)]
    text = f'ReplicaSet "{name}" has timed out progressing.'
    return _condition("Progressing", "False", "ProgressDeadlineExceeded", text, before, now_ns), []


def _moved_on(before: dict[str, Any], status: dict[str, Any]) -> bool:
    if any(status[name] > before.get(name, 0) for name in _COUNTS):
        return True
    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    return bool(status["replicas"] - status["updatedReplicas"] < old_before)
