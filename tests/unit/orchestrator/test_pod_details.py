"""A pod on its node in detail: its words for the runtime, records, pauses, statuses, steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.orchestrator.objects_made import START, pod
from tests.unit.orchestrator.test_pod_life import READY, bound, record, run

from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.pods.backoff import Backoff, after_tries
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    HOST_LOST,
    REMOVED,
    RUNNING,
    Limits,
    SandboxState,
)
from lamina_orchestrator.domain.pods.record import Trouble, observe, rebuild
from lamina_orchestrator.domain.pods.spec import container_spec, expand, field_value, limits, requested, sandbox_spec
from lamina_orchestrator.domain.pods.status import (
    may_restart,
    qos_class,
)
from lamina_orchestrator.domain.pods.work import (
    RunSandbox,
    StartContainer,
    StopContainers,
    Wait,
    begun,
    container_failed,
    container_started,
    next_work,
    sandbox_failed,
)

INIT = [{"name": "i", "image": "x:1"}, {"name": "j", "image": "x:1"}]


# ── what the runtime is told ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_sandbox_is_the_pods() -> None:
    """A sandbox carries the pod's name, namespace, uid, attempt and labels, and its host name or a given one."""
    obj = pod("web", labels={"app": "a"})
    spec = sandbox_spec(obj, 3)
    uid = obj["metadata"]["uid"]
    assert (spec.pod_name, spec.pod_namespace, spec.pod_uid, spec.attempt) == ("web", "default", uid, 3)
    assert spec.labels == (
        ("app", "a"),
        ("io.kubernetes.pod.name", "web"),
        ("io.kubernetes.pod.namespace", "default"),
        ("io.kubernetes.pod.uid", uid),
    )
    assert spec.hostname == "web"
    assert sandbox_spec(pod("web", hostname="other"), 0).hostname == "other"
    assert sandbox_spec(pod("x" * 62 + ".y"), 0).hostname == "x" * 62


def test_a_container_is_as_the_spec_says() -> None:
    """Command, arguments and environment are expanded, and labels name the container and the restart."""
    obj = pod(container={
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(C)-$$(A)-$"},
            {"name": "C", "value": "3"},
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "EMPTY"},
        ],
        "command": ["run", "$(A)$(NO)"], "args": ["$(WHO)"], "workingDir": "/w",
        "resources": {"limits": {"cpu": "2", "memory": "1Mi"}, "requests": {"cpu": "500m"}},
    })  # fmt: skip
    made = container_spec(obj, obj["spec"]["containers"][0], 2, "sha256:1")
    assert made.env == ("A=1", "B=1-$(C)-$(A)-$", "C=3", "WHO=p", "EMPTY=")
    assert (made.command, made.args, made.working_dir, made.image) == (("run", "1$(NO)"), ("p",), "/w", "sha256:1")
    assert (made.name, made.attempt) == ("main", 2)
    assert made.limits == Limits(500, 2000, 1 << 20)
    assert dict(made.labels)["io.kubernetes.container.name"] == "main"
    assert dict(made.labels)["io.kubernetes.container.restartCount"] == "2"
    plain = pod()
    bare = container_spec(plain, plain["spec"]["containers"][0], 0, "i")
    assert (bare.env, bare.command, bare.args, bare.working_dir, bare.limits) == ((), (), (), "", Limits())
    assert expand("$", {}) == "$"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"), ("metadata.namespace", "default"), ("spec.nodeName", "h1"),
        ("spec.serviceAccountName", "default"), ("metadata.labels['app']", "a"), ("metadata.labels['no']", ""),
        ("metadata.annotations['app']", "noted"), ("status.podIP", "10.0.0.1"), ("status.hostIP", ""),
    ],
)  # fmt: skip
def test_fields_of_the_pod_are_given_to_it(path: str, value: str) -> None:
    """Each field of the downward API reads as the pod's; one that it does not have is empty."""
    obj = bound()
    obj["metadata"]["annotations"] = {"app": "noted"}
    obj["status"]["podIP"] = "10.0.0.1"
    assert field_value(obj, path) == value


