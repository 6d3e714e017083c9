"""What the engine promises beyond one controller: order of work, Events, lost nodes, full disks, callers' reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.contract.orchestrator.test_engine import HELLO, SECOND, Bench

from lamina_kit.errors import (
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from lamina_kit.rng import Rng
from lamina_orchestrator.domain.controllers.nodes import ADDRESS
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.pods.containers import RUNNING, ContainerState, Image, SandboxState
from lamina_orchestrator.domain.pods.effects import (
    CreateContainerCall,
    RemoveContainerCall,
    RemoveSandboxCall,
    ResolveImage,
    RunSandboxCall,
    StartContainerCall,
    StopContainersCall,
    StopSandboxCall,
)
from lamina_orchestrator.engines.interface import (
    NodeAnswers,
    NodeSilent,
    Outgoing,
    Query,
    RunStep,
    StepDone,
    Write,
)
from lamina_orchestrator.engines.model.engine import ModelEngine

ONE = HELLO.replace("replicas: 3", "replicas: 1")


def bench(*nodes: str) -> Bench:
    """An engine with some nodes that answer."""
    made = Bench(ModelEngine)
    for name in nodes:
        made.node(name)
    return made


def text(kind: kinds.Kind, name: str, namespace: str = "", **parts: Any) -> str:
    """An object as JSON."""
    fields = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
    return json.dumps({"apiVersion": kind.api_version, "kind": kind.name, "metadata": fields, **parts})


def pod_text(name: str = "p", **spec: Any) -> str:
    """A pod as JSON."""
    return text(kinds.POD, name, spec={"containers": [{"name": "main", "image": "x:1"}], **spec})


def create(target: Bench, manifest: str, request_id: str = "", dry_run: bool = False) -> Object:
    """Creates an object."""
    return target.engine.create(manifest, "", target.now, "", dry_run, request_id).obj


def delete(target: Bench, kind: kinds.Kind, name: str, **fields: Any) -> bool:
    """Deletes an object; returns whether it is gone."""
    wanted = {"propagation": "background", "grace": None, "uid": "", "revision": 0, "dry_run": False, **fields}
    args = [wanted[part] for part in ("propagation", "grace", "uid", "revision", "dry_run")]
    return target.engine.delete(kind, wanted.get("namespace", ""), name, target.now, *args)[1]


def get(target: Bench, kind: kinds.Kind, name: str, namespace: str = "") -> Object:
    """One object."""
    return target.engine.get(kind, namespace, name, target.now).obj


def listed(target: Bench, kind: kinds.Kind) -> list[Object]:
    """All objects of a kind."""
    return [stored.obj for stored in target.engine.list(Query(kind), 1000, "", target.now).objects]


def events(target: Bench) -> list[str]:
    """Reasons of all Events, in alphabetical order."""
    return sorted(event["reason"] for event in listed(target, kinds.EVENT))


def steps(effects: Sequence[Outgoing]) -> list[RunStep]:
    """The steps among effects."""
    return [effect for effect in effects if isinstance(effect, RunStep)]


RESULTS: dict[type[Any], Callable[[Any], Any]] = {
    RunSandboxCall: lambda call: SandboxState(f"s-{call.spec.pod_uid}-{call.spec.attempt}", call.spec.pod_uid, 0, True),
    ResolveImage: lambda call: Image("i", "sha256:1"),
    CreateContainerCall: lambda call: ContainerState(
        f"c-{call.pod_uid}-{call.spec.attempt}", call.sandbox, call.pod_uid, call.spec.name, call.spec.attempt, RUNNING
    ),
    StartContainerCall: lambda call: ContainerState(
        call.name, "s", call.name[2:].rpartition("-")[0], "main", int(call.name.rpartition("-")[2]), RUNNING
    ),
    StopContainersCall: lambda call: (),
    StopSandboxCall: lambda call: None,
    RemoveSandboxCall: lambda call: None,
    RemoveContainerCall: lambda call: None,
}


def work(target: Bench, *failing: type[Any]) -> list[str]:
    """Performs steps until none is wanted, calls of the failing types in vain; returns names of steps."""
    done: list[str] = []
    for _ in range(50):
        wanted = steps(target.settle())
        if not wanted:
            return done
        for step in wanted:
            done.append(step.name)
            target.engine.feed(StepDone(step.node, step.uid, step.name, perform(step, failing)), target.now)
        if failing:
            return done
    raise AssertionError(done)


def perform(step: RunStep, failing: Sequence[type[Any]] = ()) -> Any:
    """Answers the calls of one step; returns its outcome."""
    try:
        effect = next(step.step)
        while True:
            if type(effect) in failing:
                effect = step.step.throw(Unavailable("away", reason="AWAY"))
            else:
                effect = step.step.send(RESULTS[type(effect)](effect))
    except StopIteration as end:
        return end.value


# ── order and time ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_cluster_has_its_namespaces() -> None:
    """A fresh store gets the four namespaces, and a loaded one is not written to."""
    target = bench()
    assert sorted(obj["metadata"]["name"] for obj in listed(target, kinds.NAMESPACE)) == [
        "default", "kube-node-lease", "kube-public", "kube-system",
    ]  # fmt: skip
    revision = target.store.revision
    ModelEngine(target.store, Rng(2), target.notes).load(target.now)
    assert target.store.revision == revision


def test_events_go_after_an_hour() -> None:
    """The engine wakes to remove Events an hour after they happened, without anything else happening."""
    target = bench("h1")
    create(target, pod_text(nodeSelector={"no": "where"}))
    target.settle()
    assert "FailedScheduling" in events(target)
    happened = target.now
    target.now += 40 * SECOND  # when the node would have been lost
    target.settle()
    due = target.engine.settle(target.now).next_ns
    assert due == happened + 3600 * SECOND
    target.now = due
    target.settle()
    assert events(target) == []
    assert target.engine.settle(target.now).next_ns == 0


class FullStore:
    """A store without room for some writes."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, writes: Sequence[Write]) -> int:
        """Refuses while there is no room."""
        if self.full:
            raise ResourceExhausted("full", reason="STORE_FULL")
        return int(self._store.commit(writes))


