"""Workloads over the in-process channel with a fake runtime: what a user sees of healing and scaling."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from tests.contract.orchestrator.cluster import (
    HELLO,
    IMAGE,
    Cluster,
    phases,
    pod_manifest,
    started,
    waiting_reason,
)

SECOND = 10**9


async def test_three_replicas_run(tmp_path: Path) -> None:
    """An applied Deployment of three replicas becomes three running containers and reports itself available."""
    async with started(tmp_path) as cluster:
        answer = await cluster.apply()
        assert [result.action for result in answer.results] == [pb.AppliedObject.ACTION_CREATED]
        assert phases(await cluster.all_of("Pod")) == ["Running"] * 3
        status = (await cluster.get("Deployment", "hello"))["status"]
        assert (status["readyReplicas"], status["availableReplicas"], status["updatedReplicas"]) == (3, 3, 3)
        assert len(cluster.running()) == 3


async def test_a_killed_container_is_restarted(tmp_path: Path) -> None:
    """A container that is killed is started again at once, and its restart and exit code are reported."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        victim = cluster.running()[0]
        cluster.runtime.kill(victim.name, 137, "OOMKilled")
        await cluster.run()
        assert len(cluster.running()) == 3
        statuses = [pod["status"]["containerStatuses"][0] for pod in await cluster.all_of("Pod")]
        restarted = next(status for status in statuses if status["restartCount"])
        assert restarted["restartCount"] == 1
        assert restarted["lastState"]["terminated"]["exitCode"] == 137
        assert restarted["lastState"]["terminated"]["reason"] == "OOMKilled"


async def test_a_deleted_pod_is_replaced(tmp_path: Path) -> None:
    """A deleted pod stops within its grace period while another takes its place."""
    async with started(tmp_path) as cluster:
        cluster.has_image(stop_ns=5 * SECOND)
        await cluster.apply()
        before = [pod["metadata"]["name"] for pod in await cluster.all_of("Pod")]
        answer = await cluster.delete("Pod", before[0])
        assert not answer.gone
        pods = await cluster.all_of("Pod")
        assert len(pods) == 4
        assert len([pod for pod in pods if "deletionTimestamp" in pod["metadata"]]) == 1
        await cluster.run(5)
        names = [pod["metadata"]["name"] for pod in await cluster.all_of("Pod")]
        assert len(names) == 3
        assert before[0] not in names


async def test_scaling_up_and_down(tmp_path: Path) -> None:
    """Scaling to five and back to two leaves the two oldest pods."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        oldest = sorted(pod["metadata"]["name"] for pod in await cluster.all_of("Pod"))
        await cluster.scale("hello", 5)
        assert len(cluster.running()) == 5
        await cluster.scale("hello", 2)
        left = [pod["metadata"]["name"] for pod in await cluster.all_of("Pod")]
        assert len(left) == len(cluster.running()) == 2
        assert set(left) < set(oldest)


async def test_deleting_takes_everything_along(tmp_path: Path) -> None:
    """A deleted Deployment takes its ReplicaSet, pods, containers and sandboxes along."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        assert (await cluster.delete("Deployment", "hello")).gone
        assert await cluster.all_of("ReplicaSet") == []
        assert await cluster.all_of("Pod") == []
        assert cluster.runtime.containers() == []
        assert cluster.runtime.sandboxes == {}


