"""What goes on in a stack while one of its processes is killed: pods scale, a machine runs, memory is short."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from typing import Any

import grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as runtime_rpc
from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from tests.integration.manifests import hello

from lamina_cli.client.client import Client
from lamina_cli.demo.cluster import is_ready
from lamina_cli.demo.images import build
from lamina_cli.guests.images import send
from lamina_cli.guests.kernel import kernel_bytes, upload
from lamina_cli.output.objects import body
from lamina_kit.layer.owner_session import REVISION
from lamina_kit.rng import Rng
from lamina_kit.rpc.status import rpc_error

PAGE = 4096
PAGES = 24
LIMIT_PAGES = 8
BASE = 0x10000000
PAUSES = ("UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND", "FAILED_PRECONDITION")
"""Codes that a caller must reckon with while a layer is away or has just come back."""


class Workload:
    """Work on a stack that goes on until `stop`. `steps` counts what was done; `surprises` what nobody should see."""

    def __init__(self, client: Client, rng: Rng) -> None:
        self.steps = 0
        self.surprises: list[str] = []
        self._client = client
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []
        self._objects: Any = client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
        self._machines: Any = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
        self._vm = ""
        self._stopping = False

    async def prepare(self, machine: str) -> None:
        """Imports the program, deploys it once, and defines a machine of that name."""
        images: Any = self._client.stub("container-runtime", runtime_rpc.ImagesStub)
        built = build("hello")
        await send(images, io.BytesIO(built.layout), built.reference)
        vm = hypervisor_pb2.VirtualMachine(
            vcpu_count=1, memory_bytes=32 << 20, kernel_digest=await upload(self._machines, kernel_bytes(None))
        )
        request = hypervisor_pb2.CreateVirtualMachineRequest(vm_id=machine, virtual_machine=vm)
        self._vm = (await self._machines.CreateVirtualMachine(request)).name
        await self._objects.ApplyObjects(orchestrator_pb2.ApplyObjectsRequest(manifest=hello(replicas=1)))

    async def start(self) -> None:
        """Powers the machine on, and begins to scale and to swap."""
        await self.power_on()
        for work in (self._scaling, self._pressure):
            self._tasks.append(asyncio.get_running_loop().create_task(self._repeat(work)))

    async def stop(self) -> None:
        """Lets what is under way come to its end, and begins nothing more."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def power_on(self) -> None:
        """Starts the machine."""
        await self._machines.StartVirtualMachine(hypervisor_pb2.StartVirtualMachineRequest(name=self._vm))

    async def power_off(self) -> None:
        """Stops the machine."""
        await self._machines.StopVirtualMachine(hypervisor_pb2.StopVirtualMachineRequest(name=self._vm))

    async def machine(self) -> Any:
        """Returns the machine."""
        return await self._machines.GetVirtualMachine(hypervisor_pb2.GetVirtualMachineRequest(name=self._vm))

    async def scale(self, replicas: int) -> None:
        """Scales the deployment."""
        reference = orchestrator_pb2.ObjectReference(kind="Deployment", namespace="default", name="hello")
        await self._objects.ScaleObject(orchestrator_pb2.ScaleObjectRequest(reference=reference, replicas=replicas))

    async def ready_pods(self) -> tuple[int, int]:
        """Returns how many pods there are, and how many are ready."""
        listed = await self._objects.ListObjects(orchestrator_pb2.ListObjectsRequest(kind="Pod", namespace="default"))
        pods = [body(item) for item in listed.objects]
        return len(pods), sum(is_ready(pod) for pod in pods)

    # ── what is repeated ─────────────────────────────────────────────────────────────────────────────────────────

    async def _repeat(self, work: Any) -> None:
        while not self._stopping:
            if await self.tolerant(work()):
                self.steps += 1
            else:
                await self.tolerant(self._reached())

    async def _reached(self) -> None:
        """Returns when the layers that the work calls can be reached again."""
        request = layer_pb2.HandshakeRequest(caller="test", revision=REVISION)
        for layer in ("mmu", "orchestrator"):
            stub: Any = self._client.stub(layer, layer_pb2_grpc.LayerStub)
            await stub.Handshake(request, wait_for_ready=True)

    async def tolerant(self, work: Awaitable[object]) -> bool:
        """Does work that a missing layer may refuse; says whether it was done."""
        try:
            await work
        except grpc.aio.AioRpcError as error:
            problem = rpc_error(error)
            if problem.code not in PAUSES:
                self.surprises.append(f"{problem.code} {problem.reason}: {problem.message}")
            return False
        return True

    async def _scaling(self) -> None:
        await self.scale(self._rng.randint(1, 5))

    async def _pressure(self) -> None:
        """Writes more pages than a memory group holds, and reads them all back."""
        spaces: Any = self._client.stub("mmu", mmu_pb2_grpc.SpacesStub)
        groups: Any = self._client.stub("mmu", mmu_pb2_grpc.GroupsStub)
        limit = mmu_pb2.Group(max_bytes=LIMIT_PAGES * PAGE)
        name = f"p-{self._rng.id('x')}"
        group = await groups.CreateGroup(mmu_pb2.CreateGroupRequest(group_id=name, group=limit))
        wanted = mmu_pb2.Space(kind=mmu_pb2.Space.KIND_PROCESS, group=group.name, label="pressure")
        space = await spaces.CreateSpace(mmu_pb2.CreateSpaceRequest(space=wanted))
        rights = mmu_pb2.Protection(read=True, write=True)
        request = mmu_pb2.MapRangeRequest(
            handle=space.handle, address=BASE, size_bytes=PAGES * PAGE, protection=rights, fixed=True
        )
        await spaces.MapRange(request)
        for number in range(PAGES):
            data = bytes([number + 1]) * PAGE
            at = BASE + number * PAGE
            await spaces.WriteSpace(mmu_pb2.WriteSpaceRequest(handle=space.handle, address=at, data=data))
        for number in range(PAGES):
            at = BASE + number * PAGE
            read = await spaces.ReadSpace(mmu_pb2.ReadSpaceRequest(handle=space.handle, address=at, size_bytes=PAGE))
            if read.data != bytes([number + 1]) * PAGE:
                self.surprises.append(f"page {number} came back with other bytes")
        await spaces.DeleteSpace(mmu_pb2.DeleteSpaceRequest(handle=space.handle))
        await groups.DeleteGroup(mmu_pb2.DeleteGroupRequest(name=group.name))
