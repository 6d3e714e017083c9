"""Whatever happens to a cluster, it comes back to what was asked for."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from tests.contract.orchestrator.cluster import HELLO, Cluster, started

from lamina_kit.errors import Unavailable


@dataclass(frozen=True)
class Scale:
    """Ask for another number of replicas."""

    replicas: int


@dataclass(frozen=True)
class Kill:
    """End a running container; `which` chooses it."""

    which: int
    code: int


@dataclass(frozen=True)
class DeletePod:
    """Delete a pod; `which` chooses it."""

    which: int


@dataclass(frozen=True)
class Silence:
    """A node's runtime is away for a time, and perhaps loses its containers."""

    node: str
    seconds: int
    lose: bool


@dataclass(frozen=True)
class Fault:
    """The next calls of a method fail on a node."""

    node: str
    call: str
    times: int


@dataclass(frozen=True)
class Restart:
    """The orchestrator stops and starts again."""


@dataclass(frozen=True)
class Roll:
    """Another image is asked for."""

    tag: str


NODES = ("container-runtime", "h2")
CALLS = ("run_sandbox", "create_container", "start_container", "stop_container", "remove_sandbox", "resolve_image")
happenings = st.lists(
    st.one_of(
        st.builds(Scale, st.integers(0, 6)),
        st.builds(Kill, st.integers(0, 20), st.sampled_from([0, 1, 137])),
        st.builds(DeletePod, st.integers(0, 20)),
        st.builds(Silence, st.sampled_from(NODES), st.sampled_from([1, 30, 100]), st.booleans()),
        st.builds(Fault, st.sampled_from(NODES), st.sampled_from(CALLS), st.integers(1, 3)),
        st.builds(Restart),
        st.builds(Roll, st.sampled_from(["latest", "2"])),
    ),
    max_size=8,
)
Happening = Scale | Kill | DeletePod | Silence | Fault | Restart | Roll


async def happen(cluster: Cluster, what: Happening, wanted: dict[str, object]) -> None:
    """Lets something happen; `wanted` follows what is asked for."""
    if isinstance(what, Scale):
        wanted["replicas"] = what.replicas
        await cluster.scale("hello", what.replicas)
    elif isinstance(what, Roll):
        wanted["image"] = f"lamina.local/hello:{what.tag}"
        container = {"name": "hello", "image": wanted["image"]}
        await cluster.patch("Deployment", "hello", spec={"template": {"spec": {"containers": [container]}}})
    elif isinstance(what, Kill):
        running = [(node, run) for node in NODES for run in cluster.running(node)]
        if running:
            node, run = running[what.which % len(running)]
            cluster.runtimes[node].kill(run.name, what.code)
    elif isinstance(what, DeletePod):
        names = [pod["metadata"]["name"] for pod in await cluster.all_of("Pod")]
        if names:
            await cluster.delete("Pod", names[what.which % len(names)])
    elif isinstance(what, Silence):
        cluster.runtimes[what.node].go_away()
        await cluster.run(what.seconds)
        cluster.runtimes[what.node].come_back(lose=what.lose)
    elif isinstance(what, Fault):
        cluster.runtimes[what.node].fail(what.call, Unavailable("A fault.", reason="FAULT_PLANNED"), what.times)
    else:
        await cluster.stop()
        await cluster.start()
    await cluster.run(1)


async def live(plan: list[Happening]) -> None:
    """Lives through a plan and checks what is left half an hour later."""
    with tempfile.TemporaryDirectory() as folder:
        async with started(Path(folder), toleration_seconds=30) as cluster:
            cluster.has_image("lamina.local/hello:2")
            await cluster.add_node("h2")
            await cluster.apply()
            wanted: dict[str, object] = {"replicas": 3, "image": "lamina.local/hello:latest"}
            for what in plan:
                await happen(cluster, what, wanted)
            await cluster.run(1800)
            await check(cluster, wanted)


async def check(cluster: Cluster, wanted: dict[str, object]) -> None:
    """Everything is as asked for, above and below, and nothing is left over."""
    pods = await cluster.all_of("Pod")
    running = [run for node in NODES for run in cluster.running(node)]
    assert len(pods) == len(running) == wanted["replicas"]
    assert {pod["metadata"]["uid"] for pod in pods} == {run.pod_uid for run in running}
    assert {run.image for run in running} <= {wanted["image"]}
    assert sum(len(runtime.sandboxes) for runtime in cluster.runtimes.values()) == len(pods)
    status = (await cluster.get("Deployment", "hello"))["status"]
    assert (status["readyReplicas"], status["updatedReplicas"]) == (wanted["replicas"], wanted["replicas"])
    assert cluster.service.cluster.idle


@given(plan=happenings)
@settings(max_examples=25)
def test_a_deployment_converges(plan: list[Happening]) -> None:
    """After kills, deletions, scaling, rollouts, faults, lost nodes and restarts, what runs is what was asked for."""
    asyncio.run(live(plan))


@given(count=st.integers(1, 12), millicores=st.integers(0, 2500), megabytes=st.integers(0, 5000))
@settings(max_examples=25)
def test_requests_are_never_overcommitted(count: int, millicores: int, megabytes: int) -> None:
    """The pods bound to a node never request more than it has, and those that are left pending fit nowhere."""
    requests = {"cpu": f"{millicores}m", "memory": f"{megabytes}Mi"}
    manifest = HELLO.replace("replicas: 3", f"replicas: {count}")
    manifest = manifest.replace("cpu: 100m", f"cpu: {requests['cpu']}").replace("memory: 16Mi", "memory: 0")
    manifest = manifest.replace("memory: 0", f"memory: {requests['memory']}").replace("memory: 64Mi", "memory: 1Ti")

    async def fill() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with started(Path(folder), store="memory") as cluster:
                await cluster.add_node("h2", cpu_millicores=1500, memory_bytes=3 << 30, max_pods=4)
                await cluster.apply(manifest)
                free = {"h1": [4000, 8192, 110], "h2": [1500, 3072, 4]}
                pods = (await cluster.objects.ListObjects(pb.ListObjectsRequest(kind="Pod"))).objects
                listed = await cluster.all_of("Pod")
                for pod in listed:
                    if node := pod["spec"].get("nodeName"):
                        free[node] = [a - b for a, b in zip(free[node], (millicores, megabytes, 1), strict=True)]
                assert len(pods) == count
                assert all(amount >= 0 for amounts in free.values() for amount in amounts)
                if any("nodeName" not in pod["spec"] for pod in listed):
                    fits = [cpu >= millicores and room >= megabytes and left for cpu, room, left in free.values()]
                    assert not any(fits)

    asyncio.run(fill())
