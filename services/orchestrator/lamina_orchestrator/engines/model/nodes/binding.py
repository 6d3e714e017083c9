"""Binds pods to nodes: which wait, when they are tried again, and what is recorded of each decision.

A pod that fits nowhere waits until something changed that could matter: a node, or room on one. Pods that the scheduler
cannot tell apart share one verdict.
"""

from __future__ import annotations

from lamina_orchestrator.domain.kinds.kinds import POD
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    is_deleting,
    metadata,
    name_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.objects.actions import NORMAL, WARNING, Action, Decide, Emit, Replace, SetStatus
from lamina_orchestrator.domain.pods.status import FAILED, TERMINAL, phase_of, with_condition
from lamina_orchestrator.domain.scheduling.node_table import NodeTable
from lamina_orchestrator.domain.scheduling.scheduler import Placement, Unschedulable, refusal, schedule, signature

_COMPONENT = "default-scheduler"


class Scheduling:
    """The pods that have no node yet, and the table of nodes."""

    def __init__(self) -> None:
        self.table = NodeTable()
        self._active: dict[Key, str] = {}
        self._waiting: dict[Key, None] = {}
        self._verdicts: dict[str, Unschedulable] = {}
        self.why = ""
        """Why pods are taken in or tried again now."""
        self.cause = ""
        """Why the pod that `next` returned last is to be placed."""

    def __len__(self) -> int:
        return len(self._active)

    def take(self, key: Key, pod: Object) -> None:
        """Takes in a pod's new version: queued without a node, counted with one, released when it has ended."""
        if phase_of(pod) in TERMINAL:
            self.drop(key, uid_of(pod))
        elif spec_of(pod).get("nodeName"):
            self._active.pop(key, None)
            self._waiting.pop(key, None)
            self.table.assign(pod)
        elif is_deleting(pod):
            self.drop(key, uid_of(pod))
        elif key not in self._waiting:
            self._active[key] = self.why

    def drop(self, key: Key, uid: str) -> None:
        """Forgets a pod; the room that it leaves may let others in."""
        self._active.pop(key, None)
        self._waiting.pop(key, None)
        if self.table.release(uid):
            self.retry()

    def retry(self) -> None:
        """Tries waiting pods again."""
        self._verdicts.clear()
        self._active.update(dict.fromkeys(self._waiting, self.why))
        self._waiting.clear()

    def next(self) -> Key | None:
        """The pod that has waited longest for a first try, or None."""
        if not self._active:
            return None
        key = next(iter(self._active))
        self.cause = self._active.pop(key)
        return key

    def place(self, key: Key, pod: Object, now_ns: int) -> list[Action]:
        """Chooses a node for a pod, or says why there is none."""
        alike = signature(pod)
        result = self._verdicts.get(alike) or schedule(pod, self.table)
        if isinstance(result, Placement):
            return _bind(key, pod, result, now_ns)
        self._verdicts[alike] = result
        self._waiting[key] = None
        return _pending(key, pod, result, now_ns)

    def refuse(self, key: Key, pod: Object) -> list[Action]:
        """Fails a pod that names a node itself on which it does not fit, as the node's kubelet does."""
        reason = refusal(pod, self.table)
        if not reason:
            return []
        node = spec_of(pod)["nodeName"]
        text = f"Node didn't have enough resource: {reason} on {node}"
        status = {**status_of(pod), "phase": FAILED, "reason": reason, "message": text}
        return [
            Decide(key, "pod.refused", "the node that it names has no room", inputs={"node": node, "reason": reason}),
            SetStatus(POD, key, status),
            Emit(pod, WARNING, reason, text, "kubelet"),
        ]


def _bind(key: Key, pod: Object, placed: Placement, now_ns: int) -> list[Action]:
    conditions = with_condition(status_of(pod).get("conditions") or [], "PodScheduled", "True", now_ns)
    bound = {
        **pod,
        "spec": {**spec_of(pod), "nodeName": placed.node},
        "status": {**status_of(pod), "conditions": conditions},
    }
    where = f"{metadata(pod).get('namespace', '')}/{name_of(pod)}"
    return [
        Decide(key, "pod.scheduled", placed.rule, inputs=placed.inputs),
        Replace(POD, bound),
        Emit(bound, NORMAL, "Scheduled", f"Successfully assigned {where} to {placed.node}", _COMPONENT),
    ]


def _pending(key: Key, pod: Object, found: Unschedulable, now_ns: int) -> list[Action]:
    before = status_of(pod).get("conditions") or []
    conditions = with_condition(before, "PodScheduled", "False", now_ns, "Unschedulable", found.message)
    if conditions == before:
        return []
    return [
        Decide(key, "pod.pending", "no node passes the filters", inputs={**found.inputs, "message": found.message}),
        SetStatus(POD, key, {**status_of(pod), "conditions": conditions}),
        Emit(pod, WARNING, "FailedScheduling", found.message, _COMPONENT),
    ]