async def test_orphans_stay_and_are_adopted(tmp_path: Path) -> None:
    """Deletion that orphans leaves the pods running, and a new Deployment of the same selector adopts them."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        before = {pod["metadata"]["uid"] for pod in await cluster.all_of("Pod")}
        await cluster.delete("Deployment", "hello", propagation=pb.PROPAGATION_ORPHAN)
        assert len(cluster.running()) == 3
        (left,) = await cluster.all_of("ReplicaSet")
        assert "ownerReferences" not in left["metadata"]
        await cluster.apply()
        assert {pod["metadata"]["uid"] for pod in await cluster.all_of("Pod")} == before
        (adopted,) = await cluster.all_of("ReplicaSet")
        assert adopted["metadata"]["ownerReferences"][0]["kind"] == "Deployment"


async def test_foreground_deletion_waits_for_dependents(tmp_path: Path) -> None:
    """Foreground deletion keeps the Deployment, marked, until its pods are gone."""
    async with started(tmp_path) as cluster:
        cluster.has_image(stop_ns=10 * SECOND)
        await cluster.apply()
        answer = await cluster.delete("Deployment", "hello", propagation=pb.PROPAGATION_FOREGROUND)
        assert not answer.gone
        marked = await cluster.get("Deployment", "hello")
        assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
        await cluster.run(15)
        assert await cluster.all_of("Deployment") == []
        assert cluster.running() == []


async def test_rolling_update_keeps_pods_available(tmp_path: Path) -> None:
    """A changed template rolls over without ever fewer than minimum available pods, and undo goes back."""
    async with started(tmp_path) as cluster:
        cluster.has_image("lamina.local/hello:2", start_ns=2 * SECOND)
        await cluster.apply(HELLO.replace("replicas: 3", "replicas: 4"))
        template = {"spec": {"containers": [{"name": "hello", "image": "lamina.local/hello:2"}]}}
        await cluster.patch("Deployment", "hello", spec={"template": template})
        for _ in range(20):
            status = (await cluster.get("Deployment", "hello"))["status"]
            assert status["availableReplicas"] >= 3
            assert len([pod for pod in await cluster.all_of("Pod") if "deletionTimestamp" not in pod["metadata"]]) <= 5
            await cluster.run()
        images = [run.image for run in cluster.running()]
        assert images == ["lamina.local/hello:2"] * 4
        sets = await cluster.all_of("ReplicaSet")
        revisions = {s["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for s in sets}
        assert revisions == {"1", "2"}
        assert sorted(s["spec"]["replicas"] for s in sets) == [0, 4]


async def test_recreate_stops_the_old_first(tmp_path: Path) -> None:
    """The Recreate strategy starts no new pod before the last old one is gone."""
    async with started(tmp_path) as cluster:
        cluster.has_image(stop_ns=3 * SECOND)
        cluster.has_image("lamina.local/hello:2")
        await cluster.apply(HELLO.replace("replicas: 3", "replicas: 3\n  strategy: {type: Recreate}"))
        template = {"spec": {"containers": [{"name": "hello", "image": "lamina.local/hello:2"}]}}
        await cluster.patch("Deployment", "hello", spec={"template": template})
        assert {run.image for run in cluster.running()} == {IMAGE}
        await cluster.run(10)
        assert [run.image for run in cluster.running()] == ["lamina.local/hello:2"] * 3


async def test_crash_loop_backs_off(tmp_path: Path) -> None:
    """A container that keeps failing restarts at once, then after 10 s, 20 s, 40 s, and says CrashLoopBackOff."""
    async with started(tmp_path) as cluster:
        cluster.has_image(life_ns=SECOND, exit_code=3)
        await cluster.apply(pod_manifest("crash"))
        await cluster.run(4)
        pod = await cluster.get("Pod", "crash")
        assert waiting_reason(pod) == "CrashLoopBackOff"
        assert pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
        await cluster.run(100)
        runs = [event for event in cluster.runtime.history if event.state == "running"]
        gaps = [(later.started_ns - earlier.started_ns) // SECOND for earlier, later in pairwise(runs)]
        assert gaps == [1, 11, 21, 41]


async def test_jobs_end_by_their_policy(tmp_path: Path) -> None:
    """A pod that never restarts ends as Succeeded or Failed by its exit code, and keeps its log."""
    async with started(tmp_path) as cluster:
        cluster.has_image("ok", life_ns=SECOND, output=b"done\n")
        cluster.has_image("bad", life_ns=SECOND, exit_code=2)
        await cluster.apply(pod_manifest("ok", restartPolicy="Never", container={"image": "ok"}))
        await cluster.apply(pod_manifest("bad", restartPolicy="Never", container={"image": "bad"}))
        await cluster.run(3)
        assert (await cluster.get("Pod", "ok"))["status"]["phase"] == "Succeeded"
        assert (await cluster.get("Pod", "bad"))["status"]["phase"] == "Failed"
        chunks = [chunk.data async for chunk in cluster.pods.ReadPodLogs(pb.ReadPodLogsRequest(name="ok"))]
        assert b"".join(chunks) == b"done\n"


async def test_init_containers_run_first(tmp_path: Path) -> None:
    """Init containers run one by one to success before the others start."""
    async with started(tmp_path) as cluster:
        cluster.has_image("init", life_ns=5 * SECOND)
        inits = [{"name": "one", "image": "init"}, {"name": "two", "image": "init"}]
        await cluster.apply(pod_manifest("p", initContainers=inits))
        assert [run.container for run in cluster.running()] == ["one"]
        assert waiting_reason(await cluster.get("Pod", "p")) == "PodInitializing"
        await cluster.run(5)
        assert [run.container for run in cluster.running()] == ["two"]
        await cluster.run(5)
        assert [run.container for run in cluster.running()] == ["main"]
        assert phases(await cluster.all_of("Pod")) == ["Running"]


async def test_missing_image_is_waited_for(tmp_path: Path) -> None:
    """A pod of an unknown image says ImagePullBackOff's cause and starts once the image is there."""
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("p", container={"image": "nowhere/x:1"}))
        pod = await cluster.get("Pod", "p")
        assert waiting_reason(pod) == "ErrImagePull"
        assert "import it there" in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        cluster.has_image("nowhere/x:1")
        await cluster.run(11)
        assert phases(await cluster.all_of("Pod")) == ["Running"]


