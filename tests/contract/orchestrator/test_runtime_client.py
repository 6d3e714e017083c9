"""The orchestrator over the container runtime's real contract, on an in-process channel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as runtime_pb
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from lamina.orchestrator.v1 import orchestrator_pb2_grpc as rpc
from tests.contract.orchestrator.cluster import IMAGE, SECOND, pod_manifest
from tests.contract.orchestrator.fake_runtime import FakeRuntime, Profile
from tests.contract.orchestrator.fake_service import FakeService
from tests.contract.orchestrator.stepped_clock import SteppedClock

from lamina_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.io.runtimes.client import RuntimeClient
from lamina_orchestrator.io.runtimes.connector import ChannelConnector
from lamina_orchestrator.server import build


@dataclass
class Stack:
    """An orchestrator over a served fake runtime."""

    clock: SteppedClock
    below: FakeService
    channel: Any
    objects: Any
    pods: Any

    async def apply(self, manifest: str) -> None:
        """Applies a manifest and lets two seconds pass."""
        await self.objects.ApplyObjects(pb.ApplyObjectsRequest(manifest=manifest))
        await self.clock.advance(2 * SECOND)

    async def pod(self, name: str) -> dict[str, Any]:
        """One pod, decoded."""
        reference = pb.ObjectReference(kind="Pod", name=name)
        found = await self.objects.GetObject(pb.GetObjectRequest(reference=reference))
        obj: dict[str, Any] = json.loads(found.json)
        return obj


@asynccontextmanager
async def stacked(folder: Path) -> AsyncIterator[Stack]:
    """A started stack with the hello image."""
    clock = SteppedClock()
    below = FakeService(FakeRuntime(clock))
    below.runtime.images[IMAGE] = Profile(output=b"one\ntwo\n")
    channel = local(below, LayerState("container-runtime", "h1", clock, Rng(2)))
    layer = LayerState("orchestrator", "", clock, Rng(1))
    service = build(
        Environment("h1", clock, Rng(1), folder, layer, {"container-runtime": channel}), OrchestratorConfig()
    )
    await service.start()
    await clock.advance(SECOND)
    above = local(service, layer)
    yield Stack(clock, below, channel, rpc.ObjectsStub(above), rpc.PodsStub(above))
    await service.stop()


async def test_pod_runs_and_ends_over_the_contract(tmp_path: Path) -> None:
    """A pod goes through its life over the contract: sandbox, container, log, restart, removal."""
    async with stacked(tmp_path) as stack:
        await stack.apply(pod_manifest("p"))
        assert (await stack.pod("p"))["status"]["phase"] == "Running"
        (running,) = stack.below.runtime.containers("running")
        chunks = [chunk.data async for chunk in stack.pods.ReadPodLogs(pb.ReadPodLogsRequest(name="p", tail_lines=1))]
        assert chunks == [b"two\n"]
        stack.below.runtime.kill(running.name)
        await stack.clock.advance(SECOND)
        status = (await stack.pod("p"))["status"]["containerStatuses"][0]
        assert (status["restartCount"], status["imageID"]) == (1, "sha256:abc")
        reference = pb.ObjectReference(kind="Pod", name="p")
        await stack.objects.DeleteObject(pb.DeleteObjectRequest(reference=reference))
        await stack.clock.advance(SECOND)
        assert stack.below.runtime.sandboxes == {}


async def test_limits_and_labels_reach_the_runtime(tmp_path: Path) -> None:
    """Requests and limits become weight, quota and bytes; labels name the pod and the restart."""
    resources = {"requests": {"cpu": "250m"}, "limits": {"cpu": "1500m", "memory": "64Mi"}}
    async with stacked(tmp_path) as stack:
        await stack.apply(pod_manifest("p", container={"resources": resources, "workingDir": "/w"}))
        (request,) = stack.below.created
        wanted = request.container.resources
        assert (wanted.cpu_weight, wanted.cpu_quota_ns, wanted.cpu_period_ns) == (25, 150_000_000, 100_000_000)
        assert wanted.memory_limit_bytes == 64 << 20
        labels = {label.key: label.value for label in request.container.labels}
        assert labels["io.kubernetes.pod.name"] == "p"
        assert labels["io.kubernetes.container.restartCount"] == "0"
        assert request.container.working_dir == "/w"


async def test_strangers_are_left_alone(tmp_path: Path) -> None:
    """Containers without a pod's labels are not reported, and errors arrive with their reasons."""
    async with stacked(tmp_path) as stack:
        stack.below.strays.append(runtime_pb.Container(name="hosts/h1/containers/x", image="y"))
        client = RuntimeClient(stack.channel, SteppedClock())
        assert await client.list_containers() == ([], 0)
        with pytest.raises(NotFound) as caught:
            await client.resolve_image("nowhere")
        assert caught.value.reason == "IMAGE_UNKNOWN"


async def test_all_pages_of_sandboxes_are_read(tmp_path: Path) -> None:
    """A listing of sandboxes in several pages is read to its end."""
    async with stacked(tmp_path) as stack:
        await stack.apply(pod_manifest("p") + "\n---\n" + pod_manifest("q"))
        assert len(await RuntimeClient(stack.channel, SteppedClock()).list_sandboxes()) == 2


async def test_another_layer_is_refused(tmp_path: Path) -> None:
    """An address at which another layer answers is refused at the first call."""
    clock = SteppedClock()
    channel = local(FakeService(FakeRuntime(clock)), LayerState("mmu", "h1", clock, Rng(1)))
    with pytest.raises(FailedPrecondition, match="not as a container runtime"):
        await RuntimeClient(channel, SteppedClock()).hello()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.1:50055", "ADDRESS_UNSUPPORTED"),
        ("mmu", "ADDRESS_INVALID"),
        ("unix:relative", "ADDRESS_INVALID"),
        ("unix:/" + "x" * 200, "SOCKET_PATH_TOO_LONG"),
    ],
)
def test_addresses_beyond_the_host_are_refused(address: str, reason: str) -> None:
    """Only channels of this process, UNIX sockets and loopback are taken as addresses of runtimes."""
    connector = ChannelConnector({}, SteppedClock())
    with pytest.raises(InvalidArgument) as caught:
        connector.check(address)
    assert caught.value.reason == reason
    for good in ("unix:/run/x.sock", "127.0.0.1:50055", "localhost:1"):
        connector.check(good)
