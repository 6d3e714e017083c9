"""Taints and tolerations.

Source: Kubernetes documentation, "Taints and Tolerations"; k8s.io/component-helpers/scheduling/corev1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NO_SCHEDULE, NO_EXECUTE, PREFER = "NoSchedule", "NoExecute", "PreferNoSchedule"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def tolerates(toleration: dict[str, Any], taint: dict[str, Any]) -> bool:
    """Whether a toleration covers a taint; an empty key or effect covers any."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(
    taints: Sequence[dict[str, Any]], tolerations: Sequence[dict[str, Any]], effects: tuple[str, ...]
) -> dict[str, Any] | None:
    """The first taint of one of the effects that no toleration covers, or None."""
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(toleration, taint) for toleration in tolerations):
            return taint
    return None


def seconds_tolerated(taint: dict[str, Any], tolerations: Sequence[dict[str, Any]]) -> int | None:
    """How long a pod may stay under a NoExecute taint: 0 if it is not tolerated, None for ever."""
    covering = [toleration for toleration in tolerations if tolerates(toleration, taint)]
    if not covering:
        return 0
    limits = [toleration["tolerationSeconds"] for toleration in covering if "tolerationSeconds" in toleration]
    return max(0, min(limits)) if limits else None