def test_a_controller_that_finds_no_room_tries_again() -> None:
    """While the disk is full a controller's writes are put off by five seconds, recorded, and made up for."""
    target = bench("h1")
    store = FullStore(target.store)
    target.engine._ledger.store = store  # type: ignore[attr-defined]
    create(target, pod_text())
    store.full = True
    assert target.engine.settle(target.now).next_ns == target.now + 5 * SECOND
    assert ("namespaces/default/pods/p", "controller.failed", "STORE_FULL") in target.notes.decisions
    assert "nodeName" not in get(target, kinds.POD, "p")["spec"]
    store.full = False
    target.now += 5 * SECOND
    target.settle()
    assert get(target, kinds.POD, "p")["spec"]["nodeName"] == "h1"


# ── owners and namespaces ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_in_a_namespace_that_ends_says_why_it_makes_no_pods() -> None:
    """A ReplicaSet whose pods are refused has an Event FailedCreate with the reason."""
    target = bench()
    create(target, text(kinds.NAMESPACE, "team"))
    target.settle()
    spec = {
        "replicas": 2, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}},
    }  # fmt: skip
    create(target, text(kinds.REPLICA_SET, "rs", "team", spec=spec, metadata={"finalizers": ["a/x"]}))
    said: list[str] = []
    recorder = target.engine._recorder  # type: ignore[attr-defined]
    emit = recorder.emit

    def heard(about: Object, kind: str, reason: str, message: str, *rest: Any) -> None:
        said.append(f"{kind} {reason}: {message}")
        emit(about, kind, reason, message, *rest)

    recorder.emit = heard
    target.engine.delete(kinds.NAMESPACE, "", "team", target.now, "background", None, "", 0, False)
    target.settle()
    assert any(
        one.startswith('Warning FailedCreate: Error creating: Namespace "team" is being deleted') for one in said
    )
    assert target.pods() == []


def test_created_pods_are_told_of() -> None:
    """A ReplicaSet has an Event for each pod that it made, by the component that made it."""
    target = bench("h1")
    target.engine.apply(ONE, "", target.now, "", False)
    target.settle()
    (made,) = [event for event in listed(target, kinds.EVENT) if event["reason"] == "SuccessfulCreate"]
    assert made["message"] == f"Created pod: {target.pods()[0]['metadata']['name']}"
    assert made["source"]["component"] == "replicaset-controller"
    assert made["involvedObject"]["kind"] == "ReplicaSet"


def test_a_namespace_goes_when_it_is_empty() -> None:
    """A namespace that is deleted takes pods along, waits for those that run, and then goes."""
    target = bench("h1")
    create(target, text(kinds.NAMESPACE, "team"))
    spec = {"containers": [{"name": "main", "image": "x"}]}
    create(target, text(kinds.POD, "p", "team", spec=spec))
    work(target)
    assert not delete(target, kinds.NAMESPACE, "team")
    effects = steps(target.settle())
    assert [step.name for step in effects] == ["pod.StopContainers"]
    assert get(target, kinds.NAMESPACE, "team")["status"]["phase"] == "Terminating"
    with pytest.raises(FailedPrecondition, match="being deleted"):
        create(target, text(kinds.POD, "q", "team", spec=spec))
    for step in effects:
        target.engine.feed(StepDone("h1", step.uid, step.name, perform(step)), target.now)
    work(target)
    with pytest.raises(NotFound):
        get(target, kinds.NAMESPACE, "team")


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_that_left_is_taken_up_anew() -> None:
    """Pods of a node that was deleted are gone, and what it ran is unknown when it comes back."""
    target = bench("h1")
    create(target, pod_text())
    work(target)
    uid = get(target, kinds.POD, "p")["metadata"]["uid"]
    assert target.engine._workers.on_node("h1") == [uid]  # type: ignore[attr-defined]
    delete(target, kinds.NODE, "h1")
    target.settle()
    assert target.pods() == []
    assert target.engine._workers.on_node("h1") == []  # type: ignore[attr-defined]
    target.node("h1")
    assert work(target) == []


