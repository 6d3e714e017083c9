"""What the engine promises beyond one controller: order of work, Events, lost nodes, full disks, callers' reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from tests.contract.orchestrator.test_engine import HELLO, SECOND, Bench, answer

from lamina_kit.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)
from lamina_kit.rng import Rng
from lamina_orchestrator.domain.controllers.nodes import ADDRESS
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.pods.containers import EXITED, RUNNING, ContainerState, Image, SandboxState
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
    ContainerSeen,
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


# ── a pod's life ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_at_a_time() -> None:
    """A pod has one step under way, whatever is reported meanwhile; a shorter grace hurries the stop on."""
    target = bench("h1")
    create(target, pod_text())
    (first,) = steps(target.settle())
    target.engine.feed(NodeAnswers("h1", (), ()), target.now)
    assert steps(target.settle()) == []
    target.engine.feed(StepDone("h1", first.uid, first.name, perform(first)), target.now)
    work(target)
    assert not delete(target, kinds.POD, "p")
    (slow,) = steps(target.settle())
    assert "Killing" in events(target)
    assert not delete(target, kinds.POD, "p", grace=60)
    assert steps(target.settle()) == []
    assert not delete(target, kinds.POD, "p", grace=5)
    (fast,) = steps(target.settle())
    assert (slow.name, fast.name) == ("pod.StopContainers", "pod.StopContainers")
    for step in (fast, slow):
        target.engine.feed(StepDone("h1", step.uid, step.name, perform(step)), target.now)
    assert work(target) == ["pod.RemoveSandbox"]
    assert target.pods() == []


def test_events_of_a_start() -> None:
    """A start is told in three Events; a failing one with its reason, and it is tried again after ten seconds."""
    target = bench("h1")
    create(target, pod_text())
    work(target, RunSandboxCall)
    assert "FailedCreatePodSandBox" in events(target)
    assert work(target) == []
    waiting = get(target, kinds.POD, "p")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "FailedCreatePodSandBox"
    target.now += 10 * SECOND
    assert work(target, ResolveImage) == ["pod.RunSandbox"]
    assert work(target, ResolveImage) == ["pod.StartContainer"]
    (failed,) = [event for event in listed(target, kinds.EVENT) if event["reason"] == "Failed"]
    assert failed["message"].startswith("Error: ErrImagePull: ")
    target.now += 10 * SECOND
    assert work(target) == ["pod.StartContainer"]
    told = {event["reason"]: event["message"] for event in listed(target, kinds.EVENT)}
    assert told["Pulled"] == 'Container image "x:1" is present on the node'
    assert (told["Created"], told["Started"]) == ("Created container: main", "Started container main")
    status = get(target, kinds.POD, "p")["status"]
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["imageID"] == "sha256:1"


def ended(target: Bench, attempt: int, code: int = 1) -> None:
    """Reports that the pod's container ended."""
    uid = get(target, kinds.POD, "p")["metadata"]["uid"]
    state = ContainerState(f"c-{uid}-{attempt}", "s", uid, "main", attempt, EXITED, exit_code=code,
                           finished_ns=target.now)  # fmt: skip
    target.engine.feed(ContainerSeen("h1", state), target.now)


def test_crashes_back_off_and_are_told_from_the_second_on() -> None:
    """The first restart is quiet and at once; the next waits ten seconds and has an Event; a clean end has none."""
    target = bench("h1")
    create(target, pod_text())
    work(target)
    ended(target, 0)
    assert work(target) == ["pod.StartContainer"]
    assert "BackOff" not in events(target)
    ended(target, 1)
    assert work(target) == []
    assert target.engine.settle(target.now).next_ns == target.now + 10 * SECOND
    target.now += 10 * SECOND
    assert work(target) == ["pod.StartContainer"]
    (told,) = [event for event in listed(target, kinds.EVENT) if event["reason"] == "BackOff"]
    assert told["message"] == "Container main ended with exit code 1, restart 2"
    ended(target, 2, 0)
    target.now += 20 * SECOND
    assert work(target) == ["pod.StartContainer"]
    assert [event["count"] for event in listed(target, kinds.EVENT) if event["reason"] == "BackOff"] == [1]


