"""What the scheduler knows of nodes: capacities and what is taken, as columns over the nodes in the order of names.

All amounts are integers: CPU in thousandths of a core, memory in bytes. Columns are int64; capacities are capped at
2**56 when they enter and demands at twice that, which fits nowhere, so no sum or product below overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lamina_orchestrator.domain.kinds.plain_object import Object, labels_of, name_of, spec_of, status_of, uid_of
from lamina_orchestrator.domain.kinds.quantity import millis, units
from lamina_orchestrator.domain.objects.ownership import controller_of
from lamina_orchestrator.domain.pods.spec import requested

Column = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
CAP = 1 << 56
MAX_COLUMNS = 1024
DEFAULT_MILLIS = 100
DEFAULT_BYTES = 200 << 20
"""What a pod without requests counts as when nodes are scored, so that such pods spread too (as in Kubernetes)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pod asks of a node. `owner` is its controller's uid, by which its siblings are known."""

    millis: int
    bytes: int
    owner: str

    @property
    def scored(self) -> tuple[int, int]:
        """CPU and memory as scores count them."""
        return self.millis or DEFAULT_MILLIS, self.bytes or DEFAULT_BYTES


def demand_of(pod: Object) -> Demand:
    """The demand of a pod."""
    cpu, memory = requested(spec_of(pod))
    owner = controller_of(pod)
    return Demand(min(cpu, 2 * CAP), min(memory, 2 * CAP), owner["uid"] if owner else "")


class NodeTable:
    """The nodes and the pods bound to them."""

    def __init__(self) -> None:
        self._nodes: dict[str, Object] = {}
        self._pods: dict[str, tuple[str, Demand]] = {}
        self._stale = False
        self._masks: dict[str, npt.NDArray[np.int64]] = {}
        self._siblings: dict[str, dict[str, int]] = {}
        self._load()

    def put_node(self, node: Object) -> None:
        """Adds a node or takes in its new version."""
        before = self._nodes.get(name_of(node))
        self._nodes[name_of(node)] = node
        if before is None or _capacity(before) != _capacity(node):
            self._stale = True
        if before is None or spec_of(before) != spec_of(node) or labels_of(before) != labels_of(node):
            self._masks.clear()

    def drop_node(self, name: str) -> None:
        """Forgets a node; its pods stay known until they are released."""
        if self._nodes.pop(name, None) is not None:
            self._stale = True
            self._masks.clear()

    def assign(self, pod: Object) -> None:
        """Counts a pod on the node that it is bound to. Idempotent."""
        if uid_of(pod) in self._pods:
            return
        node, demand = str(spec_of(pod)["nodeName"]), demand_of(pod)
        self._pods[uid_of(pod)] = (node, demand)
        self._add(node, demand, 1)

    def release(self, pod_uid: str) -> bool:
        """Counts a pod no longer; returns whether it was counted."""
        found = self._pods.pop(pod_uid, None)
        if found is None:
            return False
        self._add(found[0], found[1], -1)
        return True

    def nodes(self) -> list[Object]:
        """The nodes in the order of the columns."""
        self._refresh()
        return [self._nodes[name] for name in self.names]

    def free(self, name: str) -> tuple[int, int, int] | None:
        """CPU, memory and pods that are left on a node; None for an unknown one."""
        self._refresh()
        at = self._index.get(name)
        if at is None:
            return None
        left = (self.cpu - self.used_cpu, self.memory - self.used_memory, self.pods - self.used_pods)
        return int(left[0][at]), int(left[1][at]), int(left[2][at])

    def siblings(self, owner: str) -> Column:
        """How many pods of an owner each node has."""
        self._refresh()
        column = np.zeros(len(self.names), np.int64)
        for name, count in self._siblings.get(owner, {}).items():
            at = self._index.get(name)
            if at is not None:
                column[at] = count
        return column

    def column(self, signature: str, value: Callable[[Object], int]) -> Column:
        """A column computed from node objects; kept under its signature until a node's spec or labels change."""
        self._refresh()
        known = self._masks.get(signature)
        if known is None:
            if len(self._masks) >= MAX_COLUMNS:
                self._masks.clear()
            known = np.array([value(self._nodes[name]) for name in self.names], np.int64)
            self._masks[signature] = known
        return known

    def refresh(self) -> None:
        """Brings the columns up to date; the attributes may be read after it."""
        self._refresh()

    def _refresh(self) -> None:
        if self._stale:
            self._load()

    def _load(self) -> None:
        self._stale = False
        self.names = sorted(self._nodes)
        self._index = {name: at for at, name in enumerate(self.names)}
        capacities = [_capacity(self._nodes[name]) for name in self.names]
        self.cpu = np.array([part[0] for part in capacities], np.int64)
        self.memory = np.array([part[1] for part in capacities], np.int64)
        self.pods = np.array([part[2] for part in capacities], np.int64)
        empty = [np.zeros(len(self.names), np.int64) for _ in range(5)]
        self.used_cpu, self.used_memory, self.used_pods, self.scored_cpu, self.scored_memory = empty
        self._siblings = {}
        for node, demand in self._pods.values():
            self._add(node, demand, 1)

    def _add(self, node: str, demand: Demand, sign: int) -> None:
        at = self._index.get(node)
        if at is not None:
            self.used_cpu[at] += sign * demand.millis
            self.used_memory[at] += sign * demand.bytes
            self.used_pods[at] += sign
            cpu, memory = demand.scored
            self.scored_cpu[at] += sign * cpu
            self.scored_memory[at] += sign * memory
        if demand.owner:
            counts = self._siblings.setdefault(demand.owner, {})
            counts[node] = counts.get(node, 0) + sign
            if not counts[node]:
                del counts[node]
            if not counts:
                del self._siblings[demand.owner]


def _capacity(node: Object) -> tuple[int, int, int]:
    amounts = status_of(node).get("allocatable") or status_of(node).get("capacity") or {}
    cpu, memory = millis(amounts.get("cpu", "0")), units(amounts.get("memory", "0"))
    return min(cpu, CAP), min(memory, CAP), min(units(amounts.get("pods", "0")), CAP)
