"""The Objects service over the in-process channel: pages, watches, writes, and what is refused how."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from tests.contract.orchestrator.cluster import HELLO, Cluster, pod_manifest, started

from lamina_kit.errors import LaminaError
from lamina_kit.rpc.status import rpc_error

ADDED, MODIFIED, DELETED, BOOKMARK = (
    pb.WatchObjectsResponse.TYPE_ADDED,
    pb.WatchObjectsResponse.TYPE_MODIFIED,
    pb.WatchObjectsResponse.TYPE_DELETED,
    pb.WatchObjectsResponse.TYPE_BOOKMARK,
)


async def refused(call: Any) -> LaminaError:
    """The error with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc_error(caught.value)


def namespace(name: str, **metadata: Any) -> str:
    """A namespace as JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}})


async def read(stream: Any, count: int) -> list[tuple[int, str]]:
    """The next events of a watch: type and name."""
    found = []
    for _ in range(count):
        event = await asyncio.wait_for(anext(stream), 30)
        found.append((event.type, event.object.name))
    return found


async def test_pages_show_one_revision(tmp_path: Path) -> None:
    """The pages of a listing show the state of its first page, whatever is written between them."""
    async with started(tmp_path) as cluster:
        for number in range(5):
            await cluster.apply(namespace(f"n{number}"))
        names, token = [], ""
        while True:
            request = pb.ListObjectsRequest(kind="Namespace", page_size=2, page_token=token)
            page = await cluster.objects.ListObjects(request)
            names += [one.name for one in page.objects]
            token = page.next_page_token
            await cluster.apply(namespace(f"late{len(names)}"))
            if not token:
                break
        assert names == ["default", "kube-node-lease", "kube-public", "kube-system", "n0", "n1", "n2", "n3", "n4"]


async def test_old_pages_are_compacted(tmp_path: Path) -> None:
    """A page token whose revision is gone, and a watch from it, answer OUT_OF_RANGE REVISION_COMPACTED."""
    async with started(tmp_path, history_revisions=100) as cluster:
        page = await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Namespace", page_size=1))
        for number in range(260):
            await cluster.objects.CreateObject(pb.CreateObjectRequest(json=namespace(f"n{number}")))
        request = pb.ListObjectsRequest(kind="Namespace", page_size=1, page_token=page.next_page_token)
        error = await refused(cluster.objects.ListObjects(request))
        assert (error.code, error.reason) == ("OUT_OF_RANGE", "REVISION_COMPACTED")
        old = pb.WatchObjectsRequest(kind="Namespace", resource_version=page.resource_version)
        error = await refused(anext(cluster.objects.WatchObjects(old).__aiter__()))
        assert error.reason == "REVISION_COMPACTED"
        late = pb.WatchObjectsRequest(kind="Namespace", resource_version=10**6)
        error = await refused(anext(cluster.objects.WatchObjects(late).__aiter__()))
        assert error.reason == "REVISION_FUTURE"


async def test_watch_continues_a_listing(tmp_path: Path) -> None:
    """A watch from a listing's revision shows every later change once and in order."""
    async with started(tmp_path) as cluster:
        page = await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Namespace"))
        await cluster.apply(namespace("a"))
        await cluster.patch("Namespace", "a", metadata={"labels": {"x": "1"}})
        await cluster.delete("Namespace", "a")
        request = pb.WatchObjectsRequest(kind="Namespace", resource_version=page.resource_version)
        stream = cluster.objects.WatchObjects(request).__aiter__()
        events = await read(stream, 4)
        assert events == [(ADDED, "a"), (MODIFIED, "a"), (MODIFIED, "a"), (DELETED, "a")]


