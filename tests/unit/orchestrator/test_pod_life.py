"""A pod on its node: what is known, what comes next, what is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START, pod, running

from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, NotFound, Unavailable
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    REMOVED,
    RUNNING,
    ContainerState,
    Image,
    SandboxState,
)
from lamina_orchestrator.domain.pods.record import PodRecord, Trouble, observe, rebuild
from lamina_orchestrator.domain.pods.spec import requested, sandbox_spec
from lamina_orchestrator.domain.pods.status import pod_status, qos_class
from lamina_orchestrator.domain.pods.steps import (
    ContainerFailed,
    ContainersStopped,
    SandboxRemoved,
    SandboxRuns,
    WorkFailed,
    step_of,
)
from lamina_orchestrator.domain.pods.work import (
    Gone,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainers,
    StopSandbox,
    Wait,
    begun,
    container_failed,
    next_work,
)

READY = SandboxState("s0", "u", 0, True)


def bound(**spec: Any) -> Object:
    """A pod bound to a node and not yet started."""
    obj = pod(**spec)
    return {**obj, "spec": {**obj["spec"], "nodeName": "h1"}}


def run(state: str = RUNNING, attempt: int = 0, name: str = "main", **fields: Any) -> ContainerState:
    """A run of a container."""
    return ContainerState(f"c-{name}-{attempt}", "s0", "u", name, attempt, state, **fields)


def record(*runs: ContainerState, sandbox: SandboxState | None = READY) -> PodRecord:
    """A record with runs."""
    made = PodRecord("u", START, sandbox, 1 if sandbox else 0)
    for one in runs:
        made = observe(made, one)
    return made


def test_a_pod_starts_step_by_step() -> None:
    """First the sandbox, then each container in order, then nothing until something changes."""
    two = bound(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    assert next_work(two, record(sandbox=None), START) == RunSandbox(0)
    work = next_work(two, record(), START)
    assert isinstance(work, StartContainer) and work.container["name"] == "a"
    work = next_work(two, record(run(name="a")), START)
    assert isinstance(work, StartContainer) and work.container["name"] == "b"
    assert next_work(two, record(run(name="a"), run(name="b")), START) == Wait()


def test_a_lost_sandbox_is_replaced() -> None:
    """A sandbox that is not ready is replaced by one of the next attempt."""
    lost = replace(READY, ready=False)
    assert next_work(bound(), record(sandbox=lost), START) == RunSandbox(1, "s0")


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, code: int, restarts: bool) -> None:
    """An ended container starts again as its pod's policy says."""
    obj = bound(restartPolicy=policy)
    known = record(run(EXITED, exit_code=code, finished_ns=START))
    assert isinstance(next_work(obj, known, START), StartContainer) is restarts


def test_restarts_back_off() -> None:
    """The second restart waits 10 s from the exit, and the oldest run is discarded when a third is made."""
    obj = bound()
    known = record(run(EXITED, exit_code=1, finished_ns=START))
    work = next_work(obj, known, START)
    assert isinstance(work, StartContainer)
    assert (work.attempt, work.discard) == (1, ())
    known = observe(begun(known, work, START), run(EXITED, 1, exit_code=1, finished_ns=START + SECOND))
    assert next_work(obj, known, START + SECOND) == Wait(START + 11 * SECOND)
    work = next_work(obj, known, START + 11 * SECOND)
    assert isinstance(work, StartContainer)
    assert (work.attempt, work.discard) == (2, ("c-main-0",))


def test_troubled_starts_wait() -> None:
    """A container that could not be started is tried again after 10 s, as the same attempt if it was created."""
    known = container_failed(record(run(CREATED)), "main", "RunContainerError", "no", START)
    assert next_work(bound(), known, START) == Wait(START + 10 * SECOND)
    work = next_work(bound(), known, START + 10 * SECOND)
    assert isinstance(work, StartContainer) and work.attempt == 0