def test_requests_of_init_containers_count_when_larger() -> None:
    """Init containers run one by one before the others: each resource counts as its largest need at one time."""
    asks = {"requests": {"cpu": "100m", "memory": "5"}}
    spec = bound(container={"resources": asks}, initContainers=[
        {"name": "i", "image": "x", "resources": {"requests": {"cpu": "50m", "memory": "7"}}},
        {"name": "j", "image": "x", "resources": {"requests": {"cpu": "90m"}}},
    ])["spec"]  # fmt: skip
    assert requested(spec) == (100, 7)
    assert requested(bound()["spec"]) == (0, 0)
    assert limits({}) == Limits()


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "0"}}, "Burstable"),
        ({"limits": {"cpu": "1000m", "memory": "1Ki"}, "requests": {"cpu": "1", "memory": "1024"}}, "Guaranteed"),
    ],
)
def test_the_class_of_service_follows_the_requests(resources: dict[str, Any], wanted: str) -> None:
    """Guaranteed when every request is its limit, BestEffort when nothing is named, Burstable between."""
    assert qos_class(bound(container={"resources": resources})["spec"]) == wanted


def test_one_container_decides_the_class() -> None:
    """One container without limits makes a pod Burstable, whichever of both kinds it is."""
    full = {"resources": {"limits": {"cpu": "1", "memory": "1"}}}
    assert qos_class(bound(container=full, initContainers=INIT)["spec"]) == "Burstable"
    two = [{"name": "a", "image": "x", **full}, {"name": "b", "image": "x"}]
    assert qos_class(bound(containers=two)["spec"]) == "Burstable"


# ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_newer_run_moves_the_older_one_back() -> None:
    """The newest run is the current one, the one before is kept, and what troubled the start is over."""
    known = container_failed(record(run(EXITED, 0)), "main", "RunContainerError", "no", START)
    after = observe(known, run(CREATED, 1)).container("main")
    assert after.current is not None and after.previous is not None
    assert (after.current.attempt, after.previous.attempt, after.trouble) == (1, 0, None)
    third = observe(observe(known, run(CREATED, 1)), run(CREATED, 2)).container("main")
    assert third.previous is not None and third.previous.attempt == 1
    assert third.restarts == 2
    assert record().container("main").restarts == 0


def test_trouble_lasts_until_the_run_moves_on() -> None:
    """A container that is still just created keeps its trouble; one that runs has none."""
    known = container_failed(record(run(CREATED)), "main", "RunContainerError", "no", START)
    assert observe(known, run(CREATED)).container("main").trouble is not None
    assert observe(known, run(RUNNING)).container("main").trouble is None
    assert container_started(known, "main").container("main").trouble is None


def test_removals_of_ended_runs_leave_the_news() -> None:
    """A removed run that had ended stays known; the removal of the one before forgets just that."""
    known = observe(record(run(EXITED, 0)), run(EXITED, 1, exit_code=3))
    assert observe(known, run(REMOVED, 1)) == known
    after = observe(known, run(REMOVED, 0)).container("main")
    assert after.previous is None
    assert after.current is not None and after.current.exit_code == 3
    other = replace(run(REMOVED, 1), name="another")
    assert observe(known, other) == known


def test_what_runs_is_created_or_running() -> None:
    """Runs that are created or running have not ended."""
    known = record(run(CREATED, name="a"), run(RUNNING, name="b"), run(EXITED, name="c"))
    assert [one.container for one in known.running()] == ["a", "b"]


def test_rebuilding_takes_the_newest_sandbox() -> None:
    """Of several sandboxes the newest attempt counts; attempts never go back, and the pod was seen when it was."""
    old, new = SandboxState("s0", "u", 0, False), SandboxState("s1", "u", 1, True)
    known = rebuild("u", START, [new, old], [])
    assert (known.sandbox, known.sandbox_attempts, known.seen_ns) == (new, 2, START)
    again = rebuild("u", START + 5, [old], [], replace(known, sandbox_attempts=7))
    assert (again.sandbox, again.sandbox_attempts, again.seen_ns) == (old, 7, START)
    assert rebuild("u", START, [], []).sandbox_attempts == 0


