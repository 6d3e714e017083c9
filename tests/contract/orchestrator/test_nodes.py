"""Nodes over the in-process channel: heartbeats, loss, return, cordon, and what becomes of their pods."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from tests.contract.orchestrator.cluster import HELLO, Cluster, phases, pod_manifest, started

from lamina_kit.rpc.status import rpc_error


def ready(node: dict[str, object]) -> str:
    """Status of a node's Ready condition."""
    status = node["status"]
    assert isinstance(status, dict)
    return str(next(c["status"] for c in status["conditions"] if c["type"] == "Ready"))


async def where(cluster: Cluster) -> dict[str, str]:
    """Node of each pod that is not being deleted."""
    pods = [pod for pod in await cluster.all_of("Pod") if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in pods}


async def test_local_host_is_a_ready_node(tmp_path: Path) -> None:
    """The local host is a node of the configured capacity, Ready once its runtime answered."""
    async with started(tmp_path, node_cpu_millicores=2500, node_memory_bytes=1 << 30) as cluster:
        (node,) = await cluster.all_of("Node")
        assert node["metadata"]["name"] == "h1"
        assert node["status"]["capacity"] == {"cpu": "2500m", "memory": "1048576Ki", "pods": "110"}
        assert ready(node) == "True"
        assert "taints" not in node["spec"]


async def test_lease_is_renewed_without_writes(tmp_path: Path) -> None:
    """The lease of a node that answers is renewed every 10 s as it is read, and nothing is written for it."""
    async with started(tmp_path) as cluster:
        revision = (await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Node"))).resource_version
        seen = []
        for _ in range(3):
            await cluster.run(20)
            lease = await cluster.get("Lease", "h1", "kube-node-lease")
            seen.append(lease["spec"]["renewTime"])
        assert len(set(seen)) == 3
        later = (await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Node"))).resource_version
        assert later == revision


async def test_lost_node_loses_its_pods(tmp_path: Path) -> None:
    """40 s after its last renewal a silent node is Unknown, and its pods move when their tolerations run out."""
    async with started(tmp_path, toleration_seconds=60) as cluster:
        await cluster.add_node("h2")
        await cluster.apply(HELLO.replace("replicas: 3", "replicas: 4"))
        assert sorted((await where(cluster)).values()) == ["h1", "h1", "h2", "h2"]
        cluster.runtimes["h2"].go_away()
        await cluster.run(20)
        assert ready(await cluster.get("Node", "h2")) == "True"
        await cluster.run(25)
        node = await cluster.get("Node", "h2")
        assert ready(node) == "Unknown"
        assert [taint["key"] for taint in node["spec"]["taints"]] == ["node.kubernetes.io/unreachable"] * 2
        assert sorted((await where(cluster)).values()) == ["h1", "h1", "h2", "h2"]
        await cluster.run(60)
        assert list((await where(cluster)).values()) == ["h1"] * 4
        (eviction, *_) = await cluster.decisions("nodes/h2")
        assert eviction.event == "node.readiness"


async def test_returning_node_finishes_what_was_decided(tmp_path: Path) -> None:
    """A node that returns is Ready again, and stops the pods that were moved away meanwhile."""
    async with started(tmp_path, toleration_seconds=0) as cluster:
        await cluster.add_node("h2")
        await cluster.apply()
        lost = len(cluster.running("h2"))
        assert lost
        cluster.runtimes["h2"].go_away()
        await cluster.run(60)
        assert len(await cluster.all_of("Pod")) == 3 + lost
        cluster.runtimes["h2"].come_back()
        await cluster.run(60)
        assert ready(await cluster.get("Node", "h2")) == "True"
        assert len(await cluster.all_of("Pod")) == 3
        assert cluster.running("h2") == []


async def test_short_silence_changes_nothing(tmp_path: Path) -> None:
    """A runtime that is away for 20 s and kept its containers leaves every pod as it was."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        before = cluster.running()
        cluster.runtime.go_away()
        await cluster.run(20)
        cluster.runtime.come_back()
        await cluster.run(20)
        assert cluster.running() == before
        assert ready(await cluster.get("Node", "h1")) == "True"


async def test_restarted_runtime_gets_its_pods_again(tmp_path: Path) -> None:
    """A runtime that lost its containers gets new sandboxes for the same pods, whose restarts are counted."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        names = await where(cluster)
        cluster.runtime.go_away()
        await cluster.run(5)
        cluster.runtime.come_back(lose=True)
        await cluster.run(60)
        assert await where(cluster) == names
        assert len(cluster.running()) == 3
        counts = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in await cluster.all_of("Pod")]
        assert counts == [1, 1, 1]


async def test_deleted_node_frees_its_pods(tmp_path: Path) -> None:
    """Deleting a node removes its pods at once, and their ReplicaSet makes others."""
    async with started(tmp_path) as cluster:
        await cluster.add_node("h2")
        await cluster.apply()
        await cluster.delete("Node", "h2")
        assert list((await where(cluster)).values()) == ["h1"] * 3


async def test_cordon_keeps_new_pods_away(tmp_path: Path) -> None:
    """A cordoned node keeps its pods and gets no new one until it is uncordoned; why is explained."""
    async with started(tmp_path) as cluster:
        await cluster.apply()
        await cluster.nodes.CordonNode(pb.CordonNodeRequest(name="h1"))
        await cluster.scale("hello", 4)
        pending = [name for name, node in (await where(cluster)).items() if not node]
        assert len(pending) == 1
        assert len(cluster.running()) == 3
        (why, *_) = await cluster.decisions(f"namespaces/default/pods/{pending[0]}")
        inputs = {entry.key: entry.value for entry in why.inputs}
        assert why.event == "pod.pending"
        assert inputs["message"] == "0/1 nodes are available: 1 node(s) were unschedulable."
        await cluster.nodes.UncordonNode(pb.UncordonNodeRequest(name="h1"))
        await cluster.run()
        assert len(cluster.running()) == 4


async def test_pending_pod_starts_when_there_is_room(tmp_path: Path) -> None:
    """A pod that fits nowhere waits, and is placed as soon as another one leaves."""
    big = {"resources": {"requests": {"cpu": "3"}}}
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("first", container=big))
        await cluster.apply(pod_manifest("second", container=big))
        assert phases(await cluster.all_of("Pod")) == ["Running", "Pending"]
        assert "FailedScheduling" in await cluster.reasons()
        await cluster.delete("Pod", "first")
        assert phases(await cluster.all_of("Pod")) == ["Running"]


