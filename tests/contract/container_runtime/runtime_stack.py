"""A container runtime on real hardware and MMU layers, in one process, for the contract and integration suites."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc
from lamina.mmu.v1 import mmu_pb2_grpc
from tests.virtual_time import clock_of_loop

from lamina_cli.guests.oci import Config, File, build_image
from lamina_cli.guests.programs import compile_program
from lamina_container_runtime.config import ContainerRuntimeConfig
from lamina_container_runtime.server import ContainerRuntimeService
from lamina_container_runtime.server import build as build_runtime
from lamina_hardware.config import HardwareConfig
from lamina_hardware.server import build as build_hardware
from lamina_kit.layer.service import Environment, Served, Service, local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel, connect
from lamina_mmu.config import MmuConfig
from lamina_mmu.server import build as build_mmu

GUESTS = Path(__file__).parents[3] / "guests"
PROGRAMS = Path(__file__).parent / "programs"


def compile_test_program(name: str) -> bytes:
    """Returns the ELF of `programs/NAME.c`, compiled with the library of the guests."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(GUESTS / "lib", folder / "lib")
        for source in PROGRAMS.glob("*.[ch]"):
            shutil.copy(source, folder)
        return compile_program(name, folder)


def image_of(*programs: str, files: Sequence[File] = (), config: Config | None = None) -> bytes:
    """Returns an OCI image with test programs at its root."""
    entries = [File(name, compile_test_program(name), mode=0o755) for name in programs]
    return build_image([*entries, *files], config or Config(entrypoint=(f"/{programs[0]}",) if programs else ()))


@dataclass
class Ended:
    """How a container ended and what it wrote."""

    code: int
    reason: str
    message: str
    out: bytes
    err: bytes


