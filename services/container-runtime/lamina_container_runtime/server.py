"""The container runtime as a service: parses requests, calls the runtime, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from grpc import aio
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc

from lamina_container_runtime import convert
from lamina_container_runtime.config import ContainerRuntimeConfig
from lamina_container_runtime.domain.pagination import page
from lamina_container_runtime.faults import RuntimeFaults
from lamina_container_runtime.metrics import families
from lamina_container_runtime.requests import (
    image_key,
    log_request,
    matching_containers,
    matching_sandboxes,
    process_owner,
    receive_archive,
)
from lamina_container_runtime.runtime import Runtime
from lamina_kit.checks import Checks
from lamina_kit.layer.service import Environment, Service

Context = aio.ServicerContext[Any, Any]
_HOUR_NS = 3600 * 10**9
_PACKAGE = "lamina.container_runtime.v1."


def build(environment: Environment, config: ContainerRuntimeConfig) -> Service:
    """Returns the service; `start` needs channels to `hardware` and `mmu` in the environment."""
    return ContainerRuntimeService(environment, config)


class ContainerRuntimeService:
    """The container runtime of one host."""

    layer = "container-runtime"
    service_names = (f"{_PACKAGE}Images", f"{_PACKAGE}Sandboxes", f"{_PACKAGE}Containers")
    adapters = ("lamina.cri.v1",)

    def __init__(self, environment: Environment, config: ContainerRuntimeConfig) -> None:
        self.runtime = Runtime(environment, config)
        RuntimeFaults(self.runtime).register(environment.layer.faults)
        environment.layer.metrics.add(partial(families, self.runtime))

    def register(self, server: aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_ImagesServicer_to_server(ImagesServicer(self.runtime), server)
        rpc.add_SandboxesServicer_to_server(SandboxesServicer(self.runtime), server)
        rpc.add_ContainersServicer_to_server(ContainersServicer(self.runtime), server)

    async def start(self) -> None:
        """Opens what the runtime needs, and reconciles."""
        await self.runtime.start()

    async def stop(self) -> None:
        """Ends what runs. Idempotent."""
        await self.runtime.stop()


class ImagesServicer(rpc.ImagesServicer):
    """Serves `lamina.container_runtime.v1.Images`."""

    def __init__(self, runtime: Runtime) -> None:
        self._r = runtime

    async def ImportImage(
        self, request_iterator: AsyncIterator[pb.ImportImageRequest], context: Context
    ) -> pb.ImportImageResponse:
        """Imports an archive."""
        with self._r.spool() as file:
            reference, size = await receive_archive(request_iterator, file)
            images = await self._r.import_image(file, reference)
        return pb.ImportImageResponse(images=[convert.image(image, self._r.names) for image in images], read_bytes=size)

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> pb.Image:
        """Returns an image."""
        key = image_key(request.name, request.reference, self._r.names)
        return convert.image(self._r.images.resolve(key), self._r.names)

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        """Lists images."""
        found, token = page(self._r.images.all(), lambda image: image.image_id, request.page_size, request.page_token)
        return pb.ListImagesResponse(
            images=[convert.image(image, self._r.names) for image in found], next_page_token=token
        )

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: Context) -> pb.DeleteImageResponse:
        """Deletes an image or a reference."""
        removed, deleted, freed = await self._r.delete_image(image_key(request.name, request.reference, self._r.names))
        return pb.DeleteImageResponse(removed_references=removed, image_deleted=deleted, freed_bytes=freed)


class SandboxesServicer(rpc.SandboxesServicer):
    """Serves `lamina.container_runtime.v1.Sandboxes`."""

    def __init__(self, runtime: Runtime) -> None:
        self._r = runtime

    async def RunSandbox(self, request: pb.RunSandboxRequest, context: Context) -> pb.Sandbox:
        """Creates a sandbox."""
        with Checks() as check:
            check.max_bytes("request_id", request.request_id, 127)
        step = self._r.engine.run_sandbox(convert.sandbox_spec(request.sandbox), request.request_id)
        return convert.sandbox(await self._r.drive(step), self._r.names)

    async def StopSandbox(self, request: pb.StopSandboxRequest, context: Context) -> pb.Sandbox:
        """Stops a sandbox."""
        step = self._r.engine.stop_sandbox(self._r.names.sandbox_id(request.name))
        return convert.sandbox(await self._r.drive(step), self._r.names)

    async def RemoveSandbox(self, request: pb.RemoveSandboxRequest, context: Context) -> pb.RemoveSandboxResponse:
        """Removes a sandbox."""
        await self._r.drive(self._r.engine.remove_sandbox(self._r.names.sandbox_id(request.name)))
        return pb.RemoveSandboxResponse()

    async def GetSandbox(self, request: pb.GetSandboxRequest, context: Context) -> pb.Sandbox:
        """Returns a sandbox."""
        return convert.sandbox(self._r.engine.sandbox(self._r.names.sandbox_id(request.name)), self._r.names)

    async def ListSandboxes(self, request: pb.ListSandboxesRequest, context: Context) -> pb.ListSandboxesResponse:
        """Lists sandboxes."""
        matching = matching_sandboxes(request, self._r.engine)
        found, token = page(matching, lambda item: item.sandbox_id, request.page_size, request.page_token)
        return pb.ListSandboxesResponse(
            sandboxes=[convert.sandbox(item, self._r.names) for item in found], next_page_token=token
        )


class ContainersServicer(rpc.ContainersServicer):
    """Serves `lamina.container_runtime.v1.Containers`."""

    def __init__(self, runtime: Runtime) -> None:
        self._r = runtime

    async def CreateContainer(self, request: pb.CreateContainerRequest, context: Context) -> pb.Container:
        """Creates a container."""
        with Checks() as check:
            check.max_bytes("request_id", request.request_id, 127)
        spec = convert.container_spec(request.container, self._r.names)
        record = await self._r.drive(self._r.engine.create_container(spec, request.request_id))
        return convert.container(record, self._r.names)

    async def StartContainer(self, request: pb.StartContainerRequest, context: Context) -> pb.Container:
        """Starts a container."""
        step = self._r.engine.start_container(self._r.names.container_id(request.name))
        return convert.container(await self._r.drive(step), self._r.names)

    async def StopContainer(self, request: pb.StopContainerRequest, context: Context) -> pb.Container:
        """Stops a container."""
        with Checks() as check:
            check.range("grace_period_ns", request.grace_period_ns, 0, _HOUR_NS)
        container_id = self._r.names.container_id(request.name)
        record = await self._r.drive(self._r.engine.stop_container(container_id, request.grace_period_ns))
        return convert.container(record, self._r.names)

    async def KillContainer(self, request: pb.KillContainerRequest, context: Context) -> pb.KillContainerResponse:
        """Sends a signal."""
        with Checks() as check:
            check.range("signal", request.signal, 0, 64)
            check.range("pid", request.pid, 0, 2**31 - 1)
        container_id = self._r.names.container_id(request.name)
        self._r.engine.kill_container(container_id, request.signal or 9, request.pid)
        return pb.KillContainerResponse()

    async def RemoveContainer(self, request: pb.RemoveContainerRequest, context: Context) -> pb.RemoveContainerResponse:
        """Removes a container."""
        await self._r.drive(self._r.engine.remove_container(self._r.names.container_id(request.name)))
        return pb.RemoveContainerResponse()

    async def GetContainer(self, request: pb.GetContainerRequest, context: Context) -> pb.Container:
        """Returns a container."""
        record = self._r.engine.container(self._r.names.container_id(request.name))
        return convert.container(record, self._r.names)

    async def ListContainers(self, request: pb.ListContainersRequest, context: Context) -> pb.ListContainersResponse:
        """Lists containers."""
        matching = matching_containers(request, self._r.names, self._r.engine)
        found, token = page(matching, lambda item: item.container_id, request.page_size, request.page_token)
        messages = [convert.container(item, self._r.names) for item in found]
        return pb.ListContainersResponse(containers=messages, next_page_token=token, revision=self._r.engine.revision())

    async def WaitContainer(self, request: pb.WaitContainerRequest, context: Context) -> pb.Container:
        """Waits for a container."""
        step = self._r.engine.wait_container(self._r.names.container_id(request.name))
        return convert.container(await self._r.drive_cancellable(step), self._r.names)

    async def WatchContainers(
        self, request: pb.WatchContainersRequest, context: Context
    ) -> AsyncIterator[pb.ContainerEvent]:
        """Streams changes."""
        sandbox_id = self._r.names.sandbox_id(request.sandbox, "sandbox") if request.sandbox else ""
        async for change in self._r.watch(request.revision):
            if not sandbox_id or change.container.spec.sandbox_id == sandbox_id:
                yield convert.event(change, self._r.names)

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> AsyncIterator[pb.LogEntry]:
        """Streams a log."""
        wanted = log_request(request, self._r.names)
        self._r.engine.container(wanted.container_id)
        async for line in self._r.read_logs(wanted.container_id, follow=request.follow, tail=wanted.tail):
            if line.time_ns >= request.since_wall_time_ns and wanted.stream in ("", line.stream):
                yield convert.log_entry(line)

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: Context) -> pb.ListProcessesResponse:
        """Lists processes."""
        found, token = page(
            self._r.engine.processes(process_owner(request, self._r.names, self._r.engine)),
            lambda info: f"{info.container_id}/{info.pid:010}",
            request.page_size,
            request.page_token,
        )
        processes = [convert.process(info, self._r.names) for info in found]
        return pb.ListProcessesResponse(processes=processes, next_page_token=token)