def test_a_finished_pod_stops_its_sandbox() -> None:
    """A pod that has succeeded stops its sandbox and stays, and gives its room back."""
    target = bench("h1")
    create(target, pod_text(restartPolicy="Never"))
    work(target)
    ended(target, 0, 0)
    assert work(target) == ["pod.StopSandbox"]
    assert get(target, kinds.POD, "p")["status"]["phase"] == "Succeeded"
    assert work(target) == []
    assert delete(target, kinds.POD, "p")
    assert work(target) == ["pod.RemoveSandbox"]


def test_news_from_another_node_is_ignored() -> None:
    """A container that another node reports for a pod changes nothing."""
    target = bench("h1", "h2")
    create(target, pod_text(nodeName="h1"))
    work(target)
    revision = target.store.revision
    uid = get(target, kinds.POD, "p")["metadata"]["uid"]
    target.engine.feed(ContainerSeen("h2", ContainerState("c", "s", uid, "main", 0, EXITED)), target.now)
    assert target.settle() == []
    assert target.store.revision == revision


def test_what_belongs_to_no_pod_is_removed() -> None:
    """A node that answers with sandboxes of pods that are gone gets them removed; ours it keeps."""
    target = bench("h1")
    create(target, pod_text())
    work(target)
    uid = get(target, kinds.POD, "p")["metadata"]["uid"]
    mine, stray = SandboxState(f"s-{uid}-0", uid, 0, True), SandboxState("s-stray", "stray", 0, True)
    running = ContainerState(f"c-{uid}-0", mine.name, uid, "main", 0, RUNNING)
    orphan = ContainerState("c-stray", "s-stray", "stray", "main", 0, RUNNING)
    target.engine.feed(NodeSilent("h1", "x"), target.now)
    target.engine.feed(NodeAnswers("h1", (mine, stray), (running, orphan)), target.now)
    assert work(target) == ["pod.StopContainers", "pod.RemoveSandbox"]
    assert get(target, kinds.POD, "p")["status"]["phase"] == "Running"


# ── callers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(error: type[LaminaError], call: Callable[[], Any]) -> str:
    """The reason with which a call is refused."""
    with pytest.raises(error) as caught:
        call()
    return caught.value.reason


def test_deletion_has_preconditions() -> None:
    """A deletion that names another uid or version is refused, and so is a grace period out of range."""
    target = bench()
    obj = create(target, pod_text())
    uid, revision = obj["metadata"]["uid"], target.store.revision
    assert refusal(Aborted, lambda: delete(target, kinds.POD, "p", uid="other")) == "CONFLICT"
    assert refusal(Aborted, lambda: delete(target, kinds.POD, "p", revision=revision - 1)) == "CONFLICT"
    for grace in (-1, 86_401):
        out = refusal(InvalidArgument, partial(delete, target, kinds.POD, "p", grace=grace))
        assert out == "REQUEST_INVALID"
    assert delete(target, kinds.POD, "p", dry_run=True, grace=86_400)
    assert get(target, kinds.POD, "p") == obj
    assert delete(target, kinds.POD, "p", uid=uid, revision=revision, grace=0)


def test_a_dry_run_writes_nothing() -> None:
    """A dry run answers as the call would, and leaves the store alone."""
    target = bench()
    create(target, pod_text())
    revision = target.store.revision
    assert create(target, pod_text("q"), dry_run=True)["metadata"]["name"] == "q"
    patched = target.engine.patch(
        kinds.POD, "", "p", '{"metadata":{"labels":{"x":"1"}}}', target.now, "", False, True
    )  # fmt: skip
    assert patched.obj["metadata"]["labels"] == {"x": "1"}
    assert target.store.revision == revision
    target.engine.patch(kinds.POD, "", "p", '{"metadata":{"labels":{"x":"1"}}}', target.now, "", False, False)
    assert target.store.revision == revision + 1
    target.engine.patch(kinds.POD, "", "p", '{"metadata":{"labels":{"x":"1"}}}', target.now, "", False, False)
    assert target.store.revision == revision + 1


