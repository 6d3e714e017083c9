"""What callers ask of the engine: bounds, preconditions, pages, watches, logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.contract.orchestrator.test_engine import answer
from tests.unit.orchestrator.test_engine_pods import ended
from tests.unit.orchestrator.test_engine_rules import (
    ONE,
    bench,
    create,
    delete,
    get,
    pod_text,
    steps,
    text,
    work,
)

from lamina_kit.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
    OutOfRange,
)
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.plain_object import Object
from lamina_orchestrator.domain.pods.containers import SandboxState
from lamina_orchestrator.domain.pods.effects import (
    RunSandboxCall,
)
from lamina_orchestrator.engines.interface import (
    Query,
)


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