async def test_watch_with_selector_shows_comings_and_goings(tmp_path: Path) -> None:
    """An object that begins to match arrives as ADDED, one that stops matching as DELETED."""
    async with started(tmp_path) as cluster:
        request = pb.WatchObjectsRequest(kind="Namespace", label_selector="x=1", send_initial_events=True)
        stream = cluster.objects.WatchObjects(request).__aiter__()
        assert await read(stream, 1) == [(BOOKMARK, "")]
        await cluster.apply(namespace("a"))
        await cluster.patch("Namespace", "a", metadata={"labels": {"x": "1"}})
        await cluster.patch("Namespace", "a", metadata={"labels": {"y": "1"}})
        await cluster.patch("Namespace", "a", metadata={"labels": {"x": None}})
        assert await read(stream, 3) == [(ADDED, "a"), (MODIFIED, "a"), (DELETED, "a")]


async def test_watch_sends_what_exists_first(tmp_path: Path) -> None:
    """Initial events come as ADDED and end with an annotated BOOKMARK."""
    async with started(tmp_path) as cluster:
        request = pb.WatchObjectsRequest(kind="Namespace", send_initial_events=True)
        stream = cluster.objects.WatchObjects(request).__aiter__()
        assert [kind for kind, _ in await read(stream, 4)] == [ADDED] * 4
        mark = await asyncio.wait_for(anext(stream), 30)
        assert mark.type == BOOKMARK
        assert json.loads(mark.object.json)["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await cluster.apply(namespace("z"))
        assert await read(stream, 1) == [(ADDED, "z")]


async def test_apply_keeps_what_others_set(tmp_path: Path) -> None:
    """Applying again removes what the manifest no longer names and keeps what it never named."""
    without_replicas = HELLO.replace("  replicas: 3\n", "")
    async with started(tmp_path) as cluster:
        await cluster.apply(without_replicas)
        await cluster.scale("hello", 4)
        answer = await cluster.apply(without_replicas)
        assert answer.results[0].action == pb.AppliedObject.ACTION_UNCHANGED
        labelled = without_replicas.replace("    app: hello\nspec", "    app: hello\n    team: a\nspec")
        assert (await cluster.apply(labelled)).results[0].action == pb.AppliedObject.ACTION_CONFIGURED
        assert (await cluster.apply(without_replicas)).results[0].action == pb.AppliedObject.ACTION_CONFIGURED
        obj = await cluster.get("Deployment", "hello")
        assert obj["metadata"]["labels"] == {"app": "hello"}
        assert obj["spec"]["replicas"] == 4


async def test_apply_is_all_or_nothing(tmp_path: Path) -> None:
    """A manifest with one wrong object changes nothing, and a dry run never does."""
    async with started(tmp_path) as cluster:
        manifest = f"{namespace('good')}\n---\n" + HELLO.replace("replicas: 3", "replicas: -1")
        error = await refused(cluster.objects.ApplyObjects(pb.ApplyObjectsRequest(manifest=manifest)))
        assert error.reason == "OBJECT_INVALID"
        assert [(found.field, found.description) for found in error.violations] == [
            ("spec.replicas", "Invalid value: -1: must be greater than or equal to 0")
        ]
        answer = await cluster.apply(dry_run=True)
        assert answer.results[0].action == pb.AppliedObject.ACTION_CREATED
        assert answer.results[0].object.resource_version == 0
        assert [one["metadata"]["name"] for one in await cluster.all_of("Namespace")].count("good") == 0
        assert await cluster.all_of("Deployment") == []


async def test_optimistic_concurrency(tmp_path: Path) -> None:
    """A replacement of an old version is refused with ABORTED CONFLICT; one of the newest succeeds."""
    async with started(tmp_path) as cluster:
        await cluster.apply(namespace("a"))
        first = await cluster.get("Namespace", "a")
        await cluster.patch("Namespace", "a", metadata={"labels": {"x": "1"}})
        first["metadata"]["labels"] = {"y": "1"}
        error = await refused(cluster.objects.UpdateObject(pb.UpdateObjectRequest(json=json.dumps(first))))
        assert (error.code, error.reason) == ("ABORTED", "CONFLICT")
        newest = await cluster.get("Namespace", "a")
        newest["metadata"]["labels"] = {"y": "1"}
        await cluster.objects.UpdateObject(pb.UpdateObjectRequest(json=json.dumps(newest)))
        assert "y" in (await cluster.get("Namespace", "a"))["metadata"]["labels"]


async def test_status_is_written_apart(tmp_path: Path) -> None:
    """An update of the object leaves its status alone, and one of the status leaves the rest alone."""
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("p", nodeSelector={"no": "where"}))
        pod = await cluster.get("Pod", "p")
        pod["status"]["message"] = "hand-written"
        pod["metadata"]["labels"] = {"x": "1"}
        del pod["metadata"]["resourceVersion"]
        request = pb.UpdateObjectRequest(json=json.dumps(pod), subresource=pb.SUBRESOURCE_STATUS)
        await cluster.objects.UpdateObject(request)
        after = await cluster.get("Pod", "p")
        assert after["status"]["message"] == "hand-written"
        assert "labels" not in after["metadata"]
        pod["status"] = {}
        await cluster.objects.UpdateObject(pb.UpdateObjectRequest(json=json.dumps(pod)))
        after = await cluster.get("Pod", "p")
        assert after["status"]["message"] == "hand-written"
        assert after["metadata"]["labels"] == {"x": "1"}


