"""Deployments in detail: the arithmetic of sizes, statuses, what is copied to ReplicaSets."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START, deployment, replica_set, template
from tests.unit.orchestrator.test_deployment import World, share

from lamina_orchestrator.domain.controllers import rollout
from lamina_orchestrator.domain.controllers.deployment import reconcile, same_template
from lamina_orchestrator.domain.controllers.deployment_status import deployment_status, is_complete
from lamina_orchestrator.domain.controllers.rollout import DESIRED, MAXIMUM, REVISION, Bounds, Share
from lamina_orchestrator.domain.kinds.plain_object import Object, name_of, with_annotations
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.objects.actions import Again, Create, Decide, Emit, Remove, Replace, SetStatus
from lamina_orchestrator.domain.objects.ownership import TRACEPARENT


def of(actions: list[Any], kind: type[Any]) -> list[Any]:
    """The actions of a kind."""
    return [action for action in actions if isinstance(action, kind)]


@pytest.mark.parametrize(
    ("bounds", "have", "others", "wanted"),
    [
        (Bounds(5, 2, 0), None, [], 5),
        (Bounds(5, 2, 0), None, [5], 2),
        (Bounds(5, 2, 0), 2, [5], 2),
        (Bounds(5, 2, 0), 2, [3], 4),
        (Bounds(5, 2, 0), 4, [0], 5),
        (Bounds(5, 2, 0), 7, [0], 5),
        (Bounds(5, 0, 1), 1, [9], 1),
    ],
)
def test_the_newest_set_grows_into_the_room(bounds: Bounds, have: int | None, others: list[int], wanted: int) -> None:
    """The newest ReplicaSet grows as far as the surge leaves room, never beyond the count, and shrinks to it."""
    new = share("new", have, 9, 5, 7) if have is not None else None
    everyone = [share(f"old{n}", count, n, 5, 7) for n, count in enumerate(others)] + ([new] if new else [])
    assert rollout.new_size(bounds, new, everyone) == wanted


def test_old_sets_shrink_as_far_as_availability_allows() -> None:
    """Old sets give back what is available beyond the least, the oldest first, and nothing when nothing is spare."""
    bounds = Bounds(4, 1, 1)
    old = [share("older", 2, 1, 4, 5), share("younger", 2, 2, 4, 5)]
    assert rollout.old_sizes(bounds, share("new", 1, 3, 4, 5), old) == {"older": 0}
    assert rollout.old_sizes(bounds, share("new", 3, 3, 4, 5), old) == {"older": 0, "younger": 0}
    starting = Share("new", 1, 0, 3, 3, 4, 5)
    assert rollout.old_sizes(bounds, starting, old) == {"older": 1}
    assert rollout.old_sizes(Bounds(4, 1, 0), starting, old) == {}
    assert rollout.old_sizes(Bounds(5, 1, 0), share("new", 1, 3, 5, 6), old) == {}


def test_unhealthy_replicas_share_one_room() -> None:
    """Unhealthy replicas of several old sets are cleaned up only as far as the room goes in all, oldest first."""
    new = Share("new", 1, 1, 9, 9, 6, 7)
    sick = [Share("a", 3, 0, 1, 1, 6, 7), Share("b", 3, 0, 2, 2, 6, 7)]
    assert rollout.old_sizes(Bounds(6, 1, 3), new, sick) == {"a": 0, "b": 2}
    assert rollout.old_sizes(Bounds(6, 1, 1), new, sick) == {"a": 1}
    half = [Share("a", 3, 2, 1, 1, 6, 7), Share("b", 3, 3, 2, 2, 6, 7)]
    assert rollout.old_sizes(Bounds(6, 1, 0), new, half) == {"a": 2}
    stale = [Share("a", 3, 2, 1, 1, 6, 7), Share("b", 3, 4, 2, 2, 6, 7)]
    assert rollout.old_sizes(Bounds(6, 1, 0), new, stale) == {"a": 1}


def test_a_single_set_takes_the_whole_count() -> None:
    """When one set has all pods it is scaled alone; without pods the newest is, or that of the highest revision."""
    new, old = share("new", 3, 2, 3, 4), share("old", 0, 1, 3, 4)
    assert rollout.scaled_sizes(Bounds(5, 1, 1), new, [old, new], 3) == {"new": 5}
    assert rollout.scaled_sizes(Bounds(3, 1, 1), new, [old, new], 3) == {}
    empty = share("new", 0, 2, 3, 4)
    assert rollout.scaled_sizes(Bounds(5, 1, 1), empty, [old, empty], 3) == {"new": 5}
    assert rollout.scaled_sizes(Bounds(5, 1, 1), None, [old, share("older", 0, 0, 3, 4)], 3) == {"old": 5}
    assert rollout.scaled_sizes(Bounds(5, 1, 1), None, [], 3) == {}


def test_a_finished_rollout_empties_the_old_sets() -> None:
    """Once the newest set has all that is wanted and available, what old sets still have goes."""
    new = share("new", 5, 2, 5, 6)
    assert rollout.scaled_sizes(Bounds(5, 1, 1), new, [share("old", 2, 1, 5, 6), new], 5) == {"old": 0}
    unready = Share("new", 5, 4, 2, 2, 5, 6)
    assert rollout.scaled_sizes(Bounds(5, 1, 1), unready, [share("old", 2, 1, 5, 6), unready], 5) != {"old": 0}


def test_what_rounding_leaves_goes_to_the_largest_set() -> None:
    """Proportions add up to what is wanted: the largest set takes the rest; of equals, growing ones the newest."""
    shares = [share(name, 1, number, 3, 3) for number, name in enumerate(("a", "b", "c"))]
    grown = rollout.scaled_sizes(Bounds(5, 0, 1), shares[2], shares, 3)
    assert sum({**dict.fromkeys("abc", 1), **grown}.values()) == 5
    assert grown == {"c": 2, "b": 2}
    shrunk = rollout.scaled_sizes(Bounds(2, 0, 1), shares[2], shares, 3)
    assert sum({**dict.fromkeys("abc", 1), **shrunk}.values()) == 2
    assert shrunk == {"a": 0}


def test_without_a_remembered_maximum_the_status_is_the_base() -> None:
    """A set that does not say of how many it was part takes its part of what the status showed."""
    shares = [Share("a", 6, 6, 1, 1, None, None), Share("b", 4, 4, 2, 2, None, None)]
    assert rollout.scaled_sizes(Bounds(20, 0, 1), shares[1], shares, 10) == {"a": 12, "b": 8}


def test_numbers_of_annotations_are_read_with_care() -> None:
    """An annotation that is no number counts as none."""
    for text, wanted in (
        ("7", 7),
        ("x", None),
        ("-1", None),
        ("٣", None),
        ("12345678901", None),
        ("1234567890", 1234567890),
    ):
        obj = with_annotations(replica_set(), **{DESIRED: text, MAXIMUM: text, REVISION: text})
        found = rollout.share_of(obj)
        assert (found.desired, found.maximum, found.revision) == (wanted, wanted, wanted or 0)
    assert rollout.share_of(replica_set(replicas=4)) == Share("rs", 4, 0, START, 0, None, None)


def test_bounds_at_their_ends() -> None:
    """No pods at all are wanted when the count is 0; Recreate has neither surge nor unavailable."""
    assert (Bounds(3, 2, 1).most, Bounds(3, 2, 1).least, Bounds(0, 2, 0).most) == (5, 2, 0)
    assert rollout.bounds_of(deployment(3, strategy={"type": "Recreate"})) == Bounds(3, 0, 0)


def test_templates_are_compared_without_the_hash() -> None:
    """Two templates are the same when they differ in the hash label alone."""
    first, second = template(), template()
    second["metadata"]["labels"]["pod-template-hash"] = "abc"
    assert same_template(first, second)
    second["metadata"]["labels"]["app"] = "b"
    assert not same_template(first, second)
    assert not same_template(first, template("x:2"))
    assert same_template({"spec": 1}, {"spec": 1, "metadata": {"labels": {"pod-template-hash": "x"}}})


def test_a_replica_set_inherits_what_it_should() -> None:
    """A new set has the Deployment's annotations but its private ones, and its counts and owner."""
    obj = with_annotations(
        deployment(4, minReadySeconds=7),
        note="kept", **{"kubectl.kubernetes.io/last-applied-configuration": "{}", TRACEPARENT: "00-x", REVISION: "9"},
    )  # fmt: skip
    actions = reconcile(obj, [], START, lambda name: False, lambda _: False)
    (made,) = [action.obj for action in of(actions, Create)]
    assert made["metadata"]["annotations"] == {
        "note": "kept", REVISION: "1", DESIRED: "4", MAXIMUM: "5", TRACEPARENT: "00-x",
    }  # fmt: skip
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Deployment", obj["metadata"]["uid"], True)
    assert (made["spec"]["replicas"], made["spec"]["minReadySeconds"]) == (4, 7)
    (told,) = of(actions, Emit)
    assert told.message == f"Scaled up replica set {made['metadata']['name']} from 0 to 4"
    assert [action.event for action in of(actions, Decide)] == ["replica_set.created"]