def test_patches_that_cannot_be_used() -> None:
    """A patch may neither change kind or version, nor name another object or an old version."""
    target = bench()
    obj = create(target, pod_text())

    def patch(change: dict[str, Any]) -> Any:
        return target.engine.patch(kinds.POD, "", "p", json.dumps(change), target.now, "", False, False)

    assert refusal(InvalidArgument, lambda: patch({"kind": "Node"})) == "PATCH_MALFORMED"
    assert refusal(InvalidArgument, lambda: patch({"apiVersion": "v2"})) == "PATCH_MALFORMED"
    assert refusal(InvalidArgument, lambda: patch({"metadata": {"name": "q"}})) == "OBJECT_INVALID"
    assert refusal(Aborted, lambda: patch({"metadata": {"resourceVersion": "1"}})) == "CONFLICT"
    patch({"metadata": {"labels": {"x": "1"}, "resourceVersion": obj["metadata"]["resourceVersion"]}})


def test_request_ids_are_bounded() -> None:
    """A request id has at most 64 characters; the same one gives the same object whatever else is asked."""
    target = bench()
    assert refusal(InvalidArgument, lambda: create(target, pod_text(), "r" * 65)) == "REQUEST_INVALID"
    first = create(target, pod_text(), "r" * 64)
    assert create(target, pod_text("other"), "r" * 64)["metadata"]["uid"] == first["metadata"]["uid"]
    assert create(target, pod_text("other"))["metadata"]["name"] == "other"


def test_scaling_has_bounds() -> None:
    """0 to 100,000 replicas may be asked for, under the count and version that the caller saw."""
    target = bench()
    target.engine.apply(ONE, "", target.now, "", False)

    def scale(replicas: int, current: int | None = None, revision: int = 0) -> Object:
        args = (kinds.DEPLOYMENT, "", "hello", replicas, target.now, "00-t", current, revision)
        return target.engine.scale(*args).obj

    assert refusal(InvalidArgument, lambda: scale(100_001)) == "OBJECT_INVALID"
    assert refusal(Aborted, lambda: scale(2, current=5)) == "CONFLICT"
    assert refusal(Aborted, lambda: scale(2, revision=1)) == "CONFLICT"
    assert scale(0)["spec"]["replicas"] == 0
    obj = scale(100_000, current=0, revision=target.store.revision)
    assert obj["spec"]["replicas"] == 100_000
    assert obj["metadata"]["annotations"]["lamina.dev/traceparent"] == "00-t"


def test_manifests_bring_their_namespace() -> None:
    """A manifest may bring a namespace with what is in it, names nothing twice, and is written as a whole."""
    target = bench()
    space, inside = text(kinds.NAMESPACE, "team"), text(kinds.POD, "p", "team", spec=json.loads(pod_text())["spec"])

    def apply(*objects: str, dry_run: bool = False) -> list[str]:
        applied = target.engine.apply("\n---\n".join(objects), "", target.now, "", dry_run)
        return [one.action for one in applied]

    assert refusal(NotFound, lambda: apply(inside)) == "NAMESPACE_NOT_FOUND"
    assert refusal(InvalidArgument, lambda: apply(space, inside, inside)) == "MANIFEST_MALFORMED"
    assert apply(space, inside, dry_run=True) == ["created", "created"]
    assert apply(inside, space) == ["created", "created"]
    assert apply(space, inside) == ["unchanged", "unchanged"]
    generated = json.dumps({**json.loads(pod_text()), "metadata": {"generateName": "g-"}})
    assert apply(generated, generated) == ["created", "created"]


def test_pages_of_a_listing() -> None:
    """Pages continue behind the last object, with a token that only this listing takes; the last has none."""
    target = bench()
    for name in "abc":
        create(target, pod_text(name))
    first = target.engine.list(Query(kinds.POD, "default"), 2, "", target.now)
    assert [stored.obj["metadata"]["name"] for stored in first.objects] == ["a", "b"]
    assert first.revision == target.store.revision
    create(target, pod_text("d"))
    second = target.engine.list(Query(kinds.POD, "default"), 2, first.next_token, target.now)
    assert [stored.obj["metadata"]["name"] for stored in second.objects] == ["c"]
    assert (second.next_token, second.revision) == ("", first.revision)
    exact = target.engine.list(Query(kinds.POD, "default"), 4, "", target.now)
    assert (len(exact.objects), exact.next_token) == (4, "")
    for query, token in (
        (Query(kinds.NODE), first.next_token),
        (Query(kinds.POD, "team"), first.next_token),
        (Query(kinds.POD), "x" * 2000),
        (Query(kinds.POD), "é"),
        (Query(kinds.POD), "eCBwb2RzLw=="),
    ):
        call = lambda query=query, token=token: target.engine.list(query, 2, token, target.now)  # noqa: E731
        assert refusal(InvalidArgument, call) == "PAGE_TOKEN_INVALID"
    sparse = target.engine.list(Query(kinds.POD, "", "", "metadata.name=d"), 1, "", target.now)
    assert [stored.obj["metadata"]["name"] for stored in sparse.objects] == ["d"]


