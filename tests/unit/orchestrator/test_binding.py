"""Pods that wait for a node: which are tried, when again, and what is recorded."""

from __future__ import annotations

from typing import Any

from tests.unit.orchestrator.objects_made import START, node, pod, running
from tests.unit.orchestrator.test_scheduler import asking

from lamina_orchestrator.domain.kinds.kinds import POD
from lamina_orchestrator.domain.kinds.plain_object import Key, Object, name_of
from lamina_orchestrator.domain.objects.actions import Decide, Emit, Replace, SetStatus
from lamina_orchestrator.engines.model.nodes.binding import Scheduling


def key(obj: Object) -> Key:
    """The key of a pod."""
    return POD.key("default", name_of(obj))


def taken(*pods: Object, why: str = "") -> Scheduling:
    """A scheduling with one small node that took in some pods."""
    made = Scheduling()
    made.table.put_node(node("h1", 1000))
    made.why = why
    for obj in pods:
        made.take(key(obj), obj)
    return made


def drained(scheduling: Scheduling) -> list[str]:
    """Names of the pods that are to be tried, in order."""
    found = []
    while (following := scheduling.next()) is not None:
        found.append(following.name)
    return found


def test_pods_are_tried_in_their_order_once() -> None:
    """Who waits longest is tried first, each once, and it is said why."""
    one, two = pod("one"), pod("two")
    scheduling = taken(one, two, one, why="somebody")
    assert len(scheduling) == 2
    assert scheduling.next() == key(one)
    assert scheduling.cause == "somebody"
    assert drained(scheduling) == ["two"]
    assert (scheduling.next(), len(scheduling)) == (None, 0)


def test_only_pods_that_need_a_node_wait() -> None:
    """A pod that is bound, has ended or is being deleted waits no longer; a bound one takes its room."""
    bound = running(asking("bound", cpu="400m"), "h1")
    ended = {**pod("ended"), "status": {"phase": "Failed"}}
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    names = [pod(name) for name in ("bound", "ended", "leaving")]
    scheduling = taken(*names)
    for obj in (bound, ended, leaving):
        scheduling.take(key(obj), obj)
    assert drained(scheduling) == []
    free = scheduling.table.free("h1")
    assert free is not None and free[0] == 600
    scheduling.take(key(bound), {**bound, "status": {"phase": "Succeeded"}})
    free = scheduling.table.free("h1")
    assert free is not None and free[0] == 1000


def test_a_pod_that_fits_is_bound() -> None:
    """Binding names the node, says that it was scheduled, and tells from what that was decided."""
    obj = pod()
    decided, replaced, told = taken(obj).place(key(obj), obj, START)
    assert isinstance(decided, Decide) and isinstance(replaced, Replace) and isinstance(told, Emit)
    assert (decided.event, decided.inputs["node"]) == ("pod.scheduled", "h1")
    assert replaced.obj["spec"]["nodeName"] == "h1"
    (condition,) = replaced.obj["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    assert (told.kind, told.reason, told.message) == ("Normal", "Scheduled", "Successfully assigned default/p to h1")


def test_a_pod_that_fits_nowhere_waits_for_room() -> None:
    """It is said once why a pod waits, and it is tried again when a pod gives room back or nodes change, not before."""
    bound, big = running(asking("bound", cpu="1"), "h1"), asking("big", cpu="600m")
    scheduling = taken(bound, big, why="first")
    assert drained(scheduling) == ["big"]
    decided, status, told = scheduling.place(key(big), big, START)
    assert isinstance(decided, Decide) and isinstance(status, SetStatus) and isinstance(told, Emit)
    assert decided.event == "pod.pending"
    assert decided.inputs["message"] == told.message == "0/1 nodes are available: 1 Insufficient cpu."
    (condition,) = status.status["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    again = {**big, "status": status.status}
    scheduling.take(key(big), again)
    assert drained(scheduling) == []
    assert scheduling.place(key(big), again, START + 5) == []
    scheduling.drop(key(pod("stranger")), "no-such-uid")
    assert drained(scheduling) == []
    scheduling.why = "room"
    scheduling.drop(key(bound), bound["metadata"]["uid"])
    assert scheduling.next() == key(big)
    assert scheduling.cause == "room"
    assert isinstance(scheduling.place(key(big), again, START)[1], Replace)


def test_alike_pods_share_a_verdict_until_something_changes() -> None:
    """A pod like one that fits nowhere is not tried against the nodes; after a change it is."""
    scheduling = taken()
    one, two, other = asking("one", cpu="2"), asking("two", cpu="2"), asking("other", cpu="1")
    scheduling.place(key(one), one, START)
    scheduling.table.put_node(node("h2", 4000))
    assert isinstance(scheduling.place(key(two), two, START)[0], Decide)
    assert isinstance(scheduling.place(key(other), other, START)[1], Replace)
    assert drained(scheduling) == []
    scheduling.retry()
    assert drained(scheduling) == ["one", "two"]
    assert isinstance(scheduling.place(key(two), two, START)[1], Replace)


def test_a_dropped_pod_is_not_tried() -> None:
    """A pod that is gone is tried no more, whether it was queued or waiting."""
    queued, waiting = pod("queued"), asking("waiting", cpu="2")
    scheduling = taken(queued)
    scheduling.place(key(waiting), waiting, START)
    for obj in (queued, waiting):
        scheduling.drop(key(obj), obj["metadata"]["uid"])
    scheduling.retry()
    assert drained(scheduling) == []


def test_a_bound_pod_no_longer_waits() -> None:
    """A pod that somebody bound by hand while it waited is not tried again."""
    obj = asking("p", cpu="2")
    scheduling = taken()
    scheduling.place(key(obj), obj, START)
    scheduling.take(key(obj), running(obj, "h1"))
    scheduling.retry()
    assert drained(scheduling) == []


def test_a_pod_that_names_a_full_node_fails() -> None:
    """A pod that names a node without room fails there with the kubelet's reason; one that fits is left alone."""
    obj: Any = asking("p", cpu="2", nodeName="h1")
    decided, status, told = taken().refuse(key(obj), obj)
    assert isinstance(decided, Decide) and isinstance(status, SetStatus) and isinstance(told, Emit)
    assert (status.status["phase"], status.status["reason"]) == ("Failed", "OutOfcpu")
    assert decided.inputs == {"node": "h1", "reason": "OutOfcpu"}
    assert told.message == status.status["message"] == "Node didn't have enough resource: OutOfcpu on h1"
    fits = asking("p", cpu="1", nodeName="h1")
    assert taken().refuse(key(fits), fits) == []
