"""The scheduler: filters say where a pod can run, scores say where it is best, and both can be explained.

Filters, in order: cordon, taints, node selector, CPU, memory, number of pods. Scores, 0 to 100 each: least allocated
(weight 1), spread over nodes of the pods of one owner (weight 2), no PreferNoSchedule taint against it (weight 3). The
highest sum wins; equal sums go to the first name. Source: Kubernetes documentation, "Scheduling Framework", and the
plugins NodeResourcesFit, PodTopologySpread and TaintToleration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lamina_orchestrator.domain.kinds.plain_object import Object, canonical, labels_of, spec_of
from lamina_orchestrator.domain.scheduling.node_table import Column, Demand, Mask, NodeTable, demand_of
from lamina_orchestrator.domain.scheduling.taints import (
    NO_EXECUTE,
    NO_SCHEDULE,
    PREFER,
    UNSCHEDULABLE,
    tolerates,
    untolerated,
)

WEIGHTS = (("least-allocated", 1), ("spread", 2), ("taints", 3))
_CORDON = {"key": UNSCHEDULABLE, "effect": NO_SCHEDULE}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pod goes, and from what that was decided, for people."""

    node: str
    rule: str
    inputs: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """Why a pod goes nowhere: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`"""

    message: str
    inputs: dict[str, str | int] = field(default_factory=dict)


def signature(pod: Object) -> str:
    """What the scheduler looks at in a pod: pods of one signature are placeable or not placeable together."""
    spec = spec_of(pod)
    demand = demand_of(pod)
    return canonical([spec.get("nodeSelector"), spec.get("tolerations"), demand.millis, demand.bytes])


def schedule(pod: Object, table: NodeTable) -> Placement | Unschedulable:
    """Chooses a node for a pod. The table is not changed: the caller assigns the pod when it is bound."""
    table.refresh()
    demand = demand_of(pod)
    allowed = _static_mask(pod, table)
    feasible = allowed & _fits(demand, table)
    count = int(np.count_nonzero(feasible))
    if not count:
        return _explain_failure(pod, demand, table)
    parts = _scores(pod, demand, table, feasible)
    total = sum((column * weight for column, (_, weight) in zip(parts, WEIGHTS, strict=True)), np.int64(0))
    total = np.where(feasible, total, np.int64(-1))
    best = int(np.argmax(total))
    return _placement(table, parts, total, best, count)


def refusal(pod: Object, table: NodeTable) -> str:
    """Why a pod that names its node itself does not fit there: `OutOfcpu` …, as the kubelet says; empty if it fits."""
    free = table.free(str(spec_of(pod)["nodeName"]))
    if free is None:
        return ""
    demand = demand_of(pod)
    wanted = (("OutOfcpu", demand.millis, free[0]), ("OutOfmemory", demand.bytes, free[1]), ("OutOfpods", 1, free[2]))
    return next((reason for reason, asked, left in wanted if asked and asked > left), "")


def _static_mask(pod: Object, table: NodeTable) -> Mask:
    spec = spec_of(pod)
    key = canonical(["filter", spec.get("nodeSelector"), spec.get("tolerations")])
    column = table.column(key, lambda node: 0 if _static_reason(spec, node) else 1)
    return column.astype(np.bool_)


def _static_reason(spec: dict[str, Any], node: Object) -> str:
    """Why a node is out of the question whatever it has left; empty if it is not."""
    tolerations = spec.get("tolerations") or []
    if spec_of(node).get("unschedulable") and not any(tolerates(found, _CORDON) for found in tolerations):
        return "node(s) were unschedulable"
    taint = untolerated(spec_of(node).get("taints") or [], tolerations, (NO_SCHEDULE, NO_EXECUTE))
    if taint:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    wanted = spec.get("nodeSelector") or {}
    if not wanted.items() <= labels_of(node).items():
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _fits(demand: Demand, table: NodeTable) -> Mask:
    fits = table.used_pods < table.pods
    if demand.millis:
        fits = fits & (table.used_cpu + demand.millis <= table.cpu)
    if demand.bytes:
        fits = fits & (table.used_memory + demand.bytes <= table.memory)
    return fits