def test_a_deployment_of_nothing_tells_of_no_scaling() -> None:
    """A Deployment of no replicas makes its set without an Event, and is complete at once."""
    actions = reconcile(deployment(0), [], START, lambda name: False, lambda _: False)
    assert of(actions, Create)[0].obj["spec"]["replicas"] == 0
    assert of(actions, Emit) == []
    world = World(deployment(0))
    world.settle()
    assert world.condition("Progressing") == ("True", "NewReplicaSetAvailable")


def test_long_names_leave_room_for_the_hash() -> None:
    """A set's name stays within 253 characters and ends with its hash."""
    obj = deployment()
    obj["metadata"]["name"] = "d" * 253
    (made,) = of(reconcile(obj, [], START, lambda name: False, lambda _: False), Create)
    name = made.obj["metadata"]["name"]
    assert len(name) == 253
    assert name.endswith(f"-{made.obj['metadata']['labels']['pod-template-hash']}")


def test_a_deleted_deployment_is_left_alone() -> None:
    """A Deployment that is being deleted makes nothing and scales nothing."""
    obj = deployment()
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert reconcile(obj, [], START, lambda name: False, lambda _: False) == []


def test_changes_reach_the_newest_set() -> None:
    """Annotations, counts and minReadySeconds of a Deployment reach the set that stands, without a new one."""
    world = World(deployment(2))
    world.settle()
    world.change(minReadySeconds=5)
    world.deployment = with_annotations(world.deployment, note="new")
    world.settle()
    (found,) = world.sets.values()
    assert found["spec"]["minReadySeconds"] == 5
    assert found["metadata"]["annotations"]["note"] == "new"
    world.change(minReadySeconds=0)
    world.settle()
    assert next(iter(world.sets.values()))["spec"]["minReadySeconds"] == 0


