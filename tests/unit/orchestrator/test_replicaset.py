"""The ReplicaSet controller: how many pods, whose, and which go first."""

from __future__ import annotations

from typing import Any

from tests.unit.orchestrator.objects_made import START, pod, replica_set, running

from lamina_orchestrator.domain.controllers.replica_set import reconcile, victims
from lamina_orchestrator.domain.kinds.plain_object import Object, name_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.objects.actions import Again, Create, Remove, Replace, SetStatus
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT, is_controlled_by


def of(actions: list[Any], kind: type[Any]) -> list[Any]:
    """The actions of a kind."""
    return [action for action in actions if isinstance(action, kind)]


def pods_of(owner: Object, count: int) -> list[Object]:
    """Running pods of a ReplicaSet."""
    return [running(pod(f"p{number}", owner=owner)) for number in range(count)]


def test_missing_pods_are_created() -> None:
    """As many pods are created as are missing, owned and labelled by the template, and traced as their owner is."""
    owner = replica_set(replicas=3)
    owner["metadata"]["annotations"] = {TRACEPARENT: "00-x"}
    made = of(reconcile(owner, pods_of(owner, 1), START), Create)
    assert len(made) == 2
    obj = made[0].obj
    assert obj["metadata"]["generateName"] == "rs-"
    assert obj["metadata"]["labels"] == {"app": "a"}
    assert obj["metadata"]["annotations"] == {TRACEPARENT: "00-x"}
    assert is_controlled_by(obj, owner["metadata"]["uid"])


def test_surplus_pods_are_deleted() -> None:
    """As many pods are deleted as are too many."""
    owner = replica_set(replicas=1)
    assert len(of(reconcile(owner, pods_of(owner, 3), START), Remove)) == 2


def test_ended_and_deleted_pods_do_not_count() -> None:
    """Pods that have ended or are being deleted are replaced."""
    owner = replica_set(replicas=2)
    ended, leaving = pods_of(owner, 2)
    ended = {**ended, "status": {"phase": "Failed"}}
    leaving = {**leaving, "metadata": {**leaving["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert len(of(reconcile(owner, [ended, leaving], START), Create)) == 2


def test_matching_orphans_are_adopted_and_others_released() -> None:
    """An orphan that matches is adopted, a pod that stopped matching released, another owner's left alone."""
    owner, other = replica_set(replicas=1), replica_set("other")
    orphan, strange = pod("orphan"), pod("strange", owner=owner, labels={"app": "z"})
    theirs = pod("theirs", owner=other)
    actions = reconcile(owner, [orphan, strange, theirs], START)
    replaced = {name_of(action.obj): action.obj for action in of(actions, Replace)}
    assert sorted(replaced) == ["orphan", "strange"]
    assert is_controlled_by(replaced["orphan"], owner["metadata"]["uid"])
    assert "ownerReferences" not in replaced["strange"]["metadata"]
    assert of(actions, Create) == of(actions, Remove) == []


def test_a_deleted_owner_does_nothing() -> None:
    """A ReplicaSet that is being deleted creates, deletes and adopts nothing."""
    owner = replica_set(replicas=5)
    owner["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    actions = reconcile(owner, [pod("orphan")], START)
    assert of(actions, Create) == of(actions, Replace) == of(actions, Remove) == []


def test_victims_in_kubernetes_order() -> None:
    """Unbound, pending, unready, cheap, crowded, young-ready, restarted and new pods go first, in that order."""
    owner = replica_set(replicas=0)
    unbound = pod("unbound", owner=owner)
    pending = {**running(pod("pending", owner=owner), "h9"), "status": {"phase": "Pending"}}
    unready = running(pod("unready", owner=owner), "h8", ready=False)
    cheap = running(pod("cheap", owner=owner), "h7")
    cheap["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "-5"}
    crowded = [running(pod(f"crowded{n}", owner=owner), "h1") for n in range(2)]
    fresh = running(pod("fresh", owner=owner), "h2", START + 60 * SECOND)
    restarted = running(pod("restarted", owner=owner), "h3", restarts=2)
    young = running(pod("young", START + 30 * SECOND, owner=owner), "h4")
    old = running(pod("old", owner=owner), "h5")
    everyone = [old, young, restarted, fresh, *crowded, cheap, unready, pending, unbound]
    order = victims(everyone, len(everyone))
    assert [name_of(obj) for obj, _ in order] == [
        "unbound", "pending", "unready", "cheap", "crowded0", "crowded1", "fresh", "restarted", "young", "old",
    ]  # fmt: skip
    rules = [why for _, why in order]
    assert rules[:4] == ["not bound to a node", "earlier phase", "not ready", "lower pod-deletion-cost"]


def test_status_counts() -> None:
    """Status counts replicas, ready and available ones; availability waits for minReadySeconds."""
    owner = replica_set(replicas=3, minReadySeconds=10)
    ready, fresh, unready = pods_of(owner, 3)
    fresh = running(fresh, since_ns=START + 5 * SECOND)
    unready = running(unready, ready=False)
    actions = reconcile(owner, [ready, fresh, unready], START + 10 * SECOND)
    (status,) = of(actions, SetStatus)
    counts = {name: status.status[name] for name in ("replicas", "readyReplicas", "availableReplicas")}
    assert counts == {"replicas": 3, "readyReplicas": 2, "availableReplicas": 1}
    assert of(actions, Again) == [Again(START + 15 * SECOND)]


def test_settled_means_no_action() -> None:
    """When everything is as it should be, nothing is done."""
    owner = replica_set(replicas=2)
    pods = pods_of(owner, 2)
    (status,) = of(reconcile(owner, pods, START), SetStatus)
    assert reconcile({**owner, "status": status.status}, pods, START) == []
