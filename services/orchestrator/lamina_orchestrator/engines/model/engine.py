"""The model engine: a control plane that is a function of its store, its inputs and the time.

It does no I/O of its own: the store is given, runtimes are reached through effects, and time comes with every call.
Order of work: what changed queues keys (`dispatch`), controllers turn keys into actions (`controllers`), the executor
writes them (`executor`), which changes objects … until nothing is left. Then the scheduler places pods, and last come
the controllers that count pods and sets, each once for all that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from lamina_kit.errors import ResourceExhausted
from lamina_kit.rng import Rng
from lamina_orchestrator.domain.admission.chain import Admission, shaped
from lamina_orchestrator.domain.controllers import namespaces
from lamina_orchestrator.domain.controllers.nodes import ADDRESS, capacity, new_node
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, EVENT, NAMESPACE, NODE, REPLICA_SET, Kind
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    evolve,
    labels_of,
    spec_of,
    status_of,
    with_annotations,
    with_metadata,
)
from lamina_orchestrator.engines.interface import (
    Applied,
    ContainerSeen,
    Input,
    Journal,
    Listing,
    LogSource,
    NodeAnswers,
    NodeSilent,
    Query,
    Settled,
    StepDone,
    Store,
    Stored,
)
from lamina_orchestrator.engines.model.api.applier import Applier
from lamina_orchestrator.engines.model.api.queries import Queries
from lamina_orchestrator.engines.model.api.registry import Registry, stored
from lamina_orchestrator.engines.model.control.causes import Causes
from lamina_orchestrator.engines.model.control.controllers import Controllers
from lamina_orchestrator.engines.model.control.dispatch import UID, Dispatch, pod_item
from lamina_orchestrator.engines.model.control.executor import Executor
from lamina_orchestrator.engines.model.control.queue import Item, WorkQueue
from lamina_orchestrator.engines.model.control.recorder import EventRecorder
from lamina_orchestrator.engines.model.nodes.binding import Scheduling
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
from lamina_orchestrator.engines.model.nodes.pod_workers import PodWorkers
from lamina_orchestrator.engines.model.state.feed import FeedCursor, Noticed
from lamina_orchestrator.engines.model.state.ledger import Ledger

PLACE = "place"
"""The controller that chooses a node for a pod."""

RETRY_NS = 5_000_000_000
"""When a controller tries again whose writes found no room in the store."""


class ModelEngine:
    """An orchestrator; see `interface.Engine`.

    `history` is how many revisions watchers may lag behind; `toleration_seconds` is how long pods that say nothing stay
    on a lost node.
    """

    capabilities: ClassVar[tuple[str, ...]] = (
        "node-lifecycle",
        "objects",
        "pod-lifecycle",
        "scheduling",
        "workloads",
    )

    @classmethod
    def missing(cls) -> list[str]:
        """Nothing: it needs Python alone."""
        return []

    def __init__(
        self, store: Store, rng: Rng, journal: Journal, *, history: int = 20_000, toleration_seconds: int = 300
    ) -> None:
        self._now = 0
        self._journal = journal
        self._ledger = Ledger(store, history)
        self._queue = WorkQueue(last=[kind.resource for kind in (REPLICA_SET, DEPLOYMENT, NAMESPACE)])
        self._scheduling = Scheduling()
        self._links = NodeLinks()
        self._causes = Causes(journal.request)
        self._workers = PodWorkers(self._ledger.cache.by_uid, self._causes.of)
        self._admission = Admission(rng.bytes, toleration_seconds)
        self._recorder = EventRecorder(self._ledger, rng.bytes)
        self._registry = Registry(self._ledger, self._admission)
        self._applier = Applier(self._ledger, self._registry)
        self._queries = Queries(self._ledger, self._registry, self._links, self._workers)
        self._executor = Executor(self._ledger, self._registry, self._admission, self._recorder, self._decide)
        self._controllers = Controllers(
            self._ledger, self._scheduling, self._links, self._workers, self._recorder, journal
        )
        self._dispatch = Dispatch(
            self._ledger, self._queue, self._scheduling, self._links, self._causes, lambda: self._now
        )

    # ── the writer's turns ───────────────────────────────────────────────────────────────────────────────────────────

    def load(self, now_ns: int) -> None:
        """Takes in what the store holds, and makes the namespaces that every cluster has."""
        self._now = now_ns
        self._ledger.load()
        self._recorder.load()
        for obj in self._ledger.cache.everything():
            self._dispatch.known(kinds.key_of(obj), obj)
        self._ledger.listen(self._note)
        self._ledger.listen(self._dispatch.changed)
        for name in namespaces.PROTECTED:
            key = NAMESPACE.key("", name)
            if self._ledger.cache.get(key) is None:
                made = self._admission.create(NAMESPACE, {"metadata": {"name": name}}, now_ns)
                self._ledger.put(key, made)

    def feed(self, event: Input, now_ns: int) -> None:
        """Takes in what happened outside."""
        self._now = now_ns
        reason = self._reason(event)
        self._causes.begin(None, reason)
        self._queue.because(None, reason)
        self._feed(event, now_ns)
        self._causes.begin(None, "")

    def _reason(self, event: Input) -> str:
        if isinstance(event, ContainerSeen):
            return event.state.name
        if isinstance(event, StepDone):
            pod = self._ledger.cache.by_uid(event.uid)
            return kinds.key_of(pod).resource_name if pod is not None else ""
        return NODE.key("", event.node).resource_name

    def _feed(self, event: Input, now_ns: int) -> None:
        if isinstance(event, StepDone):
            self._queue.add("pod", pod_item(event.uid))
            self._executor.execute(self._workers.done(event.uid, event.outcome, now_ns), now_ns)
        elif isinstance(event, ContainerSeen):
            if self._workers.seen(event.node, event.state):
                self._queue.add("pod", pod_item(event.state.pod_uid))
        elif isinstance(event, NodeAnswers):
            self._node_answers(event, now_ns)
        elif self._links.silent(event.node, now_ns):
            self._node_silent(event, now_ns)

    def _node_answers(self, event: NodeAnswers, now_ns: int) -> None:
        if not self._links.answers(event.node, now_ns):
            return
        self._executor.execute(self._controllers.lease(event.node), now_ns)
        self._queue.add("node", NODE.key("", event.node))
        held = self._workers.inventory(event.node, event.sandboxes, event.containers, now_ns)
        bound = [str(pod["metadata"]["uid"]) for pod in self._ledger.cache.pods_on(event.node)]
        for uid in dict.fromkeys([*held, *bound]):
            self._queue.add("pod", pod_item(uid))

    def _node_silent(self, event: NodeSilent, now_ns: int) -> None:
        self._executor.execute(self._controllers.lease(event.node), now_ns)
        self._queue.add("node", NODE.key("", event.node))

    def settle(self, now_ns: int, budget: int = 1000) -> Settled:
        """Runs controllers until nothing is left to do, or `budget` objects were looked at."""
        self._now = now_ns
        self._queue.advance(now_ns)
        for _ in range(budget):
            if not self._turn(now_ns):
                break
        effects = (*self._links.take_effects(), *self._workers.take_effects())
        unfinished = bool(len(self._queue) or len(self._scheduling))
        return Settled(effects, self._queue.next_due(), unfinished)

    def _turn(self, now_ns: int) -> bool:
        item = self._queue.pop() or self._unplaced() or self._queue.pop_last()
        if item is None:
            return False
        cause = self._scheduling.cause if item.controller == PLACE else self._queue.cause
        self._causes.begin(None if item.key.resource == UID else item.key, cause)
        try:
            again = self._executor.execute(self._controllers.run(item, now_ns), now_ns)
        except ResourceExhausted as error:
            self._decide(item.key, "controller.failed", error.reason, "", {"message": error.message})
            again = now_ns + RETRY_NS
        finally:
            self._causes.begin(None, "")
        if again:
            self._queue.add_at(item.controller, item.key, again)
        return True

    def _unplaced(self) -> Item | None:
        key = self._scheduling.next()
        return Item(PLACE, key) if key is not None else None

    def _decide(self, key: Key, event: str, rule: str, cause: str, inputs: dict[str, Any]) -> None:
        self._journal.decide(key, event, rule, cause or self._causes.of(key), inputs)

    def _note(self, change: Noticed) -> None:
        """Records that an object was written."""
        if change.key.resource == EVENT.resource:
            return  # an Event tells what is recorded here anyway
        verb = "deleted" if change.deleted else "created" if change.before is None else "updated"
        cause = self._causes.of(change.key)
        self._journal.note(change.key, f"object.{verb}", cause, {"revision": change.revision})

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Calls back after every change: watchers have something to read."""
        self._ledger.listen(lambda _: callback())

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool) -> list[Applied]:
        """Applies a manifest."""
        self._now = now_ns
        return self._applier.apply(text, namespace, now_ns, traceparent, dry_run)

    def create(
        self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool, request_id: str
    ) -> Stored:
        """Creates one object."""
        self._now = now_ns
        return self._registry.create(text, namespace, now_ns, traceparent, dry_run, request_id)

    def get(self, kind: Kind, namespace: str, name: str, now_ns: int) -> Stored:
        """Returns one object."""
        return self._queries.get(kind, namespace, name, now_ns)

    def list(self, query: Query, limit: int, token: str, now_ns: int) -> Listing:
        """Returns a page of objects."""
        return self._queries.page(query, limit, token, now_ns)

    def watch(self, query: Query, revision: int, initial: bool, bookmarks: bool) -> FeedCursor:
        """Begins a watch."""
        return self._queries.watch(query, revision, initial, bookmarks)

    def update(
        self, text: str, namespace: str, now_ns: int, traceparent: str, status_only: bool, dry_run: bool
    ) -> Stored:
        """Replaces one object."""
        self._now = now_ns
        return self._registry.update(text, namespace, traceparent, status_only, dry_run)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        text: str,
        now_ns: int,
        traceparent: str,
        status_only: bool,
        dry_run: bool,
    ) -> Stored:
        """Applies a merge patch to one object."""
        self._now = now_ns
        return self._registry.patch(kind, namespace, name, text, traceparent, status_only, dry_run)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        now_ns: int,
        propagation: str,
        grace_seconds: int | None,
        uid: str,
        revision: int,
        dry_run: bool,
    ) -> tuple[Stored, bool]:
        """Deletes one object; returns it and whether it is gone."""
        self._now = now_ns
        return self._registry.delete(kind, namespace, name, now_ns, propagation, grace_seconds, uid, revision, dry_run)

    def scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        replicas: int,
        now_ns: int,
        traceparent: str,
        current: int | None,
        revision: int,
    ) -> Stored:
        """Sets the replicas of a workload."""
        self._now = now_ns
        return self._registry.scale(kind, namespace, name, replicas, traceparent, current, revision)

    def log_source(self, namespace: str, name: str, container: str, previous: bool) -> LogSource:
        """Finds the output of a container."""
        return self._queries.log_source(namespace, name, container, previous)

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def register_node(
        self,
        host: str,
        address: str,
        cpu_millicores: int,
        memory_bytes: int,
        max_pods: int,
        labels: dict[str, str],
        now_ns: int,
    ) -> Stored:
        """Adds a host, or changes address, capacity and labels of one that is known."""
        self._now = now_ns
        wanted = new_node(host, address, cpu_millicores, memory_bytes, max_pods, labels)
        key = NODE.key("", host)
        known = self._ledger.cache.get(key)
        if known is None:
            checked = shaped(NODE, wanted, "")
            made = self._admission.create(NODE, checked, now_ns)
            return self._ledger.put(key, evolve(made, status=wanted["status"]))
        changed = with_annotations(known, **{ADDRESS: address})
        changed = with_metadata(changed, labels={**labels_of(known), **labels_of(wanted)})
        room = capacity(cpu_millicores, memory_bytes, max_pods)
        status = {**status_of(known), "capacity": room}
        if "allocatable" in status:
            status["allocatable"] = room
        changed = evolve(changed, status=status)
        return stored(known) if changed == known else self._ledger.put(key, changed)

    def cordon(self, name: str, unschedulable: bool, now_ns: int) -> Stored:
        """Marks a node unschedulable, or schedulable again."""
        self._now = now_ns
        key, node = self._registry.find(NODE, "", name)
        if bool(spec_of(node).get("unschedulable")) == unschedulable:
            return stored(node)
        spec = {part: value for part, value in spec_of(node).items() if part != "unschedulable"}
        return self._ledger.put(key, evolve(node, spec={**spec, "unschedulable": True} if unschedulable else spec))

    def objects(self, kind: Kind) -> Sequence[Object]:
        """The stored objects of a kind, ordered by key."""
        return self._ledger.cache.of_kind(kind)

    def object(self, key: Key) -> Object | None:
        """The stored object of that key, or None."""
        return self._ledger.cache.get(key)