def test_scaling_tells_its_direction() -> None:
    """Each change of a set's size is told and explained, up or down, with what it was and is."""
    world = World(deployment(2))
    world.settle()
    world.log.clear()
    world.change(replicas=3)
    world.settle()
    world.change(replicas=1)
    world.settle()
    (name,) = world.sets
    assert [action.message for action in of(world.log, Emit)] == [
        f"Scaled up replica set {name} from 2 to 3",
        f"Scaled down replica set {name} from 3 to 1",
    ]
    assert [action.event for action in of(world.log, Decide)] == [
        "replica_set.scaled_up", "replica_set.scaled_down",
    ]  # fmt: skip


def test_old_sets_are_kept_up_to_the_limit_and_while_they_have_pods() -> None:
    """Sets beyond the history go only when the rollout is complete and they are empty; a limit of 0 keeps none."""
    world = World(deployment(2, revisionHistoryLimit=0))
    world.settle()
    world.available = False
    world.change(template=template("x:2"))
    world.settle()
    assert len(world.sets) == 2
    world.available = True
    world.sets = {name: {**found, "status": world._status(found)} for name, found in world.sets.items()}
    world.settle()
    assert len(world.sets) == 1
    assert [action.why for action in of(world.log, Remove)] == ["beyond revisionHistoryLimit"]


def counted(
    obj: Object, *sets: Object, new: Object | None = None, now: int = START
) -> tuple[dict[str, Any], list[Again]]:
    """The status of a Deployment from its sets."""
    return deployment_status(obj, sets, new, rollout.bounds_of(obj), now)


def with_status(obj: Object, replicas: int, ready: int, available: int) -> Object:
    """A set with counts in its status."""
    status = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": available}
    return {**obj, "status": status}