def test_rebuilding_counts_restarts_into_the_back_off() -> None:
    """A first run has no back-off; the second counts one try from the end of the first, or from its own beginning."""
    assert rebuild("u", START, [READY], [run(RUNNING, 0)]).container("main").crash.delay_ns == 0
    known = rebuild("u", START, [READY], [run(RUNNING, 2), run(EXITED, 1, finished_ns=7)])
    assert known.container("main").crash == Backoff(20 * SECOND, 7)
    alone = rebuild("u", START, [READY], [run(RUNNING, 1, created_ns=9)])
    assert alone.container("main").crash == Backoff(10 * SECOND, 9)


def test_what_is_not_listed_any_more_is_lost() -> None:
    """A run that is gone without a trace ended now with 137; one that had ended keeps how it did."""
    before = record(run(RUNNING, name="a"), run(EXITED, name="b", exit_code=0, finished_ns=5))
    known = rebuild("u", START + 9, [READY], [], before)
    lost, ended = known.container("a").current, known.container("b").current
    assert lost is not None and ended is not None
    assert (lost.state, lost.exit_code, lost.reason, lost.finished_ns) == (
        EXITED, 137, "ContainerStatusUnknown", START + 9,
    )  # fmt: skip
    assert (ended.exit_code, ended.finished_ns) == (0, 5)


# ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pause_is_forgotten_after_ten_minutes() -> None:
    """A run of exactly ten minutes still pauses, a longer one does not."""
    paused = Backoff(40 * SECOND, START)
    assert paused.ready_at(START + 600 * SECOND) == START + 640 * SECOND
    assert paused.ready_at(START + 600 * SECOND + 1) == START + 600 * SECOND + 1
    assert paused.advanced(START + 600 * SECOND).delay_ns == 80 * SECOND
    assert paused.advanced(START + 600 * SECOND + 1) == Backoff(10 * SECOND, START + 600 * SECOND + 1)
    assert after_tries(2, 5) == Backoff(20 * SECOND, 5)


def test_a_run_that_its_host_took_down_starts_at_once() -> None:
    """The first run lost with its host does not wait; a second in a row does."""
    known = begun(record(run(EXITED, 0, finished_ns=START)), StartContainer({"name": "main"}, 1), START)
    lost = run(EXITED, 1, reason=HOST_LOST, finished_ns=START)
    assert next_work(bound(), observe(known, lost), START).__class__ is StartContainer
    twice = observe(observe(known, lost), run(EXITED, 2, reason=HOST_LOST, finished_ns=START))
    assert next_work(bound(), twice, START) == Wait(START + 10 * SECOND)
    crashed = observe(known, run(EXITED, 1, reason="Error", finished_ns=START))
    assert next_work(bound(), crashed, START) == Wait(START + 10 * SECOND)


def test_starts_that_fail_pause_longer_and_longer() -> None:
    """A container that does not start is tried after 10 s, then 20 s; of two pauses the later counts."""
    known = container_failed(record(), "main", "ErrImagePull", "no", START)
    assert known.container("main").trouble == Trouble("ErrImagePull", "no", START + 10 * SECOND)
    known = container_failed(known, "main", "ErrImagePull", "no", START + 10 * SECOND)
    assert next_work(bound(), known, START + 10 * SECOND) == Wait(START + 30 * SECOND)
    ended = record(run(EXITED, 0, exit_code=1, finished_ns=START))
    troubled = container_failed(ended, "main", "ErrImagePull", "no", START)
    assert next_work(bound(), troubled, START + 9 * SECOND) == Wait(START + 10 * SECOND)
    assert isinstance(next_work(bound(), troubled, START + 10 * SECOND), StartContainer)