async def test_create_is_idempotent_by_request_id(tmp_path: Path) -> None:
    """A repeated creation with the same request_id returns the first object, also after a restart."""
    cluster = Cluster(tmp_path)
    await cluster.start()
    text = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "team-"}})
    request = pb.CreateObjectRequest(json=text, request_id="r-1")
    first = await cluster.objects.CreateObject(request)
    assert (await cluster.objects.CreateObject(request)).uid == first.uid
    await cluster.stop()
    await cluster.start()
    assert (await cluster.objects.CreateObject(request)).uid == first.uid
    other = await cluster.objects.CreateObject(pb.CreateObjectRequest(json=text, request_id="r-2"))
    assert other.name != first.name
    await cluster.stop()


async def test_conditional_scaling(tmp_path: Path) -> None:
    """Scaling with an expected count or version is refused when either differs."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        reference = pb.ObjectReference(kind="Deployment", name="hello")
        request = pb.ScaleObjectRequest(reference=reference, replicas=5, current_replicas=2)
        assert (await refused(cluster.objects.ScaleObject(request))).reason == "CONFLICT"
        request = pb.ScaleObjectRequest(reference=reference, replicas=5, resource_version=1)
        assert (await refused(cluster.objects.ScaleObject(request))).reason == "CONFLICT"
        request = pb.ScaleObjectRequest(reference=reference, replicas=-1)
        assert (await refused(cluster.objects.ScaleObject(request))).reason == "OBJECT_INVALID"
        pod = pb.ObjectReference(kind="Pod", name="x")
        request = pb.ScaleObjectRequest(reference=pod, replicas=1)
        assert (await refused(cluster.objects.ScaleObject(request))).reason == "KIND_NOT_SCALABLE"


async def test_forced_deletion_does_not_wait(tmp_path: Path) -> None:
    """A grace period of zero removes the pod at once; its containers are killed afterwards."""
    async with started(tmp_path) as cluster:
        cluster.has_image(stop_ns=10**12)
        await cluster.apply(pod_manifest("p"))
        waiting = await cluster.delete("Pod", "p")
        assert not waiting.gone
        forced = await cluster.delete("Pod", "p", grace_period_seconds=0)
        assert forced.gone
        assert cluster.running() == []


async def test_finalizers_hold_a_pod(tmp_path: Path) -> None:
    """An object with a finalizer is marked, and goes when the finalizer is removed."""
    async with started(tmp_path) as cluster:
        await cluster.apply(namespace("held", finalizers=["example.com/hold"]))
        assert not (await cluster.delete("Namespace", "held")).gone
        await cluster.run(5)
        assert (await cluster.get("Namespace", "held"))["metadata"]["deletionTimestamp"]
        await cluster.patch("Namespace", "held", metadata={"finalizers": None})
        names = [one["metadata"]["name"] for one in await cluster.all_of("Namespace")]
        assert "held" not in names


MANIFESTS = [
    ("kind: [", "MANIFEST_MALFORMED", "line 2, column 1"),
    ("", "MANIFEST_MALFORMED", "holds no object"),
    ("a: &a [*a]", "MANIFEST_MALFORMED", "alias"),
    ("apiVersion: v1\nkind: Pd\nmetadata: {name: x}", "KIND_UNKNOWN", "did you mean Pod?"),
    ("apiVersion: v2\nkind: Pod\nmetadata: {name: x}", "KIND_UNKNOWN", 'served in "v1"'),
    (HELLO.replace("replicas: 3", "replica: 3"), "OBJECT_INVALID", 'did you mean "replicas"?'),
    (HELLO.replace("cpu: 100m", "cpu: fast"), "OBJECT_INVALID", "quantities must be a number"),
    (HELLO.replace("cpu: 100m", "gpu: 1"), "OBJECT_INVALID", 'supported values: "cpu", "memory"'),
    (HELLO.replace("app: hello\n    spec", "app: other\n    spec"), "OBJECT_INVALID", "does not match template"),
    (HELLO.replace("name: hello\n  labels", "name: Hello_\n  labels"), "OBJECT_INVALID", "metadata.name"),
    (HELLO.replace("image:", "livenessProbe: {}\n          image:"), "OBJECT_INVALID", "does not act on"),
    (
        HELLO.replace("metadata:\n  name: hello", "metadata:\n  namespace: nowhere\n  name: hello"),
        "NAMESPACE_NOT_FOUND",
        "",
    ),
]


@pytest.mark.parametrize(("manifest", "reason", "text"), MANIFESTS)
async def test_bad_manifests(tmp_path: Path, manifest: str, reason: str, text: str) -> None:
    """Each kind of bad manifest is refused with a reason and a sentence that helps."""
    async with started(tmp_path) as cluster:
        error = await refused(cluster.objects.ApplyObjects(pb.ApplyObjectsRequest(manifest=manifest)))
        assert error.reason == reason
        assert text in str(error)
        assert error.next_step


async def test_bad_requests(tmp_path: Path) -> None:
    """Wrong names, selectors, tokens, patches and sizes are refused with their reasons."""
    async with started(tmp_path) as cluster:
        objects = cluster.objects
        pod = pb.ObjectReference(kind="Pod", name="x")
        cases = [
            (objects.GetObject(pb.GetObjectRequest(reference=pod)), "OBJECT_NOT_FOUND"),
            (objects.GetObject(pb.GetObjectRequest()), "KIND_UNKNOWN"),
            (objects.ListObjects(pb.ListObjectsRequest(kind="Pod", label_selector="a in (")), "SELECTOR_MALFORMED"),
            (objects.ListObjects(pb.ListObjectsRequest(kind="Pod", field_selector="spec.x=1")), "SELECTOR_MALFORMED"),
            (objects.ListObjects(pb.ListObjectsRequest(kind="Pod", page_token="?")), "PAGE_TOKEN_INVALID"),
            (objects.ListObjects(pb.ListObjectsRequest(kind="Pod", page_size=-1)), "REQUEST_INVALID"),
            (objects.CreateObject(pb.CreateObjectRequest(json="[]")), "MANIFEST_MALFORMED"),
            (objects.CreateObject(pb.CreateObjectRequest(json=" " * (1 << 20) + "{}")), "MANIFEST_MALFORMED"),
            (objects.CreateObject(pb.CreateObjectRequest(json=namespace("default"))), "OBJECT_EXISTS"),
            (objects.DeleteObject(pb.DeleteObjectRequest(reference=pod)), "OBJECT_NOT_FOUND"),
        ]
        for call, reason in cases:
            assert (await refused(call)).reason == reason
        default = pb.ObjectReference(kind="Namespace", name="default")
        error = await refused(objects.DeleteObject(pb.DeleteObjectRequest(reference=default)))
        assert error.reason == "NAMESPACE_PROTECTED"
        error = await refused(objects.PatchObject(pb.PatchObjectRequest(reference=default, merge_patch="[1]")))
        assert error.reason == "PATCH_MALFORMED"
        log = cluster.pods.ReadPodLogs(pb.ReadPodLogsRequest(name="x"))
        assert (await refused(anext(log.__aiter__()))).reason == "OBJECT_NOT_FOUND"


async def test_selectors_choose(tmp_path: Path) -> None:
    """Label and field selectors choose pods by labels, phase and node, and Events by their object."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        await cluster.apply(pod_manifest("alone"))
        assert len(await cluster.all_of("Pod", label_selector="app=hello")) == 3
        assert len(await cluster.all_of("Pod", label_selector="app notin (hello)")) == 1
        assert len(await cluster.all_of("Pod", label_selector="!app")) == 1
        assert len(await cluster.all_of("Pod", field_selector="spec.nodeName=h1,metadata.name!=alone")) == 3
        assert len(await cluster.all_of("Pod", field_selector="status.phase=Pending")) == 0
        events = await cluster.all_of("Event", field_selector="involvedObject.name=alone")
        assert {event["reason"] for event in events} == {"Scheduled", "Pulled", "Created", "Started"}