def _scores(pod: Object, demand: Demand, table: NodeTable, feasible: Mask) -> tuple[Column, Column, Column]:
    cpu, memory = demand.scored
    least = _left(table.cpu, table.scored_cpu + cpu) + _left(table.memory, table.scored_memory + memory)
    siblings = table.siblings(demand.owner) if demand.owner else np.zeros(len(table.names), np.int64)
    tolerations = spec_of(pod).get("tolerations") or []
    key = canonical(["prefer", tolerations])
    against = table.column(key, lambda node: _preferences(node, tolerations))
    return least // 2, _reversed(siblings, feasible), _reversed(against, feasible)


def _left(capacity: Column, used: Column) -> Column:
    free = np.maximum(capacity - used, 0)
    return np.asarray(free * 100 // np.maximum(capacity, 1), np.int64)


def _reversed(counts: Column, feasible: Mask) -> Column:
    most = int(np.max(counts[feasible]))
    if not most:
        return np.full(len(counts), 100, np.int64)
    return np.asarray(100 * np.maximum(most - counts, 0) // most, np.int64)


def _preferences(node: Object, tolerations: list[dict[str, Any]]) -> int:
    soft = [taint for taint in spec_of(node).get("taints") or [] if taint["effect"] == PREFER]
    return sum(1 for taint in soft if untolerated([taint], tolerations, (PREFER,)))


def _placement(
    table: NodeTable, parts: tuple[Column, Column, Column], total: Column, best: int, count: int
) -> Placement:
    inputs: dict[str, str | int] = {
        "node": table.names[best],
        "nodes": len(table.names),
        "feasible": count,
        "score": _score_text(parts, total, best),
    }
    rule = "the only node that passes the filters"
    if count > 1:
        others = total.copy()
        others[best] = -1
        second = int(np.argmax(others))
        inputs["runner_up"] = f"{table.names[second]}: {_score_text(parts, total, second)}"
        tie = int(total[second]) == int(total[best])
        rule = "highest score, first of equals by name" if tie else "highest score"
    return Placement(table.names[best], rule, inputs)


def _score_text(parts: tuple[Column, Column, Column], total: Column, at: int) -> str:
    terms = [f"{weight} × {name} {int(part[at])}" for part, (name, weight) in zip(parts, WEIGHTS, strict=True)]
    return f"{' + '.join(terms)} = {int(total[at])}"


def _explain_failure(pod: Object, demand: Demand, table: NodeTable) -> Unschedulable:
    reasons: dict[str, int] = {}
    for at, node in enumerate(table.nodes()):
        for reason in _reasons(spec_of(pod), node, demand, table, at):
            reasons[reason] = reasons.get(reason, 0) + 1
    total = len(table.names)
    if not total:
        return Unschedulable("no nodes available to schedule pods", {"nodes": 0})
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    inputs: dict[str, str | int] = {"nodes": total, **dict(sorted(reasons.items()))}
    inputs.update(requested_millicores=demand.millis, requested_bytes=demand.bytes)
    return Unschedulable(f"0/{total} nodes are available: {listed}.", inputs)


def _reasons(spec: dict[str, Any], node: Object, demand: Demand, table: NodeTable, at: int) -> list[str]:
    static = _static_reason(spec, node)
    if static:
        return [static]
    found = []
    if demand.millis and table.used_cpu[at] + demand.millis > table.cpu[at]:
        found.append("Insufficient cpu")
    if demand.bytes and table.used_memory[at] + demand.bytes > table.memory[at]:
        found.append("Insufficient memory")
    if table.used_pods[at] >= table.pods[at]:
        found.append("Too many pods")
    return found
