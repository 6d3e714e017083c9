"""Nodes: how one is described, when it counts as lost, and what becomes of its pods.

A node is Ready while its runtime answers. 40 s after its last lease renewal it is Unknown and tainted unreachable; its
pods are deleted when their tolerations for that run out, and their owners make others elsewhere.
Source: Kubernetes documentation, "Nodes" (heartbeats, node controller), "Taint based evictions".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina_orchestrator.domain.admission.defaults import NOT_READY, UNREACHABLE
from lamina_orchestrator.domain.kinds.kinds import NODE, POD
from lamina_orchestrator.domain.kinds.plain_object import (
    Object,
    is_deleting,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.kinds.timestamps import SECOND, parse_time, rfc3339
from lamina_orchestrator.domain.objects.actions import NORMAL, WARNING, Action, Again, Decide, Emit, Remove, Replace
from lamina_orchestrator.domain.pods.status import TERMINAL, condition, phase_of, with_condition
from lamina_orchestrator.domain.scheduling.taints import NO_EXECUTE, NO_SCHEDULE, UNSCHEDULABLE, seconds_tolerated

GRACE_NS = 40 * SECOND
ADDRESS = "lamina.dev/runtime-address"
_COMPONENT = "node-controller"
_OURS = (NOT_READY, UNREACHABLE, UNSCHEDULABLE)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is known of a node's runtime: whether it answers now, and when its lease was last renewed.

    `renewed_ns` counts while it does not answer; it is when waiting for the first answer began if it never did.
    """

    answers: bool
    ever: bool
    renewed_ns: int


def new_node(
    host: str, address: str, cpu_millicores: int, memory_bytes: int, max_pods: int, labels: Mapping[str, str]
) -> Object:
    """A node for a host, with the capacity that pods may request."""
    known = {"kubernetes.io/hostname": host, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": NODE.api_version,
        "kind": NODE.name,
        "metadata": {"name": host, "labels": {**labels, **known}, "annotations": {ADDRESS: address}},
        "spec": {},
        "status": {"capacity": capacity(cpu_millicores, memory_bytes, max_pods)},
    }


def capacity(cpu_millicores: int, memory_bytes: int, max_pods: int) -> dict[str, str]:
    """Capacity in Kubernetes quantities."""
    whole, rest = divmod(cpu_millicores, 1000)
    memory = str(memory_bytes) if memory_bytes % 1024 else f"{memory_bytes // 1024}Ki"
    return {"cpu": f"{cpu_millicores}m" if rest else str(whole), "memory": memory, "pods": str(max_pods)}


def reconcile(node: Object, beat: Heartbeat, now_ns: int) -> list[Action]:
    """Condition and taints of a node from its heartbeat and its cordon."""
    due = beat.renewed_ns + GRACE_NS
    waiting = not beat.answers and now_ns < due
    status, reason, text = _readiness(node, beat, waiting)
    before = condition(node, "Ready")
    actions: list[Action] = [Again(due)] if waiting else []
    changed = before is None or (before["status"], before["reason"]) != (status, reason)
    made = node
    if changed:
        conditions = with_condition(status_of(node).get("conditions") or [], "Ready", status, now_ns, reason, text)
        shown = {**status_of(node), "conditions": conditions}
        shown.setdefault("allocatable", shown.get("capacity", {}))
        made = {**made, "status": shown}
    taints = _taints(made, status, now_ns)
    if taints != (spec_of(node).get("taints") or []):
        spec = {name: value for name, value in spec_of(node).items() if name != "taints"}
        made = {**made, "spec": {**spec, "taints": taints} if taints else spec}
    if made != node:
        actions.append(Replace(NODE, made))
    if changed:
        actions += _explain(node, status, reason, text, beat, now_ns)
    return actions


def _readiness(node: Object, beat: Heartbeat, waiting: bool) -> tuple[str, str, str]:
    before = condition(node, "Ready")
    if beat.answers:
        return "True", "RuntimeReady", "the container runtime answers"
    if waiting and before is not None:
        return before["status"], before["reason"], before.get("message", "")
    if waiting or not beat.ever:
        return "False", "RuntimeNotReady", "the container runtime has not answered yet"
    return "Unknown", "NodeStatusUnknown", "the container runtime stopped answering"


