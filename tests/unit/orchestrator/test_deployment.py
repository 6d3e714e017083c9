"""The Deployment controller and the arithmetic of its rollouts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import ADMISSION, START, deployment, template

from lamina_orchestrator.domain.controllers import rollout
from lamina_orchestrator.domain.controllers.deployment import reconcile
from lamina_orchestrator.domain.controllers.rollout import Bounds, Share
from lamina_orchestrator.domain.kinds.kinds import REPLICA_SET
from lamina_orchestrator.domain.kinds.plain_object import Object, name_of, spec_of
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.objects.actions import Action, Again, Create, Remove, Replace, SetStatus


class World:
    """A Deployment and its ReplicaSets, whose pods appear as soon as they are asked for."""

    def __init__(self, obj: Object, *, available: bool = True) -> None:
        self.deployment = obj
        self.sets: dict[str, Object] = {}
        self.now = START
        self.available = available
        self.log: list[Action] = []

    def step(self, *, pods: bool = False) -> list[Action]:
        """Reconciles once and carries out what is wanted."""
        sets = [self.sets[name] for name in sorted(self.sets)]
        actions = reconcile(self.deployment, sets, self.now, self.sets.__contains__, lambda _: pods)
        for action in actions:
            self._apply(action)
        self.log += actions
        return actions

    def _apply(self, action: Action) -> None:
        if isinstance(action, Create):
            made = ADMISSION.complete(REPLICA_SET, action.obj, self.now)
            self.sets[name_of(made)] = made
        elif isinstance(action, Remove):
            del self.sets[action.key.name]
        elif isinstance(action, Replace) and action.kind == REPLICA_SET:
            self.sets[name_of(action.obj)] = action.obj
        elif isinstance(action, Replace):
            self.deployment = action.obj
        elif isinstance(action, SetStatus):
            self.deployment = {**self.deployment, "status": action.status}
        for name, found in self.sets.items():
            self.sets[name] = {**found, "status": self._status(found)}

    def _status(self, found: Object) -> dict[str, Any]:
        count = int(spec_of(found)["replicas"])
        ready = count if self.available else 0
        generation = found["metadata"].get("generation")
        return {"replicas": count, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": generation}

    def settle(self) -> None:
        """Steps until nothing but a later look is wanted."""
        for _ in range(100):
            if not [action for action in self.step() if not isinstance(action, Again)]:
                return
        raise AssertionError("it does not settle")

    def change(self, **spec: Any) -> None:
        """Changes the Deployment's spec as an update would."""
        metadata = {**self.deployment["metadata"], "generation": self.deployment["metadata"]["generation"] + 1}
        self.deployment = {**self.deployment, "metadata": metadata, "spec": {**self.deployment["spec"], **spec}}

    def sizes(self) -> list[int]:
        """Replicas of the sets, oldest first."""
        order = sorted(self.sets.values(), key=rollout.revision_number)
        return [int(spec_of(found)["replicas"]) for found in order]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        conditions = self.deployment["status"]["conditions"]
        found = next(condition for condition in conditions if condition["type"] == kind)
        return found["status"], found["reason"]