def test_watches_begin_where_they_are_told() -> None:
    """A watch begins behind a revision or now; a future one is refused, and initial events with a revision too."""
    target = bench()
    create(target, pod_text("a"))
    revision = target.store.revision
    now = target.engine.watch(Query(kinds.POD), 0, False, False)
    behind = target.engine.watch(Query(kinds.POD), revision - 1, False, False)
    create(target, pod_text("b"))
    assert [event.stored.obj["metadata"]["name"] for event in now.next(9)] == ["b"]
    assert [event.stored.obj["metadata"]["name"] for event in behind.next(9)] == ["a", "b"]
    newest = target.store.revision
    target.engine.watch(Query(kinds.POD), newest, False, False)
    assert refusal(OutOfRange, lambda: target.engine.watch(Query(kinds.POD), newest + 1, False, False)) == (
        "REVISION_FUTURE"
    )
    assert refusal(InvalidArgument, lambda: target.engine.watch(Query(kinds.POD), 1, True, False)) == "REQUEST_INVALID"
    target.store.compact(revision)
    target.engine.watch(Query(kinds.POD), revision, False, False)
    assert refusal(OutOfRange, lambda: target.engine.watch(Query(kinds.POD), revision - 1, False, False)) == (
        "REVISION_COMPACTED"
    )
    first = target.engine.watch(Query(kinds.POD, "", "", "metadata.name=b"), 0, True, False).next(9)
    assert [event.type for event in first] == ["ADDED", "BOOKMARK"]


def test_logs_are_where_the_container_is() -> None:
    """The output of a pod's container is found by name and run, and what is not there is refused in its own words."""
    target = bench("h1")
    create(target, pod_text(initContainers=[{"name": "init", "image": "x"}], nodeSelector={"no": "where"}))
    find = target.engine.log_source
    assert refusal(FailedPrecondition, lambda: find("", "p", "", False)) == "CONTAINER_NOT_STARTED"
    assert refusal(NotFound, lambda: find("", "p", "other", False)) == "CONTAINER_NOT_FOUND"
    assert refusal(FailedPrecondition, lambda: find("", "p", "init", False)) == "CONTAINER_NOT_STARTED"
    two = [{"name": name, "image": "x"} for name in ("a", "b")]
    create(target, pod_text("two", containers=two, nodeSelector={"no": "where"}))
    assert refusal(InvalidArgument, lambda: find("", "two", "", False)) == "CONTAINER_REQUIRED"
    delete(target, kinds.POD, "p")
    create(target, pod_text())
    work(target)
    uid = get(target, kinds.POD, "p")["metadata"]["uid"]
    source = find("", "p", "", False)
    assert (source.node, source.container) == ("h1", f"c-{uid}-0")
    assert refusal(FailedPrecondition, lambda: find("", "p", "main", True)) == "NO_PREVIOUS_CONTAINER"
    ended(target, 0)
    work(target)
    assert (find("", "p", "main", True).container, find("", "p", "", False).container) == (f"c-{uid}-0", f"c-{uid}-1")


def test_steps_carry_trace_and_cause() -> None:
    """A step names the trace that its pod remembers, and why it is taken."""
    target = bench("h1")
    target.engine.create(pod_text(), "", target.now, "00-abc", False, "")
    (step,) = steps(target.settle())
    assert (step.node, step.traceparent, step.pod.resource_name) == ("h1", "00-abc", "namespaces/default/pods/p")
    assert step.cause
    assert answer(step, {RunSandboxCall: SandboxState("s", step.uid, 0, True)})