@dataclass
class Stack:
    """The three layers and stubs of the top one."""

    folder: Path
    engine: str = "model"
    clock: Any = field(default_factory=clock_of_loop)
    services: list[Service] = field(default_factory=list)
    channels: dict[str, Channel] = field(default_factory=dict)
    states: dict[str, LayerState] = field(default_factory=dict)
    names: int = 0
    starts: int = 0
    sockets: bool = False
    """Whether the layers talk over UNIX sockets, as in the split topology."""
    served: list[Served] = field(default_factory=list)

    async def start(self, runtime: ContainerRuntimeConfig | None = None, memory_bytes: int = 512 << 20) -> None:
        """Starts the layers bottom up."""
        await self.add_host(memory_bytes)
        await self.add("container-runtime", build_runtime, runtime or ContainerRuntimeConfig())

    async def add_host(self, memory_bytes: int) -> None:
        """Starts what is below the runtime."""
        await self.add("hardware", build_hardware, HardwareConfig(cores=2, memory_bytes=memory_bytes))
        await self.add("mmu", build_mmu, MmuConfig(swap_bytes=32 << 20))

    async def add(self, layer: str, build: Any, config: Any) -> None:
        """Starts one layer over those that are there."""
        self.starts += 1
        rng = Rng(f"test/{layer}/{self.starts}")
        state = LayerState(layer, "h1", self.clock, rng)
        state.engine = self.engine
        folder = self.folder / layer
        folder.mkdir(exist_ok=True)
        environment = Environment(
            host="h1",
            clock=self.clock,
            rng=rng,
            state_dir=folder,
            layer=state,
            channels=dict(self.channels),
            bus_path=self.folder / "bus.ram",
        )
        service = build(environment, config)
        await service.start()
        self.services.append(service)
        self.states[layer] = state
        if self.sockets:
            address = f"unix:{self.folder}/{layer}.sock"
            self.served.append(await serve(service, [address], state))
            self.channels[layer] = connect(address)
        else:
            self.channels[layer] = local(service, state)

    async def restart_runtime(self) -> None:
        """Stops the runtime without telling its containers, and starts it anew on the same state."""
        await self.services.pop().stop()
        await self.add("container-runtime", build_runtime, ContainerRuntimeConfig())

    async def reboot_host(self) -> None:
        """Takes the host's power away and gives it back: new hardware and MMU on the sockets of the old ones."""
        runtime, runtime_served = self.services.pop(), self.served.pop()
        while self.services:
            await self.served.pop().stop(0)
            await self.services.pop().stop()
        await self.add_host(512 << 20)
        self.services.append(runtime)
        self.served.append(runtime_served)

    def has_rebooted(self, sessions: int) -> bool:
        """Returns whether the runtime noticed the reboot on so many sessions."""
        events = self.states["container-runtime"].events.list(limit=1000)
        return sum(event.event == "host.rebooted" for event in events) >= sessions

    async def remove_all(self) -> None:
        """Removes every sandbox, with its containers, and every image."""
        for sandbox in (await self.sandboxes.ListSandboxes(pb.ListSandboxesRequest(page_size=1000))).sandboxes:
            await self.sandboxes.StopSandbox(pb.StopSandboxRequest(name=sandbox.name))
            await self.sandboxes.RemoveSandbox(pb.RemoveSandboxRequest(name=sandbox.name))
        for image in (await self.images.ListImages(pb.ListImagesRequest(page_size=1000))).images:
            await self.images.DeleteImage(pb.DeleteImageRequest(name=image.name))

    async def stop(self) -> None:
        """Stops the layers top down."""
        while self.services:
            if self.served:
                await self.served.pop().stop(0)
            await self.services.pop().stop()

    @property
    def service(self) -> ContainerRuntimeService:
        """The runtime itself."""
        found = self.services[-1]
        assert isinstance(found, ContainerRuntimeService)
        return found

    @property
    def images(self) -> rpc.ImagesStub:
        """Stub."""
        return rpc.ImagesStub(self.channels["container-runtime"])

    @property
    def sandboxes(self) -> rpc.SandboxesStub:
        """Stub."""
        return rpc.SandboxesStub(self.channels["container-runtime"])

    @property
    def containers(self) -> rpc.ContainersStub:
        """Stub."""
        return rpc.ContainersStub(self.channels["container-runtime"])

    @property
    def spaces(self) -> mmu_pb2_grpc.SpacesStub:
        """Stub of the MMU."""
        return mmu_pb2_grpc.SpacesStub(self.channels["mmu"])

    async def events(self, event: str = "") -> list[layer_pb2.Event]:
        """Returns the events of the runtime of one kind, or all."""
        stub = layer_pb2_grpc.LayerStub(self.channels["container-runtime"])
        response = await stub.ListEvents(layer_pb2.ListEventsRequest(page_size=1000))
        return [item for item in response.events if not event or item.event == event]

    async def import_image(self, archive: bytes, reference: str = "") -> pb.Image:
        """Imports an archive of one image."""
        return (await self.import_all(archive, reference))[0]

    async def import_all(self, archive: bytes, reference: str = "", chunk: int = 1 << 20) -> list[pb.Image]:
        """Imports an archive in chunks."""

        async def messages() -> AsyncIterator[pb.ImportImageRequest]:
            yield pb.ImportImageRequest(start=pb.ImportStart(reference=reference))
            for offset in range(0, len(archive), chunk):
                yield pb.ImportImageRequest(chunk=archive[offset : offset + chunk])

        return list((await self.images.ImportImage(messages())).images)

    async def sandbox(self, **fields: Any) -> pb.Sandbox:
        """Runs a sandbox of a fresh name."""
        self.names += 1
        metadata = pb.SandboxMetadata(name=f"pod-{self.names}", namespace="default", uid=f"uid-{self.names}")
        return await self.sandboxes.RunSandbox(pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=metadata, **fields)))

    async def create(self, image: pb.Image, *command: str, sandbox: pb.Sandbox | None = None, **fields: Any) -> str:
        """Creates a container and returns its name."""
        sandbox = sandbox or await self.sandbox()
        self.names += 1
        wanted = pb.Container(
            sandbox=sandbox.name,
            metadata=pb.ContainerMetadata(name=f"c-{self.names}"),
            image=image.name,
            command=command,
            **fields,
        )
        return (await self.containers.CreateContainer(pb.CreateContainerRequest(container=wanted))).name

    async def start_container(self, image: pb.Image, *command: str, **fields: Any) -> str:
        """Creates and starts a container and returns its name."""
        name = await self.create(image, *command, **fields)
        await self.containers.StartContainer(pb.StartContainerRequest(name=name))
        return name

    async def wait(self, name: str) -> pb.Container:
        """Waits for a container."""
        return await self.containers.WaitContainer(pb.WaitContainerRequest(name=name))

    async def run(self, image: pb.Image, *command: str, **fields: Any) -> Ended:
        """Runs a container to its end."""
        name = await self.start_container(image, *command, **fields)
        container = await self.wait(name)
        out, err = await self.output(name)
        return Ended(container.exit_code, container.reason, container.message, out, err)

    async def output(self, name: str) -> tuple[bytes, bytes]:
        """Returns what a container wrote to its two streams."""
        out, err = b"", b""
        async for entry in self.containers.ReadLogs(pb.ReadLogsRequest(name=name)):
            if entry.stream == pb.LogEntry.STREAM_STDOUT:
                out += entry.data
            else:
                err += entry.data
        return out, err

    async def processes(self, name: str) -> list[pb.Process]:
        """Returns the processes of a container."""
        response = await self.containers.ListProcesses(pb.ListProcessesRequest(container=name))
        return list(response.processes)


@asynccontextmanager
async def running(
    folder: Path, engine: str = "model", *, sockets: bool = False, **settings: Any
) -> AsyncIterator[Stack]:
    """Runs a stack for the length of a `with` block."""
    stack = Stack(folder, engine, sockets=sockets)
    try:
        await stack.start(**settings)
        yield stack
    finally:
        await stack.stop()
