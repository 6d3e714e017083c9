"""A node's container runtime over its contract, lamina.container_runtime.v1.

Containers and sandboxes without a pod's labels belong to somebody else and are left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition
from lamina_kit.layer.owner_session import REVISION
from lamina_kit.rpc.channel import Channel
from lamina_kit.rpc.retry import Retry
from lamina_kit.rpc.status import rpc_error
from lamina_orchestrator.domain.kinds.timestamps import SECOND
from lamina_orchestrator.domain.pods.containers import (
    CONTAINER_NAME,
    CREATED,
    EXITED,
    POD_UID,
    REMOVED,
    RUNNING,
    ContainerSpec,
    ContainerState,
    Image,
    Labels,
    SandboxSpec,
    SandboxState,
)
from lamina_orchestrator.io.runtimes.runtime import STDERR, STDOUT, LogChunk

T = TypeVar("T")
PERIOD_NS = 100_000_000
MARGIN_S = 30
PAGE = 1000
_STATES = {
    pb.Container.STATE_CREATED: CREATED,
    pb.Container.STATE_RUNNING: RUNNING,
    pb.Container.STATE_EXITED: EXITED,
}
_STREAMS = {pb.LogEntry.STREAM_STDOUT: STDOUT, pb.LogEntry.STREAM_STDERR: STDERR}


class RuntimeClient:
    """A runtime behind a channel; see `runtime.Runtime`. `owned` says that the channel is closed with the client.

    What may be asked twice is asked again while its answers are lost: creation by its request id above all, so that no
    sandbox is made whose name nobody learns.
    """

    def __init__(self, channel: Channel, clock: Clock, *, owned: bool = False) -> None:
        self._retry = Retry(clock)
        self._channel = channel
        self._owned = owned
        self._layer = layer_pb2_grpc.LayerStub(channel)
        self._images = rpc.ImagesStub(channel)
        self._sandboxes = rpc.SandboxesStub(channel)
        self._containers = rpc.ContainersStub(channel)

    async def hello(self) -> None:
        """Introduces the orchestrator; refuses a layer of another kind."""
        request = layer_pb2.HandshakeRequest(caller="orchestrator", revision=REVISION)
        answer = await _call(self._layer.Handshake(request))
        if answer.layer != "container-runtime":
            raise FailedPrecondition(
                f"The address answers as {answer.layer}, not as a container runtime.",
                reason="REVISION_MISMATCH",
                next_step="Register the node with the address of its container runtime.",
            )

    async def resolve_image(self, reference: str) -> Image:
        """The image of a reference."""
        image = await self._call(lambda: self._images.GetImage(pb.GetImageRequest(reference=reference)))
        return Image(image.name, image.digest)

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState:
        """Creates a sandbox and makes it ready."""
        sandbox = pb.Sandbox(
            metadata=pb.SandboxMetadata(
                name=spec.pod_name, namespace=spec.pod_namespace, uid=spec.pod_uid, attempt=spec.attempt
            ),
            hostname=spec.hostname,
            labels=_pairs(spec.labels),
            annotations=_pairs(spec.annotations),
        )
        request = pb.RunSandboxRequest(sandbox=sandbox, request_id=f"{spec.pod_uid}/{spec.attempt}")
        return _sandbox(await self._call(lambda: self._sandboxes.RunSandbox(request)))

    async def stop_sandbox(self, name: str) -> None:
        """Kills what runs in a sandbox."""
        await self._call(lambda: self._sandboxes.StopSandbox(pb.StopSandboxRequest(name=name)))

    async def remove_sandbox(self, name: str) -> None:
        """Removes a sandbox and its containers."""
        await self._call(lambda: self._sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=name)))

    async def list_sandboxes(self) -> list[SandboxState]:
        """All sandboxes that were made for pods."""
        found: list[SandboxState] = []
        token = ""
        while True:
            request = pb.ListSandboxesRequest(page_size=PAGE, page_token=token)
            page = await _call(self._sandboxes.ListSandboxes(request))
            found += [_sandbox(sandbox) for sandbox in page.sandboxes if POD_UID in _mapping(sandbox.labels)]
            token = page.next_page_token
            if not token:
                return found

    async def create_container(self, sandbox: str, pod_uid: str, spec: ContainerSpec) -> ContainerState:
        """Creates a container."""
        container = pb.Container(
            sandbox=sandbox,
            metadata=pb.ContainerMetadata(name=spec.name, attempt=spec.attempt),
            image=spec.image,
            command=spec.command,
            args=spec.args,
            env=spec.env,
            working_dir=spec.working_dir,
            labels=_pairs(spec.labels),
            annotations=_pairs(spec.annotations),
            resources=_resources(spec),
        )
        request_id = f"{pod_uid}/{spec.name}/{spec.attempt}"
        request = pb.CreateContainerRequest(container=container, request_id=request_id)
        return _container(await self._call(lambda: self._containers.CreateContainer(request)))

    async def start_container(self, name: str) -> ContainerState:
        """Starts a created container."""
        return _container(await _call(self._containers.StartContainer(pb.StartContainerRequest(name=name))))

    async def stop_container(self, name: str, grace_ns: int) -> ContainerState:
        """Stops a container; the call may take as long as the grace period."""
        request = pb.StopContainerRequest(name=name, grace_period_ns=min(grace_ns, 3600 * SECOND))
        timeout = min(grace_ns, 3600 * SECOND) // SECOND + MARGIN_S
        return _container(await self._call(lambda: self._containers.StopContainer(request, timeout=timeout)))

    async def remove_container(self, name: str) -> None:
        """Removes a container and its log."""
        await self._call(lambda: self._containers.RemoveContainer(pb.RemoveContainerRequest(name=name)))

    async def list_containers(self) -> tuple[list[ContainerState], int]:
        """All containers of pods, and the revision to watch from."""
        found: list[ContainerState] = []
        token, revision = "", 0
        while True:
            request = pb.ListContainersRequest(page_size=PAGE, page_token=token)
            page = await _call(self._containers.ListContainers(request))
            found += [_container(one) for one in page.containers if POD_UID in _mapping(one.labels)]
            revision = revision or page.revision
            token = page.next_page_token
            if not token:
                return found, revision

    async def watch_containers(self, revision: int) -> AsyncIterator[ContainerState]:
        """Changes of containers of pods after a revision."""
        stream = self._containers.WatchContainers(pb.WatchContainersRequest(revision=revision))
        async for event in _stream(stream):
            if POD_UID not in _mapping(event.container.labels):
                continue
            state = _container(event.container)
            if event.type == pb.ContainerEvent.TYPE_DELETED:
                state = ContainerState(
                    state.name, state.sandbox, state.pod_uid, state.container, state.attempt, REMOVED
                )
            yield state

    async def read_logs(self, name: str, follow: bool, tail_lines: int | None) -> AsyncIterator[LogChunk]:
        """The output of a container."""
        request = pb.ReadLogsRequest(name=name, follow=follow)
        if tail_lines is not None:
            request.tail_lines = tail_lines
        async for entry in _stream(self._containers.ReadLogs(request)):
            yield LogChunk(entry.data, _STREAMS.get(entry.stream, STDOUT), entry.wall_time_ns)

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Makes a call that may be made twice, and makes it again while its answer is lost."""
        return await self._retry.call(make)

    async def close(self) -> None:
        """Closes the channel if it is ours."""
        if self._owned:
            await self._channel.close()


