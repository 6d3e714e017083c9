"""Who has to look when an object changes: from changes to work."""

from __future__ import annotations

from collections.abc import Callable

from lamina_orchestrator.domain.controllers.garbage_collector import FOREGROUND, ORPHAN
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, NODE, POD, REPLICA_SET, Kind
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    finalizers_of,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    spec_of,
    status_of,
    uid_of,
)
from lamina_orchestrator.domain.objects.ownership import controller_of, owners_of
from lamina_orchestrator.domain.objects.selectors import label_selector
from lamina_orchestrator.domain.scheduling.scheduler import refusal
from lamina_orchestrator.engines.model.control.causes import Causes
from lamina_orchestrator.engines.model.control.queue import WorkQueue
from lamina_orchestrator.engines.model.control.recorder import sweep_after
from lamina_orchestrator.engines.model.nodes.binding import Scheduling
from lamina_orchestrator.engines.model.nodes.links import NodeLinks
from lamina_orchestrator.engines.model.state.feed import Noticed
from lamina_orchestrator.engines.model.state.ledger import Ledger

_CONTROLLER_OF: dict[str, Kind] = {POD.resource: REPLICA_SET, REPLICA_SET.resource: DEPLOYMENT}
_EVENTS_SWEEP = Key("events", "", "sweep")


UID = "uid"


def pod_item(uid: str) -> Key:
    """The key under which a pod's worker is queued: by uid, since a name may be taken anew while its worker ends."""
    return Key(UID, "", uid)


class Dispatch:
    """Queues what a change concerns. `now` tells the time of the writer's current turn."""

    def __init__(
        self,
        ledger: Ledger,
        queue: WorkQueue,
        scheduling: Scheduling,
        links: NodeLinks,
        causes: Causes,
        now: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._scheduling = scheduling
        self._links = links
        self._causes = causes
        self._now = now

    def changed(self, change: Noticed) -> None:
        """Takes in one change, after it was written."""
        key, resource = change.key, change.key.resource
        why = self._causes.of(key)
        self._queue.because(key, why)
        self._scheduling.why = why if resource == POD.resource and change.before is None else key.resource_name
        if resource == POD.resource:
            self._pod(change)
        elif resource == NODE.resource:
            self._node(change)
        elif resource in (REPLICA_SET.resource, DEPLOYMENT.resource, kinds.NAMESPACE.resource) and not change.deleted:
            self._queue.add(resource, key)
        elif resource == kinds.EVENT.resource and not change.deleted:
            self._queue.add_at("events", _EVENTS_SWEEP, sweep_after(self._now()))
        self._owners(change)
        self._lifecycle(change)

    def known(self, key: Key, obj: Object) -> None:
        """Takes in an object that was stored before this start."""
        self.changed(Noticed(0, key, obj, obj, False, ""))

    # ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pod(self, change: Noticed) -> None:
        pod, node = change.obj, spec_of(change.obj).get("nodeName", "")
        if change.deleted:
            self._scheduling.drop(change.key, uid_of(pod))
        elif change.before is None and node and refusal(pod, self._scheduling.table):
            self._queue.add("refuse", change.key)
            return
        else:
            self._scheduling.take(change.key, pod)
        if not node:
            return
        self._queue.add("pod", pod_item(uid_of(pod)))
        was_bound = change.before is not None and spec_of(change.before).get("nodeName")
        host = self._ledger.cache.get(NODE.key("", node))
        if not change.deleted and (host is None or (not was_bound and spec_of(host).get("taints"))):
            self._queue.add("evict", NODE.key("", node))

    def _node(self, change: Noticed) -> None:
        node = change.obj
        self._queue.add("evict", change.key)
        if change.deleted:
            self._links.drop(name_of(node))
            self._scheduling.table.drop_node(name_of(node))
            return
        self._links.follow(node, self._now())
        self._scheduling.table.put_node(node)
        self._queue.add("node", change.key)
        before = change.before
        if before is None or _matters(before) != _matters(node):
            self._scheduling.retry()

    # ── relations ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _owners(self, change: Noticed) -> None:
        """Queues the controllers of the object, before and after the change, or those that could adopt it."""
        kind = _CONTROLLER_OF.get(change.key.resource)
        if kind is None:
            return
        for version in (change.before, change.obj):
            reference = controller_of(version) if version is not None else None
            owner = self._ledger.cache.by_uid(reference["uid"]) if reference else None
            if owner is not None and reference is not None and reference["kind"] == kind.name:
                self._queue.add(kind.resource, kind.key(namespace_of(owner), name_of(owner)))
                self._above(owner, change)
        if controller_of(change.obj) is None and not change.deleted:
            self._adopters(kind, change.obj)

    def _above(self, replica_set: Object, change: Noticed) -> None:
        """A pod that is gone may be what a Deployment that recreates waits for."""
        if change.key.resource != POD.resource or not change.deleted:
            return
        reference = controller_of(replica_set)
        if reference is not None:
            self._queue.add(DEPLOYMENT.resource, DEPLOYMENT.key(namespace_of(replica_set), reference["name"]))

    def _adopters(self, kind: Kind, obj: Object) -> None:
        for owner in self._ledger.cache.in_namespace(namespace_of(obj)):
            if owner["kind"] != kind.name:
                continue
            if label_selector(spec_of(owner)["selector"]).matches(labels_of(obj)):
                self._queue.add(kind.resource, kind.key(namespace_of(owner), name_of(owner)))

    def _lifecycle(self, change: Noticed) -> None:
        """Queues what deletion and ownership concern: dependents, owners that wait, a namespace that ends."""
        obj, before = change.obj, change.before
        if change.deleted:
            for dependent in self._ledger.cache.owned(uid_of(obj)):
                kind = kinds.kind_of(dependent)
                self._queue.add("collect", kind.key(namespace_of(dependent), name_of(dependent)))
            if change.key.namespace:
                self._queue.add(kinds.NAMESPACE.resource, kinds.NAMESPACE.key("", change.key.namespace))
        elif owners_of(obj) and (before is None or before is obj or owners_of(before) != owners_of(obj)):
            self._queue.add("collect", change.key)
        if is_deleting(obj) and {FOREGROUND, ORPHAN} & set(finalizers_of(obj)) and not change.deleted:
            self._queue.add("finalize", change.key)
        for owner in owners_of(obj):
            waiting = self._ledger.cache.by_uid(owner["uid"])
            if waiting is not None and is_deleting(waiting) and change.deleted:
                kind = kinds.kind_of(waiting)
                self._queue.add("finalize", kind.key(namespace_of(waiting), name_of(waiting)))


def _matters(node: Object) -> tuple[object, ...]:
    """What the scheduler looks at in a node."""
    return spec_of(node), labels_of(node), status_of(node).get("allocatable")
