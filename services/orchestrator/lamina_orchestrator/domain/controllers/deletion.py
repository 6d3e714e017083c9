"""How an object is deleted: at once, or marked until its containers, dependents or finalizers are done.

Source: Kubernetes documentation, "Pod Lifecycle" (termination), "Finalizers", "Garbage Collection".
"""

from __future__ import annotations

from lamina_orchestrator.domain.controllers.garbage_collector import FOREGROUND, ORPHAN
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    finalizers_of,
    is_deleting,
    metadata,
    spec_of,
    with_metadata,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339
from lamina_orchestrator.domain.pods.status import TERMINAL, phase_of

BACKGROUND_POLICY, FOREGROUND_POLICY, ORPHAN_POLICY = "background", "foreground", "orphan"
_FINALIZERS = {BACKGROUND_POLICY: "", FOREGROUND_POLICY: FOREGROUND, ORPHAN_POLICY: ORPHAN}


def mark(kind: Kind, obj: Object, now_ns: int, policy: str, grace_seconds: int | None) -> Object | None:
    """The object marked as being deleted, or None if it goes at once.

    Marking one that is marked already may shorten a pod's grace period, and never lengthens it. `grace_seconds` None is
    the pod's own period; a pod that no node runs, or that has ended, has nothing to wait for.
    """
    marked = obj
    finalizer = _FINALIZERS[policy]
    if finalizer and not is_deleting(obj):
        marked = with_metadata(marked, finalizers=[*finalizers_of(obj), finalizer])
    grace = _grace(obj, grace_seconds) if kind == kinds.POD else 0
    if is_deleting(obj):
        grace = min(grace, int(metadata(obj).get("deletionGracePeriodSeconds", 0)))
        if grace == metadata(obj).get("deletionGracePeriodSeconds"):
            return obj if not is_complete(obj) else None
    fields = {**metadata(marked), "deletionTimestamp": rfc3339(now_ns + grace * SECOND)}
    marked = {**marked, "metadata": {**fields, "deletionGracePeriodSeconds": grace}}
    if kind == kinds.NAMESPACE:
        marked["status"] = {"phase": "Terminating"}
    return None if is_complete(marked) else marked


def _grace(pod: Object, given: int | None) -> int:
    if not spec_of(pod).get("nodeName") or phase_of(pod) in TERMINAL:
        return 0
    return int(spec_of(pod).get("terminationGracePeriodSeconds", 30)) if given is None else given


def is_complete(obj: Object) -> bool:
    """Whether a marked object has nothing left to wait for: no finalizers, no content, no running containers."""
    if not is_deleting(obj) or finalizers_of(obj):
        return False
    if obj["kind"] == kinds.NAMESPACE.name:
        return not spec_of(obj).get("finalizers")
    return not metadata(obj).get("deletionGracePeriodSeconds")