async def _call(call: Awaitable[T]) -> T:
    """Awaits a call; a failed one raises the error that the runtime raised."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise rpc_error(error) from error


async def _stream(call: Any) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise rpc_error(error) from error
    finally:
        call.cancel()


def _pairs(labels: Labels) -> list[pb.Label]:
    return [pb.Label(key=key, value=value) for key, value in labels]


def _mapping(labels: Any) -> Mapping[str, str]:
    return {label.key: label.value for label in labels}


def _sandbox(sandbox: pb.Sandbox) -> SandboxState:
    return SandboxState(
        sandbox.name,
        _mapping(sandbox.labels).get(POD_UID, sandbox.metadata.uid),
        sandbox.metadata.attempt,
        sandbox.state == pb.Sandbox.STATE_READY,
        sandbox.create_wall_time_ns,
    )


def _container(container: pb.Container) -> ContainerState:
    labels = _mapping(container.labels)
    digest = container.resolved_image.rpartition("/")[2]
    return ContainerState(
        name=container.name,
        sandbox=container.sandbox,
        pod_uid=labels.get(POD_UID, ""),
        container=labels.get(CONTAINER_NAME, container.metadata.name),
        attempt=container.metadata.attempt,
        state=_STATES.get(container.state, CREATED),
        image=container.image,
        image_name=f"sha256:{digest}" if digest else "",
        exit_code=container.exit_code,
        reason=container.reason,
        message=container.message,
        created_ns=container.create_wall_time_ns,
        started_ns=container.start_wall_time_ns,
        finished_ns=container.exit_wall_time_ns,
    )


def _resources(spec: ContainerSpec) -> pb.Resources:
    limits = spec.limits
    return pb.Resources(
        cpu_weight=max(1, min(limits.cpu_request_millis // 10, 10_000)),
        cpu_period_ns=PERIOD_NS if limits.cpu_limit_millis else 0,
        cpu_quota_ns=limits.cpu_limit_millis * PERIOD_NS // 1000,
        memory_limit_bytes=limits.memory_limit_bytes,
    )
