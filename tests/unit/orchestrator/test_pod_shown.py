"""What is shown of a pod in detail, and the steps that a pod takes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START
from tests.unit.orchestrator.test_pod_details import INIT
from tests.unit.orchestrator.test_pod_life import READY, bound, record, run, shown, walk

from lamina_kit.errors import FailedPrecondition, Internal, InvalidArgument, NotFound, Unavailable
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    RUNNING,
    Image,
)
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
from lamina_orchestrator.domain.pods.record import observe
from lamina_orchestrator.domain.pods.status import (
    available_at,
    ready_since,
    terminated,
    with_condition,
)
from lamina_orchestrator.domain.pods.steps import ContainerFailed, ContainerRuns, SandboxStopped, WorkFailed, step_of
from lamina_orchestrator.domain.pods.work import (
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainers,
    StopSandbox,
    Wait,
    begun,
    container_failed,
)

# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {found["type"]: (found["status"], found.get("reason", "")) for found in status["conditions"]}


def test_conditions_of_a_pod() -> None:
    """Conditions say whether a pod is scheduled, initialized and ready, and why not."""
    obj = bound(initContainers=INIT)
    waiting = shown(obj, record())
    assert conditions(waiting) == {
        "PodScheduled": ("True", ""),
        "Initialized": ("False", "ContainersNotInitialized"),
        "ContainersReady": ("False", "ContainersNotReady"),
        "Ready": ("False", "ContainersNotReady"),
    }
    ready = next(found for found in waiting["conditions"] if found["type"] == "Ready")
    assert ready["message"] == "containers with unready status: [main]"
    done = (run(EXITED, name="i"), run(EXITED, name="j"))
    running = shown(obj, record(*done, run()))
    assert conditions(running) == dict.fromkeys(conditions(waiting), ("True", ""))
    assert all("message" not in found for found in running["conditions"])
    ended = shown(bound(restartPolicy="Never"), record(run(EXITED)))
    assert conditions(ended)["Ready"] == ("False", "PodCompleted")
    assert "message" not in next(found for found in ended["conditions"] if found["type"] == "Ready")


def test_one_unready_container_is_named() -> None:
    """A pod is ready when all of its containers are; those that are not are named."""
    obj = bound(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    status = shown(obj, record(run(name="a"), run(EXITED, name="b", exit_code=1)))
    assert conditions(status)["Ready"] == ("False", "ContainersNotReady")
    ready = next(found for found in status["conditions"] if found["type"] == "Ready")
    assert ready["message"] == "containers with unready status: [b]"


def test_init_containers_are_shown_apart() -> None:
    """Init containers have statuses of their own: ready when they succeeded; the others wait for them."""
    obj = bound(initContainers=INIT)
    status = shown(obj, record(run(EXITED, name="i"), run(EXITED, name="j", exit_code=1, finished_ns=START)))
    first, second = status["initContainerStatuses"]
    assert (first["ready"], first["state"]["terminated"]["reason"]) == (True, "Completed")
    assert (second["ready"], second["started"]) == (False, False)
    (main,) = status["containerStatuses"]
    assert main["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert "containerID" not in main
    assert (main["ready"], main["started"], main["imageID"], main["restartCount"]) == (False, False, "", 0)
    fresh = shown(obj, record())
    assert fresh["initContainerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert shown(bound(), record())["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert "initContainerStatuses" not in shown(bound(), record())


def test_ended_runs_are_shown_in_full() -> None:
    """How a run ended is shown with reason, message, code and times; without its own reason it follows the code."""
    ended = run(EXITED, exit_code=2, message="m" * 5000, started_ns=START, finished_ns=START + SECOND)
    assert terminated(ended) == {
        "containerID": "lamina://c-main-0", "exitCode": 2, "reason": "Error", "message": "m" * 4096,
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
    }  # fmt: skip
    unstarted = terminated(run(EXITED, created_ns=START + SECOND, finished_ns=START + SECOND))
    assert (unstarted["reason"], unstarted["startedAt"]) == ("Completed", "2026-01-01T00:00:01Z")
    assert "message" not in unstarted
    assert terminated(run(EXITED, exit_code=137, reason="OOMKilled"))["reason"] == "OOMKilled"


def test_states_of_a_container_that_ended() -> None:
    """An ended container shows its end, unless it waits for its restart or cannot start."""
    obj = bound()
    known = record(run(EXITED, exit_code=1, finished_ns=START))
    assert "terminated" in shown(obj, known)["containerStatuses"][0]["state"]
    crashed = begun(known, StartContainer({"name": "main"}, 1), START)
    crashed = observe(crashed, run(EXITED, 1, exit_code=1, finished_ns=START))
    looping = shown(obj, crashed, START + 10 * SECOND - 1)["containerStatuses"][0]["state"]["waiting"]
    assert looping == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=main pod=p_default",
    }
    due = shown(obj, crashed, START + 10 * SECOND)["containerStatuses"][0]
    assert "terminated" in due["state"]
    assert due["lastState"]["terminated"]["containerID"] == "lamina://c-main-0"
    leaving = {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert "terminated" in shown(leaving, crashed, START)["containerStatuses"][0]["state"]
    failed = {**obj, "status": {**obj["status"], "phase": "Failed"}}
    assert "terminated" in shown(failed, crashed, START)["containerStatuses"][0]["state"]
    troubled = container_failed(known, "main", "ErrImagePull", "gone", START)
    waiting = shown(obj, troubled)["containerStatuses"][0]
    assert waiting["state"] == {"waiting": {"reason": "ErrImagePull", "message": "gone"}}
    assert waiting["lastState"]["terminated"]["exitCode"] == 1


def test_a_running_container_shows_the_run_before() -> None:
    """While a container runs again, its last state is how the run before ended."""
    known = observe(record(run(EXITED, exit_code=3)), run(RUNNING, 1))
    status = shown(bound(), known)["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert (status["restartCount"], status["ready"], status["started"]) == (1, True, True)
    assert shown(bound(), record(run()))["containerStatuses"][0]["lastState"] == {}


def test_phases_in_detail() -> None:
    """A pod is Pending until every container was started once, and an ended phase never changes."""
    two = bound(restartPolicy="Never", containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    assert shown(two, record(run(name="a")))["phase"] == "Pending"
    assert shown(two, record(run(name="a"), run(CREATED, name="b")))["phase"] == "Pending"
    assert shown(bound(), record(run(CREATED, 1)))["phase"] == "Running"
    mixed = record(run(EXITED, name="a", exit_code=1), run(EXITED, name="b"))
    assert shown(two, mixed)["phase"] == "Failed"
    init = bound(initContainers=INIT)
    assert shown(init, record(run(), run(EXITED, name="i")))["phase"] == "Pending"
    ended = {**two, "status": {"phase": "Succeeded"}}
    assert shown(ended, record(run(name="a"), run(name="b")))["phase"] == "Succeeded"
    assert conditions(shown(ended, record(run(name="a"), run(name="b"))))["Ready"][0] == "False"


def test_a_pod_started_when_its_node_took_it_up() -> None:
    """The start time is when the node took the pod up, and stays."""
    status = shown(bound(), record(), START + 60 * SECOND)
    assert status["startTime"] == "2026-01-01T00:00:00Z"
    later = replace(record(), seen_ns=START + 5 * SECOND)
    assert shown({**bound(), "status": status}, later)["startTime"] == "2026-01-01T00:00:00Z"


def test_a_condition_moves_with_its_status_alone() -> None:
    """Another reason replaces the old one and leaves the time; another status moves it; others stay."""
    first = with_condition([], "Ready", "False", START, "A", "a")
    same = with_condition(first, "Ready", "False", START + 60 * SECOND, "B")
    assert same == [
        {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "B"}
    ]  # fmt: skip
    moved = with_condition([{"type": "Other", "status": "True"}, *same], "Ready", "True", START + 60 * SECOND)
    assert moved == [
        {"type": "Other", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"},
    ]


def test_availability_waits_behind_readiness() -> None:
    """A ready pod is available so many seconds after it became ready; one that is not ready never."""
    ready: Object = {**bound(), "status": shown(bound(), record(run()))}
    unready: Object = {**bound(), "status": shown(bound(), record())}
    assert (ready_since(ready), available_at(ready, 10)) == (START, START + 10 * SECOND)
    assert (ready_since(unready), available_at(unready, 10)) == (0, None)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def effects(step: Any, *answers: Any) -> list[Any]:
    """What a step asks for while it gets those answers."""
    found = []
    with contextlib.suppress(StopIteration):  # a step may end at the last answer
        found.append(next(step))
        for answer in answers:
            found.append(step.send(answer))
    return found


def test_steps_ask_the_right_node_in_the_right_order() -> None:
    """A step names node, sandbox and container in each call, and removes what is replaced first."""
    obj = bound()
    image, created, started = Image("i", "sha256:1"), run(CREATED), run(RUNNING)
    first, second = effects(step_of("h1", obj, RunSandbox(1, "s0"), ""), None, READY)
    assert first == RemoveSandboxCall("h1", "s0")
    assert isinstance(second, RunSandboxCall) and (second.node, second.spec.attempt) == ("h1", 1)
    work = StartContainer(obj["spec"]["containers"][0], 2, ("old",))
    asked = effects(step_of("h1", obj, work, "s0"), image, None, created, started)
    assert asked[0] == ResolveImage("h1", "x:1")
    assert asked[1] == RemoveContainerCall("h1", "old")
    assert isinstance(asked[2], CreateContainerCall)
    assert (asked[2].sandbox, asked[2].pod_uid, asked[2].spec.image) == ("s0", obj["metadata"]["uid"], "i")
    assert asked[3] == StartContainerCall("h1", "c-main-0")
    assert walk(step_of("h1", obj, work, "s0"), image, None, created, started) == ContainerRuns(started, image)
    assert effects(step_of("h1", None, StopContainers(("a", "b"), 5), "")) == [StopContainersCall("h1", ("a", "b"), 5)]
    assert effects(step_of("h1", None, StopSandbox("s"), "")) == [StopSandboxCall("h1", "s")]
    assert effects(step_of("h1", None, RemoveSandbox("s"), "")) == [RemoveSandboxCall("h1", "s")]
    assert walk(step_of("h1", None, StopSandbox("s"), ""), None) == SandboxStopped()


def test_what_cannot_be_done_says_why() -> None:
    """Each failure has a reason and a message for people; only a lost sandbox counts as lost."""
    obj = bound()
    work = StartContainer(obj["spec"]["containers"][0], 0)
    away = Unavailable("away", reason="AWAY")
    missing = walk(step_of("h1", obj, work, "s"), NotFound("no", reason="IMAGE_UNKNOWN"))
    assert missing == ContainerFailed("main", "ErrImagePull", 'image "x:1" is not on the node; import it there')
    failed = walk(step_of("h1", obj, work, "s"), away)
    assert failed == ContainerFailed("main", "ErrImagePull", f'failed to resolve image "x:1": {away.message}')
    never = StartContainer({**work.container, "imagePullPolicy": "Never"}, 0)
    assert walk(step_of("h1", obj, never, "s"), away).reason == "ErrImagePull"
    wrong = InvalidArgument("no", reason="REFERENCE_MALFORMED")
    assert walk(step_of("h1", obj, never, "s"), wrong).reason == "InvalidImageName"
    image = Image("i", "sha256:1")
    for error, lost in (
        (FailedPrecondition("no", reason="SANDBOX_UNKNOWN"), True),
        (NotFound("no", reason="IMAGE_UNKNOWN"), False),
        (Unavailable("no", reason="SANDBOX_UNKNOWN"), False),
    ):
        assert walk(step_of("h1", obj, work, "s"), image, error).sandbox_lost is lost
    stopped = walk(step_of("h1", None, StopContainers(("c",), 0), ""), away)
    removed = walk(step_of("h1", None, RemoveSandbox("s"), ""), away)
    assert stopped == removed == WorkFailed("FailedKillPod", f"error killing pod: {away.message}")
    for nothing in (Wait(), RunSandbox(0), work):
        with pytest.raises(Internal, match="no work for a runtime"):
            step_of("h1", None, nothing, "")
