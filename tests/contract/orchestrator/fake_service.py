"""The container runtime's contract served by a fake runtime, so that the client is tested over its real messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc
from tests.contract.orchestrator.fake_runtime import FakeRuntime

from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    REMOVED,
    RUNNING,
    ContainerSpec,
    ContainerState,
    Labels,
    Limits,
    SandboxSpec,
    SandboxState,
)

_STATES = {
    CREATED: pb.Container.STATE_CREATED,
    RUNNING: pb.Container.STATE_RUNNING,
    EXITED: pb.Container.STATE_EXITED,
    REMOVED: pb.Container.STATE_EXITED,
}


class FakeService:
    """Serves a fake runtime; see `lamina_kit.layer.service.Service`. `created` keeps what containers were asked for."""

    layer = "container-runtime"
    service_names = tuple(f"lamina.container_runtime.v1.{name}" for name in ("Images", "Sandboxes", "Containers"))

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.created: list[pb.CreateContainerRequest] = []
        self.labels: dict[str, Labels] = {}
        self.strays: list[pb.Container] = []

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicers."""
        rpc.add_ImagesServicer_to_server(_Images(self), server)
        rpc.add_SandboxesServicer_to_server(_Sandboxes(self), server)
        rpc.add_ContainersServicer_to_server(_Containers(self), server)

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""

    def container(self, state: ContainerState) -> pb.Container:
        """A container as the contract sends it."""
        return pb.Container(
            name=state.name,
            sandbox=state.sandbox,
            metadata=pb.ContainerMetadata(name=state.container, attempt=state.attempt),
            image=state.image,
            resolved_image="hosts/h1/images/abc",
            labels=to_labels(self.labels.get(state.name, ())),
            state=_STATES[state.state],
            exit_code=state.exit_code,
            reason=state.reason,
            create_wall_time_ns=state.created_ns,
            start_wall_time_ns=state.started_ns,
            exit_wall_time_ns=state.finished_ns,
        )


def to_labels(labels: Labels) -> list[pb.Label]:
    """Labels as the contract sends them."""
    return [pb.Label(key=key, value=value) for key, value in labels]


def of_labels(labels: Any) -> Labels:
    """Labels as the domain has them."""
    return tuple((label.key, label.value) for label in labels)


class _Images(rpc.ImagesServicer):
    def __init__(self, service: FakeService) -> None:
        self._runtime = service.runtime

    async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.Image:
        image = await self._runtime.resolve_image(request.reference)
        return pb.Image(name=image.name, digest=image.digest)


class _Sandboxes(rpc.SandboxesServicer):
    def __init__(self, service: FakeService) -> None:
        self._service = service
        self._runtime = service.runtime

    def _sandbox(self, state: SandboxState) -> pb.Sandbox:
        ready = pb.Sandbox.STATE_READY if state.ready else pb.Sandbox.STATE_NOT_READY
        spec = self._runtime.specs[state.name]
        return pb.Sandbox(
            name=state.name,
            metadata=pb.SandboxMetadata(name=spec.pod_name, uid=state.pod_uid, attempt=state.attempt),
            labels=to_labels(spec.labels),
            state=ready,
        )

    async def RunSandbox(self, request: pb.RunSandboxRequest, context: Any) -> pb.Sandbox:
        wanted, who = request.sandbox, request.sandbox.metadata
        assert request.request_id == f"{who.uid}/{who.attempt}"
        spec = SandboxSpec(who.name, who.namespace, who.uid, who.attempt, wanted.hostname, of_labels(wanted.labels))
        return self._sandbox(await self._runtime.run_sandbox(spec))

    async def StopSandbox(self, request: pb.StopSandboxRequest, context: Any) -> pb.Sandbox:
        await self._runtime.stop_sandbox(request.name)
        return self._sandbox(self._runtime.sandboxes[request.name])

    async def RemoveSandbox(self, request: pb.RemoveSandboxRequest, context: Any) -> pb.RemoveSandboxResponse:
        await self._runtime.remove_sandbox(request.name)
        return pb.RemoveSandboxResponse()

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Any) -> pb.ListSandboxesResponse:
        found = [self._sandbox(state) for state in await self._runtime.list_sandboxes()]
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return pb.ListSandboxesResponse(sandboxes=found[start : start + 1], next_page_token=token)


class _Containers(rpc.ContainersServicer):
    def __init__(self, service: FakeService) -> None:
        self._service = service
        self._runtime = service.runtime

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Any) -> pb.Container:
        self._service.created.append(request)
        wanted = request.container
        spec = ContainerSpec(
            wanted.metadata.name,
            wanted.metadata.attempt,
            wanted.image,
            tuple(wanted.command),
            tuple(wanted.args),
            tuple(wanted.env),
            wanted.working_dir,
            Limits(),
            of_labels(wanted.labels),
        )
        uid = dict(spec.labels)["io.kubernetes.pod.uid"]
        state = await self._runtime.create_container(wanted.sandbox, uid, spec)
        self._service.labels[state.name] = spec.labels
        return self._service.container(state)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Any) -> pb.Container:
        return self._service.container(await self._runtime.start_container(request.name))

    async def StopContainer(self, request: pb.StopContainerRequest, context: Any) -> pb.Container:
        state = await self._runtime.stop_container(request.name, request.grace_period_ns)
        return self._service.container(state)

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Any) -> pb.RemoveContainerResponse:
        await self._runtime.remove_container(request.name)
        return pb.RemoveContainerResponse()

    async def ListContainers(self, request: pb.ListContainersRequest, context: Any) -> pb.ListContainersResponse:
        states, revision = await self._runtime.list_containers()
        found = [*self._service.strays, *(self._service.container(state) for state in states)]
        return pb.ListContainersResponse(containers=found, revision=revision)

    async def WatchContainers(
        self, request: pb.WatchContainersRequest, context: Any
    ) -> AsyncIterator[pb.ContainerEvent]:
        async for state in self._runtime.watch_containers(request.revision):
            deleted = state.state == REMOVED
            kind = pb.ContainerEvent.TYPE_DELETED if deleted else pb.ContainerEvent.TYPE_STARTED
            yield pb.ContainerEvent(type=kind, container=self._service.container(state))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.LogEntry]:
        tail = request.tail_lines if request.HasField("tail_lines") else None
        async for chunk in self._runtime.read_logs(request.name, request.follow, tail):
            yield pb.LogEntry(data=chunk.data, stream=pb.LogEntry.STREAM_STDOUT, wall_time_ns=chunk.time_ns)