def _taints(node: Object, ready: str, now_ns: int) -> list[dict[str, Any]]:
    given = spec_of(node).get("taints") or []
    kept = [_dated(taint, now_ns) for taint in given if taint["key"] not in _OURS]
    wanted: list[tuple[str, str]] = []
    if spec_of(node).get("unschedulable"):
        wanted.append((UNSCHEDULABLE, NO_SCHEDULE))
    if ready != "True":
        key = UNREACHABLE if ready == "Unknown" else NOT_READY
        wanted += [(key, NO_SCHEDULE), (key, NO_EXECUTE)]
    for key, effect in wanted:
        known = next((taint for taint in given if taint["key"] == key and taint["effect"] == effect), None)
        kept.append(known or {"key": key, "effect": effect, "timeAdded": rfc3339(now_ns)})
    return kept


def _dated(taint: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """A NoExecute taint that says since when it holds: pods' tolerations for it count from there."""
    if taint["effect"] != NO_EXECUTE or "timeAdded" in taint:
        return taint
    return {**taint, "timeAdded": rfc3339(now_ns)}


def _explain(node: Object, status: str, reason: str, text: str, beat: Heartbeat, now_ns: int) -> list[Action]:
    event = {"True": "NodeReady", "False": "NodeNotReady", "Unknown": "NodeNotReady"}[status]
    kind = NORMAL if status == "True" else WARNING
    inputs: dict[str, str | int] = {
        "status": status,
        "reason": reason,
        "silent_ns": 0 if beat.answers else max(0, now_ns - beat.renewed_ns),
        "grace_ns": GRACE_NS,
    }
    rule = "Ready while the runtime answers, Unknown 40 s after the last renewal"
    message = f"Node {name_of(node)} status is now: {event} ({text})"
    return [
        Decide(NODE.key("", name_of(node)), "node.readiness", rule, inputs=inputs),
        Emit(node, kind, event, message, _COMPONENT),
    ]


def evict(node: Object | None, pods: Sequence[Object], now_ns: int) -> list[Action]:
    """Deletes pods that may not stay on a node: at once if it is gone, after their tolerations if it is tainted."""
    if node is None:
        rule = "its node is gone"
        return [action for pod in pods for action in _removal(pod, rule, grace=0)]
    actions: list[Action] = []
    moments: list[int] = []
    for pod in pods:
        if is_deleting(pod) or phase_of(pod) in TERMINAL:
            continue
        due, taint = _leaves_at(node, pod)
        if due is not None and due <= now_ns:
            actions += _removal(pod, f"NoExecute taint {taint} is tolerated no longer", cause=name_of(node))
        elif due is not None:
            moments.append(due)
    return [*actions, Again(min(moments))] if moments else actions


def _leaves_at(node: Object, pod: Object) -> tuple[int | None, str]:
    tolerations = spec_of(pod).get("tolerations") or []
    earliest: tuple[int, str] | None = None
    for taint in spec_of(node).get("taints") or []:
        if taint["effect"] != NO_EXECUTE:
            continue
        seconds = seconds_tolerated(taint, tolerations)
        if seconds is None:
            continue
        due = (parse_time(taint["timeAdded"]) if "timeAdded" in taint else 0) + seconds * SECOND
        if earliest is None or due < earliest[0]:
            earliest = due, taint["key"]
    return earliest if earliest else (None, "")


def _removal(pod: Object, rule: str, grace: int | None = None, cause: str = "") -> list[Action]:
    key = POD.key(namespace_of(pod), name_of(pod))
    return [
        Decide(key, "pod.evicted", rule, cause, {"node": str(spec_of(pod).get("nodeName", ""))}),
        Emit(pod, WARNING, "TaintManagerEviction", f"Deleting pod {key.namespace}/{key.name}: {rule}", _COMPONENT),
        Remove(key, uid_of(pod), rule, grace),
    ]
