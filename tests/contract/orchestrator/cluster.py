"""An orchestrator with fake runtimes behind an in-process channel, on a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2 as pb
from lamina.orchestrator.v1 import orchestrator_pb2_grpc as rpc
from tests.contract.orchestrator.fake_runtime import FakeRuntime, Profile
from tests.contract.orchestrator.stepped_clock import SteppedClock

from lamina_kit.errors import InvalidArgument
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.domain.pods.containers import RUNNING, ContainerState
from lamina_orchestrator.io.runtimes.runtime import Runtime
from lamina_orchestrator.server import RUNTIME_CHANNEL, build

SECOND = 10**9
IMAGE = "lamina.local/hello:latest"
HELLO = (Path(__file__).parents[3] / "examples" / "hello.yaml").read_text()


class Cluster:
    """What a test holds: stubs, clock, and the runtimes by address."""

    def __init__(self, state_dir: Path, seed: int = 1, **settings: Any) -> None:
        self.clock = SteppedClock()
        self.runtimes = {RUNTIME_CHANNEL: FakeRuntime(self.clock, "h1")}
        self._dir = state_dir
        self._seed = seed
        self._settings = settings

    async def start(self) -> None:
        """Starts the orchestrator, for the first time or again; the runtimes go on meanwhile."""
        self.layer = LayerState("orchestrator", "", self.clock, Rng(self._seed).child("state"))
        environment = Environment("h1", self.clock, Rng(self._seed), self._dir, self.layer)
        self.service = build(environment, OrchestratorConfig(**self._settings), self._connect)
        await self.service.start()
        channel = local(self.service, self.layer)
        self.objects, self.pods, self.nodes = rpc.ObjectsStub(channel), rpc.PodsStub(channel), rpc.NodesStub(channel)
        self.explain = layer_pb2_grpc.LayerStub(channel)
        await self.run(1)

    async def stop(self) -> None:
        """Stops the orchestrator."""
        await self.service.stop()

    def _connect(self, address: str) -> Runtime:
        runtime = self.runtimes.get(address)
        if runtime is None:
            raise InvalidArgument(f"No runtime {address}.", reason="ADDRESS_UNSUPPORTED")
        return runtime

    @property
    def runtime(self) -> FakeRuntime:
        """The local host's runtime."""
        return self.runtimes[RUNTIME_CHANNEL]

    async def run(self, seconds: int = 1) -> None:
        """Moves time on; everything that is ready runs."""
        await self.clock.advance(seconds * SECOND)

    async def add_node(self, name: str, **fields: Any) -> FakeRuntime:
        """Registers one more host with a runtime of its own."""
        runtime = FakeRuntime(self.clock, name)
        runtime.images.update(self.runtime.images)
        self.runtimes[name] = runtime
        wanted: dict[str, Any] = {"cpu_millicores": 4000, "memory_bytes": 8 << 30, **fields}
        await self.nodes.RegisterNode(pb.RegisterNodeRequest(host=name, runtime_address=name, **wanted))
        await self.run()
        return runtime

    def has_image(self, image: str = IMAGE, **profile: Any) -> None:
        """Puts an image on every node."""
        for runtime in self.runtimes.values():
            runtime.images[image] = Profile(**profile)

    def running(self, node: str = RUNTIME_CHANNEL) -> list[ContainerState]:
        """Containers that run on a node."""
        return self.runtimes[node].containers(RUNNING)

    async def apply(self, manifest: str = HELLO, **fields: Any) -> pb.ApplyObjectsResponse:
        """Applies a manifest and lets a second pass."""
        answer: pb.ApplyObjectsResponse = await self.objects.ApplyObjects(
            pb.ApplyObjectsRequest(manifest=manifest, **fields)
        )
        await self.run()
        return answer

    async def all_of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """All objects of a kind, decoded."""
        page = await self.objects.ListObjects(pb.ListObjectsRequest(kind=kind, page_size=1000, **fields))
        return [json.loads(one.json) for one in page.objects]

    async def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """One object, decoded."""
        reference = pb.ObjectReference(kind=kind, name=name, namespace=namespace)
        found = await self.objects.GetObject(pb.GetObjectRequest(reference=reference))
        obj: dict[str, Any] = json.loads(found.json)
        return obj

    async def scale(self, name: str, replicas: int, kind: str = "Deployment") -> None:
        """Scales and lets a second pass."""
        reference = pb.ObjectReference(kind=kind, name=name)
        await self.objects.ScaleObject(pb.ScaleObjectRequest(reference=reference, replicas=replicas))
        await self.run()

    async def patch(self, kind: str, name: str, **change: Any) -> dict[str, Any]:
        """Applies a merge patch and lets a second pass."""
        reference = pb.ObjectReference(kind=kind, name=name)
        request = pb.PatchObjectRequest(reference=reference, merge_patch=json.dumps(change))
        answer = await self.objects.PatchObject(request)
        await self.run()
        obj: dict[str, Any] = json.loads(answer.json)
        return obj

    async def delete(self, kind: str, name: str, **fields: Any) -> pb.DeleteObjectResponse:
        """Deletes and lets a second pass."""
        reference = pb.ObjectReference(kind=kind, name=name)
        answer: pb.DeleteObjectResponse = await self.objects.DeleteObject(
            pb.DeleteObjectRequest(reference=reference, **fields)
        )
        await self.run()
        return answer

    async def reasons(self) -> list[str]:
        """Reasons of all Events, in the order in which they last happened."""
        events = await self.all_of("Event")
        return [event["reason"] for event in sorted(events, key=lambda event: event["lastTimestamp"])]

    async def decisions(self, name: str) -> list[Any]:
        """The decisions about an object, newest first."""
        answer = await self.explain.Explain(layer_pb2.ExplainRequest(object=name))
        return list(answer.decisions)


@asynccontextmanager
async def started(state_dir: Path, **settings: Any) -> AsyncIterator[Cluster]:
    """A cluster of one node with the hello image."""
    cluster = Cluster(state_dir, **settings)
    cluster.has_image(output=b"hello\nworld\n")
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


def pod_manifest(name: str, **spec: Any) -> str:
    """A pod of the hello image."""
    container = {"name": "main", "image": IMAGE, **spec.pop("container", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}
    return json.dumps(pod)


def phases(pods: list[dict[str, Any]]) -> list[str]:
    """Phases of pods."""
    return [pod["status"]["phase"] for pod in pods]


def waiting_reason(pod: dict[str, Any]) -> str:
    """Why a pod's first container waits; empty if it does not."""
    state = pod["status"]["containerStatuses"][0]["state"]
    return str(state.get("waiting", {}).get("reason", ""))
