"""Garbage collection, deletion, namespaces and nodes."""

from __future__ import annotations

from typing import Any

from tests.unit.orchestrator.objects_made import START, deployment, made, node, pod, ready_node, replica_set, running

from lamina_orchestrator.domain.controllers import deletion, garbage_collector, namespaces, nodes
from lamina_orchestrator.domain.controllers.nodes import Heartbeat
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, NAMESPACE, POD
from lamina_orchestrator.domain.kinds.plain_object import name_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND, rfc3339
from lamina_orchestrator.domain.objects.actions import Again, Remove, Replace


def of(actions: list[Any], kind: type[Any]) -> list[Any]:
    """The actions of a kind."""
    return [action for action in actions if isinstance(action, kind)]


def test_dependents_go_with_their_last_owner() -> None:
    """An object goes when every owner is gone; while some are left, only the references to the others go."""
    one, two = replica_set("one"), replica_set("two")
    child = pod(owner=one)
    child["metadata"]["ownerReferences"].append({**child["metadata"]["ownerReferences"][0], "controller": False})
    child["metadata"]["ownerReferences"][1]["uid"] = two["metadata"]["uid"]
    assert garbage_collector.collect_dependent(child, lambda uid: True) == []
    assert len(of(garbage_collector.collect_dependent(child, lambda uid: False), Remove)) == 1
    (kept,) = of(garbage_collector.collect_dependent(child, lambda uid: uid == two["metadata"]["uid"]), Replace)
    assert [owner["uid"] for owner in kept.obj["metadata"]["ownerReferences"]] == [two["metadata"]["uid"]]


def test_foreground_and_orphan_finalizers() -> None:
    """Foreground deletion deletes dependents and then lets go; orphaning releases them and lets go at once."""
    owner = replica_set()
    child = pod(owner=owner)
    leaving = deletion.mark(DEPLOYMENT, owner, START, "foreground", None)
    assert leaving is not None
    assert len(of(garbage_collector.finalize_owner(leaving, [child]), Remove)) == 1
    (freed,) = garbage_collector.finalize_owner(leaving, [])
    assert isinstance(freed, Replace) and "finalizers" not in freed.obj["metadata"]
    orphaning = deletion.mark(DEPLOYMENT, owner, START, "orphan", None)
    assert orphaning is not None
    released, done = garbage_collector.finalize_owner(orphaning, [child])
    assert isinstance(released, Replace) and "ownerReferences" not in released.obj["metadata"]
    assert isinstance(done, Replace) and "finalizers" not in done.obj["metadata"]


def test_pods_are_deleted_gracefully() -> None:
    """A bound pod is marked for its grace period, which may shrink and never grows; an unbound one goes at once."""
    assert deletion.mark(POD, pod(), START, "background", None) is None
    bound = running(pod())
    marked = deletion.mark(POD, bound, START, "background", None)
    assert marked is not None
    assert marked["metadata"]["deletionTimestamp"] == rfc3339(START + 30 * SECOND)
    assert deletion.mark(POD, marked, START, "background", 60) is marked
    shorter = deletion.mark(POD, marked, START, "background", 5)
    assert shorter is not None and shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert deletion.mark(POD, marked, START, "background", 0) is None
    ended = {**bound, "status": {"phase": "Succeeded"}}
    assert deletion.mark(POD, ended, START, "background", None) is None


def test_finalizers_hold() -> None:
    """An object with a finalizer is marked and complete only when the last one is removed."""
    held = deployment()
    held["metadata"]["finalizers"] = ["example.com/x"]
    marked = deletion.mark(DEPLOYMENT, held, START, "background", None)
    assert marked is not None and not deletion.is_complete(marked)
    assert deletion.mark(DEPLOYMENT, marked, START, "background", None) is marked
    freed = {**marked, "metadata": {**marked["metadata"], "finalizers": []}}
    assert deletion.is_complete(freed)


def test_namespaces_empty_themselves() -> None:
    """A namespace that is being deleted removes its content, and lets go of itself when nothing is left."""
    space = made(NAMESPACE, metadata={"name": "team"})
    assert namespaces.reconcile(space, [pod()]) == []
    marked = deletion.mark(NAMESPACE, space, START, "background", None)
    assert marked is not None
    assert len(of(namespaces.reconcile(marked, [pod(), deployment()]), Remove)) == 2
    (freed,) = namespaces.reconcile(marked, [])
    assert isinstance(freed, Replace) and deletion.is_complete(freed.obj)


def test_readiness_follows_the_heartbeat() -> None:
    """A node is Ready while it answers, stays so for 40 s of silence, then is Unknown and tainted."""
    (first, *_) = of(nodes.reconcile(node(), Heartbeat(True, True, START), START), Replace)
    assert first.obj["status"]["conditions"][0]["status"] == "True"
    assert first.obj["status"]["allocatable"] == first.obj["status"]["capacity"]
    silent = Heartbeat(False, True, START)
    assert nodes.reconcile(first.obj, silent, START + 39 * SECOND) == [Again(START + 40 * SECOND)]
    (lost, *_) = of(nodes.reconcile(first.obj, silent, START + 40 * SECOND), Replace)
    assert lost.obj["status"]["conditions"][0]["status"] == "Unknown"
    effects = [(taint["key"], taint["effect"]) for taint in lost.obj["spec"]["taints"]]
    key = "node.kubernetes.io/unreachable"
    assert effects == [(key, "NoSchedule"), (key, "NoExecute")]
    back = of(nodes.reconcile(lost.obj, Heartbeat(True, True, START), START + 60 * SECOND), Replace)
    assert "taints" not in back[0].obj["spec"]


def test_users_taints_stay() -> None:
    """Taints of users are kept, and a NoExecute one is dated so that tolerations can count from it."""
    obj = ready_node(taints=[{"key": "gpu", "effect": "NoExecute"}])
    (changed, *_) = of(nodes.reconcile(obj, Heartbeat(True, True, START), START), Replace)
    assert changed.obj["spec"]["taints"] == [{"key": "gpu", "effect": "NoExecute", "timeAdded": rfc3339(START)}]


def test_eviction_waits_for_tolerations() -> None:
    """Pods leave a tainted node when their tolerations run out: at once, later, or never."""
    taint = {"key": "gpu", "effect": "NoExecute", "timeAdded": rfc3339(START)}
    obj = ready_node(taints=[taint])
    now, later = running(pod("now")), running(pod("later"))
    never = running(pod("never", tolerations=[{"key": "gpu", "operator": "Exists"}]))
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    later = {**later, "spec": {**later["spec"], "tolerations": [toleration]}}
    actions = nodes.evict(obj, [later, never, now], START)
    assert [action.key.name for action in of(actions, Remove)] == ["now"]
    assert of(actions, Again) == [Again(START + 60 * SECOND)]
    late = nodes.evict(obj, [later, never], START + 60 * SECOND)
    assert [action.key.name for action in of(late, Remove)] == ["later"]
    gone = nodes.evict(None, [never], START)
    assert [(action.key.name, action.grace_seconds) for action in of(gone, Remove)] == [("never", 0)]
    assert name_of(never) == "never"