async def test_objects_are_canonical(tmp_path: Path) -> None:
    """Objects travel as JSON with sorted keys and no spaces, and their fields are copied out."""
    async with started(tmp_path) as cluster:
        answer = await cluster.apply()
        one = answer.results[0].object
        obj = json.loads(one.json)
        assert one.json == json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert (one.api_version, one.kind, one.namespace, one.name) == ("apps/v1", "Deployment", "default", "hello")
        assert one.uid == obj["metadata"]["uid"]
        assert str(one.resource_version) == obj["metadata"]["resourceVersion"]


async def test_planned_fields_are_refused(tmp_path: Path) -> None:
    """A field of the contract that nothing obeys yet is refused by name, so that nobody takes it for obeyed."""
    async with started(tmp_path) as cluster:
        objects, options = cluster.objects, pb.WriteOptions(field_manager="me")
        default = pb.ObjectReference(kind="Namespace", name="default")
        calls: dict[str, list[Any]] = {
            "write_options": [
                objects.ApplyObjects(pb.ApplyObjectsRequest(manifest=HELLO, write_options=options)),
                objects.CreateObject(pb.CreateObjectRequest(json=namespace("n"), write_options=options)),
                objects.UpdateObject(pb.UpdateObjectRequest(json=namespace("n"), write_options=options)),
                objects.PatchObject(pb.PatchObjectRequest(reference=default, merge_patch="{}", write_options=options)),
            ],
            "json_patch": [objects.PatchObject(pb.PatchObjectRequest(reference=default, json_patch="[]"))],
            "strategic_merge_patch": [
                objects.PatchObject(pb.PatchObjectRequest(reference=default, strategic_merge_patch="{}"))
            ],
            "resource_version": [objects.ListObjects(pb.ListObjectsRequest(kind="Pod", resource_version=1))],
            "vswitch_address": [cluster.nodes.RegisterNode(pb.RegisterNodeRequest(host="h9", vswitch_address="v"))],
            "hypervisor_address": [
                cluster.nodes.RegisterNode(pb.RegisterNodeRequest(host="h9", hypervisor_address="v"))
            ],
        }
        for field, refusals in calls.items():
            for call in refusals:
                error = await refused(call)
                assert (error.reason, error.metadata["field"]) == ("NOT_SERVED_YET", field)
        assert await cluster.all_of("Deployment") == []
        since = pb.ReadPodLogsRequest(name="x", since_wall_time_ns=0)
        for request in (since, pb.ReadPodLogsRequest(name="x", limit_bytes=1)):
            log = cluster.pods.ReadPodLogs(request)
            assert (await refused(anext(log.__aiter__()))).reason == "NOT_SERVED_YET"


async def test_a_patch_has_to_be_given(tmp_path: Path) -> None:
    """A patch request without a patch is malformed."""
    async with started(tmp_path) as cluster:
        default = pb.ObjectReference(kind="Namespace", name="default")
        error = await refused(cluster.objects.PatchObject(pb.PatchObjectRequest(reference=default)))
        assert error.reason == "MANIFEST_MALFORMED"