def test_deletion_tears_down() -> None:
    """A deleted pod stops its containers with its grace, then its sandbox goes, then nothing is left."""
    leaving = bound()
    leaving["metadata"].update(deletionTimestamp="2026-01-01T00:00:30Z", deletionGracePeriodSeconds=30)
    assert next_work(leaving, record(run()), START) == StopContainers(("c-main-0",), 30 * SECOND)
    assert next_work(None, record(run()), START) == StopContainers(("c-main-0",), 0)
    assert next_work(leaving, record(run(EXITED)), START) == RemoveSandbox("s0")
    assert next_work(leaving, record(sandbox=None), START) == Gone()


def test_ended_pods_stop_their_sandbox() -> None:
    """A pod that has ended keeps its containers for their logs and stops its sandbox."""
    ended = bound(restartPolicy="Never")
    ended["status"] = {"phase": "Succeeded"}
    known = record(run(EXITED))
    assert next_work(ended, known, START) == StopSandbox("s0")
    assert next_work(ended, record(run(EXITED), sandbox=replace(READY, ready=False)), START) == Wait()


def test_old_news_changes_nothing() -> None:
    """A report that is older than what is known is ignored; a removal of a running container is an end."""
    known = record(run(EXITED, 1))
    assert observe(known, run(RUNNING, 1)) == known
    assert observe(known, run(RUNNING, 0)) == known
    lost = observe(record(run()), run(REMOVED)).container("main").current
    assert lost is not None and (lost.state, lost.exit_code) == (EXITED, 137)


def test_records_are_rebuilt_from_a_listing() -> None:
    """A listing gives the newest two runs and the back-off; what ran and is not listed counts as lost."""
    known = rebuild("u", START, [READY], [run(EXITED, 0, finished_ns=5), run(RUNNING, 1)])
    main = known.container("main")
    assert main.current is not None and main.previous is not None
    assert (main.current.attempt, main.previous.attempt, main.crash.delay_ns) == (1, 0, 10 * SECOND)
    again = rebuild("u", START, [], [], known)
    lost = again.container("main").current
    assert lost is not None and (lost.state, lost.reason) == (EXITED, "ContainerStatusUnknown")
    assert again.sandbox_attempts == 1


def shown(obj: Object, known: PodRecord, now: int = START) -> dict[str, Any]:
    """The status of a pod."""
    return pod_status(obj, known, now)