async def test_pod_gets_its_environment(tmp_path: Path) -> None:
    """Variables, references among them and the downward API reach the container as the spec says."""
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(NO)-$$(A)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("p", container={"env": env, "args": ["$(NAME)"]}))
        spec = cluster.runtime.spec_of(cluster.running()[0].name)
        assert spec.env == ("A=1", "B=1-$(NO)-$(A)", "NAME=p", "NODE=h1")
        assert spec.args == ("p",)


async def test_logs(tmp_path: Path) -> None:
    """Logs come whole, by their last lines, of the previous run, and following until the container ends."""
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("p"))

        async def read(**fields: object) -> bytes:
            request = pb.ReadPodLogsRequest(name="p", **fields)  # type: ignore[arg-type]
            return b"".join([chunk.data async for chunk in cluster.pods.ReadPodLogs(request)])

        assert await read() == b"hello\nworld\n"
        assert await read(tail_lines=1) == b"world\n"
        assert await read(tail_lines=0) == b""
        cluster.runtime.kill(cluster.running()[0].name)
        await cluster.run()
        assert await read(previous=True) == b"hello\nworld\n"


async def test_namespace_takes_its_content_along(tmp_path: Path) -> None:
    """A deleted namespace refuses new objects, empties itself and then goes."""
    async with started(tmp_path) as cluster:
        cluster.has_image(stop_ns=3 * SECOND)
        manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\n" + HELLO
        await cluster.apply(manifest, default_namespace="team")
        assert len(cluster.running()) == 3
        await cluster.delete("Namespace", "team")
        assert (await cluster.get("Namespace", "team"))["status"]["phase"] == "Terminating"
        await cluster.run(10)
        names = [namespace["metadata"]["name"] for namespace in await cluster.all_of("Namespace")]
        assert "team" not in names
        assert cluster.running() == []


@pytest.mark.real_time("two stories on one loop, whose order goes on; tests/simulation repeats seeds")
@pytest.mark.parametrize("store", ["sqlite", "memory"])
async def test_same_seed_gives_the_same_bytes(tmp_path: Path, store: str) -> None:
    """Two clusters of one seed hold the same objects, byte for byte, and have made the same decisions."""

    async def story(folder: Path) -> tuple[str, str]:
        async with started(folder, store=store) as cluster:
            await cluster.apply()
            cluster.runtime.kill(cluster.running()[0].name)
            await cluster.run(2)
            await cluster.scale("hello", 5)
            page = await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Pod"))
            events = await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Event"))
            texts = [one.json for one in (*page.objects, *events.objects)]
            return "\n".join(texts), cluster.layer.events.json_lines()

    assert await story(tmp_path / "a") == await story(tmp_path / "b")


async def test_restart_takes_up_where_it_was(tmp_path: Path) -> None:
    """A restarted orchestrator finds its objects and the running containers, and starts none twice."""
    cluster = Cluster(tmp_path)
    cluster.has_image()
    await cluster.start()
    await cluster.apply()
    before = [run.name for run in cluster.running()]
    await cluster.stop()
    cluster.runtime.kill(before[0])
    await cluster.start()
    after = [run.name for run in cluster.running()]
    assert before[1:] == after[:2]
    assert len(after) == 3
    assert phases(await cluster.all_of("Pod")) == ["Running"] * 3
    status = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in await cluster.all_of("Pod")]
    assert sorted(status) == [0, 0, 1]
    await cluster.stop()


async def test_orphaned_sandboxes_are_removed(tmp_path: Path) -> None:
    """A sandbox whose pod is gone from the store is torn down when its node is found again."""
    cluster = Cluster(tmp_path, store="memory")
    cluster.has_image()
    await cluster.start()
    await cluster.apply()
    assert len(cluster.runtime.sandboxes) == 3
    await cluster.stop()
    await cluster.start()
    await cluster.run(5)
    assert cluster.runtime.sandboxes == {}
    await cluster.stop()


async def test_trace_is_inherited(tmp_path: Path) -> None:
    """A sampled apply marks what it makes and what follows from it, and the pod's start is a span of its trace."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    header = f"00-{trace_id}-b7ad6b7169203331-01"
    async with started(tmp_path) as cluster:
        request = pb.ApplyObjectsRequest(manifest=HELLO)
        await cluster.objects.ApplyObjects(request, metadata=(("traceparent", header),))
        await cluster.run()
        for kind in ("Deployment", "ReplicaSet", "Pod"):
            for obj in await cluster.all_of(kind):
                assert trace_id in obj["metadata"]["annotations"]["lamina.dev/traceparent"]
        names = {span.name for span in cluster.layer.spans.list(trace_id)}
        assert {"deployment.reconcile", "pod.schedule", "pod.RunSandbox", "pod.StartContainer"} <= names


async def test_unsampled_apply_leaves_no_trace(tmp_path: Path) -> None:
    """An ordinary apply writes no trace annotation and records no span."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        assert "lamina.dev/traceparent" not in json.dumps(await cluster.all_of("Pod"))
        assert len(cluster.layer.spans) == 0