def test_status_adds_up_the_sets() -> None:
    """Counts are sums over the sets; updated ones are those of the newest; what is missing is unavailable."""
    old, new = with_status(replica_set("old", 2), 2, 2, 2), with_status(replica_set("new", 3), 3, 2, 1)
    status, again = counted(deployment(4), old, new, new=new)
    counts = {name: value for name, value in status.items() if name != "conditions"}
    assert counts == {
        "observedGeneration": 1, "replicas": 5, "updatedReplicas": 3, "readyReplicas": 4,
        "availableReplicas": 3, "unavailableReplicas": 2,
    }  # fmt: skip
    assert again == [Again(START + 600 * SECOND)]
    assert status["conditions"][0]["reason"] == "MinimumReplicasAvailable"
    fewer, _ = counted(deployment(5), old, with_status(new, 3, 2, 1), new=new)
    assert fewer["conditions"][0]["reason"] == "MinimumReplicasUnavailable"


def test_complete_means_all_new_and_seen() -> None:
    """A Deployment is complete when every count is what is wanted, and for the spec as it is now."""
    obj = deployment(2)
    whole = {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    assert is_complete(obj, whole)
    for name in whole:
        assert not is_complete(obj, {**whole, name: 3})
    assert not is_complete(obj, {})


def test_progress_has_a_deadline_that_progress_moves() -> None:
    """Each pod that becomes ready puts the deadline off; silence until then is a failure that stays."""
    obj = deployment(3, progressDeadlineSeconds=60)
    new = replica_set("new", 3)

    def look(available: int, seconds: int) -> tuple[str, str, list[Again]]:
        nonlocal obj
        status, again = counted(obj, new, new=with_status(new, 3, available, available), now=START + seconds * SECOND)
        status["readyReplicas"] = available
        obj = {**obj, "status": status}
        found = next(one for one in status["conditions"] if one["type"] == "Progressing")
        return found["status"], found["reason"], again

    assert look(0, 0) == ("True", "ReplicaSetUpdated", [Again(START + 60 * SECOND)])
    assert look(0, 59) == ("True", "ReplicaSetUpdated", [Again(START + 60 * SECOND)])
    assert look(0, 60) == ("False", "ProgressDeadlineExceeded", [])
    assert look(0, 90) == ("False", "ProgressDeadlineExceeded", [])


def test_old_pods_that_go_are_progress() -> None:
    """A rollout progresses when new pods come or old ones go, and not when old ones come."""
    obj = deployment(3, progressDeadlineSeconds=60)
    new = with_status(replica_set("new", 2), 2, 0, 0)
    first, _ = counted(obj, with_status(replica_set("old", 2), 2, 2, 2), new, new=new)
    obj = {**obj, "status": first}
    fewer = with_status(replica_set("old", 1), 1, 1, 1)
    moved, _ = counted(obj, fewer, new, new=new, now=START + 30 * SECOND)
    assert moved["conditions"][1]["lastUpdateTime"] == "2026-01-01T00:00:30Z"
    assert moved["conditions"][1]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    same, again = counted({**obj, "status": moved}, fewer, new, new=new, now=START + 40 * SECOND)
    assert same["conditions"] == moved["conditions"]
    assert again == [Again(START + 90 * SECOND)]
    more, _ = counted({**obj, "status": moved}, with_status(fewer, 2, 1, 1), new, new=new, now=START + 50 * SECOND)
    assert more["conditions"][1]["lastUpdateTime"] == "2026-01-01T00:00:30Z"


def test_a_finished_rollout_stays_finished() -> None:
    """Pods that come and go after a rollout are no progress of it, and no failure."""
    world = World(deployment(2))
    world.settle()
    world.available = False
    world.now += 10_000 * SECOND
    for name, found in world.sets.items():
        world.sets[name] = with_status(found, 2, 0, 0)
    world.settle()
    assert world.condition("Progressing") == ("True", "NewReplicaSetAvailable")
    assert world.condition("Available") == ("False", "MinimumReplicasUnavailable")


def test_collisions_are_remembered_in_the_name() -> None:
    """After a collision the set gets another name, and the count stays in the status."""
    obj = deployment(1)
    (taken,) = of(reconcile(obj, [], START, lambda name: False, lambda _: False), Create)
    again = {**obj, "status": {"collisionCount": 1}}
    actions = reconcile(again, [], START, lambda name: False, lambda _: False)
    (made,) = of(actions, Create)
    assert made.obj["metadata"]["name"] != taken.obj["metadata"]["name"]
    assert of(actions, SetStatus)[0].status["collisionCount"] == 1
    assert of(actions, Replace) == []
    assert name_of(obj) == "d"