async def test_pods_spread_over_nodes(tmp_path: Path) -> None:
    """Replicas spread over nodes, and the decision names the scores of the node and of the runner-up."""
    async with started(tmp_path) as cluster:
        await cluster.add_node("h2")
        await cluster.add_node("h3")
        await cluster.apply()
        placed = await where(cluster)
        assert sorted(placed.values()) == ["h1", "h2", "h3"]
        (why, *_) = await cluster.decisions(f"namespaces/default/pods/{next(iter(placed))}")
        inputs = {entry.key: entry.value for entry in why.inputs}
        assert inputs["node"] == placed[next(iter(placed))]
        assert "runner_up" in inputs


async def test_pod_that_names_a_full_node_fails(tmp_path: Path) -> None:
    """A pod that names its node itself and does not fit there fails with OutOfcpu."""
    async with started(tmp_path) as cluster:
        await cluster.apply(pod_manifest("p", nodeName="h1", container={"resources": {"requests": {"cpu": "5"}}}))
        status = (await cluster.get("Pod", "p"))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "OutOfcpu")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "H_2"}, "OBJECT_INVALID"),
        ({"cpu_millicores": 0}, "OBJECT_INVALID"),
        ({"memory_bytes": -5}, "OBJECT_INVALID"),
        ({"runtime_address": "nowhere"}, ""),
    ],
)
async def test_wrong_registrations(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    """A malformed registration is refused; an address that nobody answers at leaves the node not ready."""
    wanted: dict[str, object] = {
        "host": "h2",
        "runtime_address": "container-runtime",
        "cpu_millicores": 1,
        "memory_bytes": 1 << 30,
        **fields,
    }
    async with started(tmp_path) as cluster:
        request = pb.RegisterNodeRequest(**wanted)  # type: ignore[arg-type]
        if reason:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cluster.nodes.RegisterNode(request)
            assert rpc_error(caught.value).reason == reason
        else:
            await cluster.nodes.RegisterNode(request)
            await cluster.run(60)
            assert ready(await cluster.get("Node", "h2")) == "False"