def test_a_sandbox_that_fails_is_tried_after_a_pause() -> None:
    """Work on a sandbox that failed waits 10 s, then 20 s, whether the pod starts, ends or is deleted."""
    known = sandbox_failed(record(), "FailedCreatePodSandBox", "no", START)
    assert known.trouble == Trouble("FailedCreatePodSandBox", "no", START + 10 * SECOND)
    assert known.container("main").trouble is None
    ended = {**bound(), "status": {"phase": "Failed"}}
    missing = replace(known, sandbox=None)
    for obj, wanted in ((bound(), RunSandbox(1)), (None, None), (ended, None)):
        at_hand = missing if obj is not None and obj is not ended else known
        assert next_work(obj, at_hand, START + 10 * SECOND - 1) == Wait(START + 10 * SECOND)
        due = next_work(obj, at_hand, START + 10 * SECOND)
        assert not isinstance(due, Wait)
        assert wanted in (None, due)
    again = sandbox_failed(known, "x", "y", START + 10 * SECOND)
    assert again.trouble is not None and again.trouble.retry_ns == START + 30 * SECOND


def test_beginning_counts_only_what_it_begins() -> None:
    """A sandbox counts its attempt; a first start and a stop advance no pause, a restart does."""
    assert begun(record(sandbox=None), RunSandbox(3), START).sandbox_attempts == 4
    first = StartContainer({"name": "main"}, 0)
    assert begun(record(), first, START) == record()
    assert begun(record(run(CREATED)), first, START) == record(run(CREATED))
    assert begun(record(run()), StopContainers(("c",), 0), START) == record(run())
    ended = record(run(EXITED, finished_ns=7))
    assert begun(ended, StartContainer({"name": "main"}, 1), START).container("main").crash == Backoff(10 * SECOND, 7)


# ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_init_containers_run_one_by_one() -> None:
    """Each init container has to succeed before the next starts, and all before the others."""
    obj = bound(initContainers=INIT)

    def started(*runs: Any) -> str:
        work = next_work(obj, record(*runs), START)
        return str(work.container["name"]) if isinstance(work, StartContainer) else type(work).__name__

    done = run(EXITED, name="i")
    assert started() == "i"
    assert started(run(name="i")) == "Wait"
    assert started(done) == "j"
    assert started(done, run(EXITED, name="j", exit_code=1, finished_ns=START - 99 * SECOND)) == "j"
    assert started(done, run(EXITED, name="j")) == "main"
    never = bound(initContainers=INIT, restartPolicy="Never")
    assert next_work(never, record(run(EXITED, name="i", exit_code=1)), START) == Wait()


def test_the_earliest_of_several_waits_counts() -> None:
    """Of containers that wait the one that is due first decides when to look again."""
    obj = bound(containers=[{"name": name, "image": "x"} for name in ("a", "b", "c")])
    known = record(run(name="c"))
    known = container_failed(known, "a", "ErrImagePull", "no", START + 5)
    known = container_failed(known, "b", "ErrImagePull", "no", START + 1)
    assert next_work(obj, known, START + 6) == Wait(START + 1 + 10 * SECOND)


@pytest.mark.parametrize(
    ("policy", "init", "code", "restarts"),
    [
        ("Always", False, 0, True), ("Always", False, 1, True), ("OnFailure", False, 0, False),
        ("OnFailure", False, 1, True), ("Never", False, 0, False), ("Never", False, 1, False),
        ("Always", True, 0, False), ("Always", True, 1, True), ("OnFailure", True, 1, True), ("Never", True, 1, False),
    ],
)  # fmt: skip
def test_who_runs_again(policy: str, init: bool, code: int, restarts: bool) -> None:
    """An ended container runs again as the policy says; an init container only until it succeeds."""
    assert may_restart({"restartPolicy": policy}, run(EXITED, exit_code=code), init=init) is restarts
    assert may_restart({}, run(EXITED))
