"""Runs one controller on one object: gathers what it looks at, and returns what it wants."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from lamina_orchestrator.domain.controllers import deployment, garbage_collector, namespaces, nodes, replica_set
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, NODE, POD, REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import Key, Object, annotations_of, name_of, namespace_of, uid_of
from lamina_orchestrator.domain.objects.actions import Action, Again, Create, Replace
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT
from lamina_orchestrator.domain.pods.status import TERMINAL, phase_of
from lamina_orchestrator.engines.interface import Journal
from lamina_orchestrator.engines.model.control.queue import Item
from lamina_orchestrator.engines.model.control.recorder import EventRecorder
from lamina_orchestrator.engines.model.nodes.binding import Scheduling
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
from lamina_orchestrator.engines.model.nodes.pod_workers import PodWorkers
from lamina_orchestrator.engines.model.state.ledger import Ledger

Run = Callable[[Key, int], list[Action]]


class Controllers:
    """The controllers by the name under which work is queued for them."""

    def __init__(
        self,
        ledger: Ledger,
        scheduling: Scheduling,
        links: NodeLinks,
        workers: PodWorkers,
        recorder: EventRecorder,
        journal: Journal,
    ) -> None:
        self._cache = ledger.cache
        self._scheduling = scheduling
        self._links = links
        self._workers = workers
        self._recorder = recorder
        self._journal = journal
        self._runs: dict[str, Run] = {
            DEPLOYMENT.resource: self._deployment,
            REPLICA_SET.resource: self._replica_set,
            kinds.NAMESPACE.resource: self._namespace,
            "collect": self._collect,
            "finalize": self._finalize,
            "node": self._node,
            "evict": self._evict,
            "refuse": self._refuse,
            "pod": self._pod,
            "events": self._events,
            "place": self._place,
        }

    def run(self, item: Item, now_ns: int) -> list[Action]:
        """The actions of one controller for one object; none if the object is gone."""
        return self._runs[item.controller](item.key, now_ns)

    def _place(self, key: Key, now_ns: int) -> list[Action]:
        pod = self._cache.get(key)
        if pod is None:
            return []
        with self._span(pod, "pod.schedule"):
            return self._scheduling.place(key, pod, now_ns)

    def _span(self, obj: Object, name: str) -> AbstractContextManager[object]:
        where = kinds.kind_of(obj).key(namespace_of(obj), name_of(obj)).resource_name
        return self._journal.span(annotations_of(obj).get(TRACEPARENT, ""), name, object=where)

    def _deployment(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        if obj is None:
            return []

        def is_taken(name: str) -> bool:
            return self._cache.get(REPLICA_SET.key(key.namespace, name)) is not None

        with self._span(obj, "deployment.reconcile"):
            candidates = self._cache.candidates(REPLICA_SET, obj)
            return deployment.reconcile(obj, candidates, now_ns, is_taken, self._has_pods)

    def _has_pods(self, owner: Object) -> bool:
        owned = self._cache.owned(uid_of(owner))
        return any(found["kind"] == POD.name and phase_of(found) not in TERMINAL for found in owned)

    def _replica_set(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        if obj is None:
            return []
        with self._span(obj, "replicaset.reconcile"):
            return replica_set.reconcile(obj, self._cache.candidates(POD, obj), now_ns)

    def _namespace(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        return [] if obj is None else namespaces.reconcile(obj, self._cache.in_namespace(key.name))

    def _collect(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        return [] if obj is None else garbage_collector.collect_dependent(obj, self._cache.exists)

    def _finalize(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        return [] if obj is None else garbage_collector.finalize_owner(obj, self._cache.owned(uid_of(obj)))

    def _node(self, key: Key, now_ns: int) -> list[Action]:
        obj = self._cache.get(key)
        return [] if obj is None else nodes.reconcile(obj, self._links.heartbeat(key.name), now_ns)

    def _evict(self, key: Key, now_ns: int) -> list[Action]:
        node = self._cache.get(key)
        if node is None:
            self._workers.forget_node(key.name)
        return nodes.evict(node, self._cache.pods_on(key.name), now_ns)

    def _refuse(self, key: Key, now_ns: int) -> list[Action]:
        pod = self._cache.get(key)
        return [] if pod is None else self._scheduling.refuse(key, pod)

    def _pod(self, key: Key, now_ns: int) -> list[Action]:
        pod = self._cache.by_uid(key.name)
        worker = self._workers.worker(key.name)
        node = worker.node if worker is not None else str((pod or {}).get("spec", {}).get("nodeName", ""))
        return self._workers.sync(key.name, now_ns) if self._links.is_up(node) else []

    def _events(self, key: Key, now_ns: int) -> list[Action]:
        due = self._recorder.sweep(now_ns)
        return [Again(due)] if due else []

    def lease(self, name: str) -> list[Action]:
        """What writes a node's lease when its link begins or ends."""
        node = self._cache.get(NODE.key("", name))
        if node is None:
            return []
        key = kinds.LEASE.key(namespaces.NODE_LEASES, name)
        stored = self._cache.get(key)
        lease = self._links.lease(node, stored)
        return [Create(kinds.LEASE, lease) if stored is None else Replace(kinds.LEASE, lease)]