def test_first_rollout() -> None:
    """A new Deployment makes one ReplicaSet of its template with hash label, revision and full count."""
    world = World(deployment(3))
    world.settle()
    (made,) = world.sets.values()
    label = made["metadata"]["labels"]["pod-template-hash"]
    assert name_of(made) == f"d-{label}"
    assert made["spec"]["selector"]["matchLabels"]["pod-template-hash"] == label
    assert made["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == label
    assert world.deployment["metadata"]["annotations"][rollout.REVISION] == "1"
    assert world.condition("Available") == ("True", "MinimumReplicasAvailable")
    assert world.condition("Progressing") == ("True", "NewReplicaSetAvailable")


def test_rolling_update_stays_within_its_bounds() -> None:
    """While rolling, there are never more than replicas + surge, nor fewer available than replicas − unavailable."""
    world = World(deployment(8, strategy={"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}))
    world.settle()
    world.change(template={**template("x:2")})
    for _ in range(40):
        world.step()
        assert 7 <= sum(world.sizes()) <= 10
    assert world.sizes() == [0, 8]


def test_no_progress_without_available_pods() -> None:
    """When new pods do not become available, old ones stay up to the bound, and the deadline is reported."""
    world = World(deployment(4, progressDeadlineSeconds=60))
    world.settle()
    world.available = False
    world.change(template=template("broken"))
    world.settle()
    world.now += 61 * SECOND
    world.settle()
    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert sum(world.sizes()) <= 5


def test_going_back_reuses_the_old_set() -> None:
    """A template that was used before gets its ReplicaSet again, under a new revision."""
    world = World(deployment(2))
    world.settle()
    first = world.deployment["spec"]["template"]
    world.change(template=template("x:2"))
    world.settle()
    world.change(template=first)
    world.settle()
    assert len(world.sets) == 2
    assert sorted(rollout.revision_number(found) for found in world.sets.values()) == [2, 3]
    assert world.sizes() == [0, 2]


def test_history_is_limited() -> None:
    """Old ReplicaSets beyond revisionHistoryLimit are deleted, oldest first."""
    world = World(deployment(1, revisionHistoryLimit=2))
    for number in range(5):
        world.change(template=template(f"x:{number}"))
        world.settle()
    assert sorted(rollout.revision_number(found) for found in world.sets.values()) == [3, 4, 5]


def test_pause_holds_the_rollout() -> None:
    """A paused Deployment makes no new ReplicaSet but scales; unpaused it goes on."""
    world = World(deployment(2))
    world.settle()
    world.change(paused=True, template=template("x:2"))
    world.settle()
    assert len(world.sets) == 1
    assert world.condition("Progressing") == ("Unknown", "DeploymentPaused")
    world.change(replicas=4)
    world.settle()
    assert world.sizes() == [4]
    world.change(paused=False)
    world.settle()
    assert world.sizes() == [0, 4]


def test_recreate_waits_for_the_old_pods() -> None:
    """Recreate scales old sets to nothing, waits for their pods, and only then makes the new set."""
    world = World(deployment(2, strategy={"type": "Recreate"}))
    world.settle()
    world.change(template=template("x:2"))
    for _ in range(3):
        world.step(pods=True)
    assert world.sizes() == [0]
    world.settle()
    assert world.sizes() == [0, 2]


def test_a_taken_name_is_avoided() -> None:
    """A ReplicaSet name that somebody else has is avoided by counting the collision."""
    obj = deployment(1)
    actions = reconcile(obj, [], START, lambda name: True, lambda _: False)
    (status,) = [action for action in actions if isinstance(action, SetStatus)]
    assert status.status["collisionCount"] == 1


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "wanted"),
    [("25%", "25%", 3, (1, 0)), ("25%", "25%", 4, (1, 1)), ("25%", "25%", 10, (3, 2)), (0, "1%", 5, (0, 1)),
     (2, 0, 5, (2, 0)), (0, 9, 3, (0, 3)), ("100%", "0%", 0, (0, 0))],
)  # fmt: skip
def test_bounds(surge: Any, unavailable: Any, replicas: int, wanted: tuple[int, int]) -> None:
    """Surge rounds up, unavailable rounds down, and they are never both zero when pods are wanted."""
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    bounds = rollout.bounds_of(deployment(replicas, strategy=strategy))
    assert (bounds.surge, bounds.unavailable) == wanted


def share(name: str, replicas: int, revision: int, desired: int, maximum: int) -> Share:
    """A ReplicaSet in numbers, all of it available."""
    return Share(name, replicas, replicas, revision, revision, desired, maximum)


def test_scaling_in_mid_rollout_is_proportional() -> None:
    """A count that changes while a rollout is under way is shared out in proportion, without losing a pod."""
    old, new = share("old", 8, 1, 10, 13), share("new", 5, 2, 10, 13)
    sizes = rollout.scaled_sizes(Bounds(15, 3, 2), new, [old, new], 13)
    assert sizes == {"old": 11, "new": 7}
    down = rollout.scaled_sizes(Bounds(5, 2, 1), new, [old, new], 13)
    assert down == {"old": 4, "new": 3}
    assert rollout.scaled_sizes(Bounds(0, 3, 2), new, [old, new], 13) == {"old": 0, "new": 0}


def test_unhealthy_old_pods_go_first() -> None:
    """Old replicas that are not available are taken away before available ones."""
    new = Share("new", 2, 2, 3, 3, 4, 5)
    sick, well = Share("sick", 2, 0, 2, 2, 4, 5), Share("well", 2, 2, 1, 1, 4, 5)
    assert rollout.old_sizes(Bounds(4, 1, 1), new, [sick, well]) == {"sick": 0, "well": 1}