def test_phases() -> None:
    """Phases follow the containers: Pending until all started, Running, then Succeeded or Failed."""
    never = bound(restartPolicy="Never")
    assert shown(bound(), record())["phase"] == "Pending"
    assert shown(bound(), record(run()))["phase"] == "Running"
    assert shown(bound(), record(run(EXITED)))["phase"] == "Running"
    assert shown(never, record(run(EXITED)))["phase"] == "Succeeded"
    assert shown(never, record(run(EXITED, exit_code=1)))["phase"] == "Failed"
    two = bound(restartPolicy="Never", containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    assert shown(two, record(run(EXITED, name="a"), run(name="b")))["phase"] == "Running"
    init = bound(restartPolicy="Never", initContainers=[{"name": "i", "image": "x"}])
    assert shown(init, record(run(EXITED, name="i", exit_code=1)))["phase"] == "Failed"


def test_container_states() -> None:
    """A status shows running, terminated, waiting with its trouble, and CrashLoopBackOff while it waits."""
    status = shown(bound(), record(run(started_ns=START)))["containerStatuses"][0]
    assert status["state"] == {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert (status["ready"], status["started"], status["containerID"]) == (True, True, "lamina://c-main-0")
    troubled = record()
    troubled = replace(troubled, trouble=Trouble("FailedCreatePodSandBox", "no room", START))
    waiting = shown(bound(), troubled)["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "FailedCreatePodSandBox", "message": "no room"}
    known = record(run(EXITED, exit_code=1, finished_ns=START))
    work = next_work(bound(), known, START)
    known = observe(begun(known, work, START), run(EXITED, 1, exit_code=2, finished_ns=START + SECOND))
    looping = shown(bound(), known, START + 2 * SECOND)["containerStatuses"][0]
    assert looping["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert looping["lastState"]["terminated"]["exitCode"] == 2
    assert looping["restartCount"] == 1


def test_conditions_move_once() -> None:
    """Ready turns True with a transition time that stays while it does not change."""
    obj = bound()
    first = shown(obj, record(run()))
    later = shown({**obj, "status": first}, record(run()), START + 60 * SECOND)
    assert later == first
    ready = next(found for found in first["conditions"] if found["type"] == "Ready")
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", "2026-01-01T00:00:00Z")
    ended = shown({**obj, "status": first}, record(run(EXITED)), START + 60 * SECOND)
    ready = next(found for found in ended["conditions"] if found["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")


def test_resources() -> None:
    """Requests add up, init containers count if larger, and the class of service follows from both."""
    half = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
    containers = [{"name": "a", "image": "x", "resources": half}, {"name": "b", "image": "x", "resources": half}]
    spec = bound(containers=containers)["spec"]
    assert requested(spec) == (1000, 2 << 30)
    assert qos_class(spec) == "Guaranteed"
    assert qos_class(bound()["spec"]) == "BestEffort"
    big = [{"name": "i", "image": "x", "resources": {"requests": {"cpu": "3"}}}]
    spec = bound(containers=containers, initContainers=big)["spec"]
    assert requested(spec) == (3000, 2 << 30)
    assert qos_class(spec) == "Burstable"
    assert sandbox_spec(running(pod("x" * 80)), 0).hostname == "x" * 63


def walk(step: Any, *answers: Any) -> Any:
    """Runs a step with the given answers; an error is raised inside it."""
    try:
        next(step)
        for answer in answers:
            if isinstance(answer, LaminaError):
                step.throw(answer)
            else:
                step.send(answer)
    except StopIteration as end:
        return end.value
    raise AssertionError("the step wants more")


def test_steps_return_how_far_they_came() -> None:
    """A step turns each failure of the runtime into an outcome with a reason that a status can show."""
    obj = bound()
    away = Unavailable("away", reason="AWAY")
    work = StartContainer(obj["spec"]["containers"][0], 0)
    image, created = Image("i", "sha256:1"), run(CREATED)
    assert walk(step_of("h1", obj, RunSandbox(0), ""), READY) == SandboxRuns(READY)
    assert walk(step_of("h1", obj, RunSandbox(1, "s0"), ""), None, READY) == SandboxRuns(READY)
    failed = walk(step_of("h1", obj, RunSandbox(0), ""), away)
    assert isinstance(failed, WorkFailed) and failed.reason == "FailedCreatePodSandBox"
    cases = [
        ((NotFound("no", reason="IMAGE_UNKNOWN"),), "ErrImagePull", False),
        ((InvalidArgument("no", reason="REFERENCE_MALFORMED"),), "InvalidImageName", False),
        ((image, NotFound("no", reason="SANDBOX_UNKNOWN")), "CreateContainerError", True),
        ((image, created, FailedPrecondition("no", reason="SANDBOX_NOT_READY")), "RunContainerError", True),
        ((image, created, away), "RunContainerError", False),
    ]
    for answers, reason, lost in cases:
        outcome = walk(step_of("h1", obj, work, "s0"), *answers)
        assert isinstance(outcome, ContainerFailed)
        assert (outcome.reason, outcome.sandbox_lost) == (reason, lost)
    never = {**work.container, "imagePullPolicy": "Never"}
    outcome = walk(step_of("h1", obj, StartContainer(never, 0), "s0"), NotFound("no", reason="IMAGE_UNKNOWN"))
    assert isinstance(outcome, ContainerFailed) and outcome.reason == "ErrImageNeverPull"
    assert walk(step_of("h1", None, StopContainers(("c",), 5), ""), (run(EXITED),)) == ContainersStopped((run(EXITED),))
    assert isinstance(walk(step_of("h1", None, RemoveSandbox("s"), ""), None), SandboxRemoved)
    gone = NotFound("no", reason="SANDBOX_UNKNOWN")
    assert isinstance(walk(step_of("h1", None, StopSandbox("s"), ""), gone), SandboxRemoved)