def test_a_silent_node_keeps_its_pods_until_their_tolerations_run_out() -> None:
    """40 s after its last renewal a node is tainted, and 300 s later its pods are deleted, not before."""
    target = bench("h1")
    create(target, pod_text())
    work(target)
    target.engine.feed(NodeSilent("h1", "gone"), target.now)
    target.settle()
    lost = target.now + 40 * SECOND
    assert target.engine.settle(target.now).next_ns == lost
    target.now = lost
    target.settle()
    taints = get(target, kinds.NODE, "h1")["spec"]["taints"]
    assert [taint["effect"] for taint in taints] == ["NoSchedule", "NoExecute"]
    assert "deletionTimestamp" not in get(target, kinds.POD, "p")["metadata"]
    target.now += 300 * SECOND - 1
    target.settle()
    assert "deletionTimestamp" not in get(target, kinds.POD, "p")["metadata"]
    target.now += 1
    assert steps(target.settle()) == []
    assert "deletionTimestamp" in get(target, kinds.POD, "p")["metadata"]
    target.engine.feed(NodeAnswers("h1", (), ()), target.now)
    work(target)
    assert target.pods() == []


def test_pods_that_wait_start_when_a_node_comes() -> None:
    """A pod without a node is placed when one is registered, uncordoned, or relabelled, each without being asked."""
    target = bench()
    create(target, pod_text("any"))
    target.settle()
    assert "nodeName" not in get(target, kinds.POD, "any")["spec"]
    target.node("h1")
    assert get(target, kinds.POD, "any")["spec"]["nodeName"] == "h1"
    target.engine.cordon("h1", True, target.now)
    create(target, pod_text("later"))
    target.settle()
    assert "nodeName" not in get(target, kinds.POD, "later")["spec"]
    revision = target.store.revision
    target.engine.cordon("h1", True, target.now)
    assert target.store.revision == revision
    target.engine.cordon("h1", False, target.now)
    target.settle()
    assert get(target, kinds.POD, "later")["spec"]["nodeName"] == "h1"
    assert "unschedulable" not in get(target, kinds.NODE, "h1")["spec"]
    create(target, pod_text("picky", nodeSelector={"zone": "x"}))
    target.settle()
    target.engine.register_node("h1", "a", 4000, 8 << 30, 110, {"zone": "x"}, target.now)
    target.settle()
    assert get(target, kinds.POD, "picky")["spec"]["nodeName"] == "h1"


def test_registering_again_changes_what_differs() -> None:
    """Registering a known node writes nothing when nothing differs; capacity counts at once, old labels stay."""
    target = bench("h1")
    revision = target.store.revision
    target.engine.register_node("h1", "a", 4000, 8 << 30, 110, {}, target.now)
    assert target.store.revision == revision
    target.engine.register_node("h1", "b", 1500, 3 << 20, 7, {"zone": "x"}, target.now)
    target.engine.register_node("h1", "b", 1500, 3 << 20, 7, {"disk": "y"}, target.now)
    obj = get(target, kinds.NODE, "h1")
    room = {"cpu": "1500m", "memory": "3072Ki", "pods": "7"}
    assert obj["status"]["capacity"] == obj["status"]["allocatable"] == room
    assert obj["metadata"]["annotations"][ADDRESS] == "b"
    assert {"zone", "disk"} <= set(obj["metadata"]["labels"])


def test_a_pod_that_names_its_node_needs_no_scheduler() -> None:
    """A pod that names a node with room runs there; one that names a full one fails; one without a node is removed."""
    target = bench("h1")
    create(target, pod_text("fits", nodeName="h1"))
    big = {"containers": [{"name": "main", "image": "x", "resources": {"requests": {"cpu": "5"}}}]}
    create(target, pod_text("big", nodeName="h1", **big))
    create(target, pod_text("lost", nodeName="h9"))
    assert work(target) == ["pod.RunSandbox", "pod.StartContainer"]
    found = {obj["metadata"]["name"]: obj["status"]["phase"] for obj in target.pods()}
    assert found == {"fits": "Running", "big": "Failed"}
