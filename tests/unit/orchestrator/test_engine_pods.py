"""A pod's life as the engine drives it: steps, Events, crashes, what belongs to nobody."""

from __future__ import annotations

from tests.contract.orchestrator.test_engine import SECOND, Bench
from tests.unit.orchestrator.test_engine_rules import (
    bench,
    create,
    delete,
    events,
    get,
    listed,
    perform,
    pod_text,
    steps,
    work,
)

from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.pods.containers import EXITED, RUNNING, ContainerState, SandboxState
from lamina_orchestrator.domain.pods.effects import (
    ResolveImage,
    RunSandboxCall,
)
from lamina_orchestrator.engines.interface import (
    ContainerSeen,
    NodeAnswers,
    NodeSilent,
    StepDone,
)


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
