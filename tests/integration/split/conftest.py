"""A stack of six processes for a test, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
import pytest
import pytest_asyncio
from lamina.container_runtime.v1 import container_runtime_pb2 as runtime_pb2
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as runtime_rpc
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

from lamina_cli.client.client import Client
from lamina_cli.stack.embedded import Settings
from lamina_cli.stack.split import SplitStack
from lamina_kit.rpc.status import rpc_error

MEMORY = 256 << 20


class Split:
    """A running split stack. `left` tells what its lower layers hold."""

    def __init__(self, stack: SplitStack, client: Client) -> None:
        self.stack = stack
        self.client = client

    def pid(self, layer: str) -> int:
        """Returns the process of a layer."""
        return self.stack.reports()[layer].pid

    def kill(self, layer: str) -> int:
        """Kills the process of a layer; returns which it was."""
        pid = self.pid(layer)
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_back(self, layer: str, pid: int) -> bool:
        """Says whether another process of a layer serves than the one that was killed."""
        known = self.stack.reports()[layer]
        return known.pid != pid and known.state == "serving"

    async def left(self) -> dict[str, int]:
        """Returns how many objects of each kind the layers hold."""
        cpu = self.client.stub("hardware", hardware_pb2_grpc.CpuStub)
        frames = self.client.stub("mmu", mmu_pb2_grpc.FramesStub)
        spaces = self.client.stub("mmu", mmu_pb2_grpc.SpacesStub)
        groups = self.client.stub("mmu", mmu_pb2_grpc.GroupsStub)
        objects = self.client.stub("mmu", mmu_pb2_grpc.ObjectsStub)
        sandboxes = self.client.stub("container-runtime", runtime_rpc.SandboxesStub)
        containers = self.client.stub("container-runtime", runtime_rpc.ContainersStub)
        page: dict[str, Any] = {"page_size": 1000}
        memory = await frames.GetMemory(mmu_pb2.GetMemoryRequest())
        return {
            "contexts": len((await cpu.ListContexts(hardware_pb2.ListContextsRequest(**page))).contexts),
            "run groups": len((await cpu.ListRunGroups(hardware_pb2.ListRunGroupsRequest(**page))).run_groups),
            "spaces": len((await spaces.ListSpaces(mmu_pb2.ListSpacesRequest(**page))).spaces),
            "memory groups": len((await groups.ListGroups(mmu_pb2.ListGroupsRequest(**page))).groups),
            "objects": len((await objects.ListObjects(mmu_pb2.ListObjectsRequest(**page))).objects),
            "used frames": memory.total_frames - memory.free_frames,
            "sandboxes": len((await sandboxes.ListSandboxes(runtime_pb2.ListSandboxesRequest(**page))).sandboxes),
            "containers": len((await containers.ListContainers(runtime_pb2.ListContainersRequest(**page))).containers),
            "ports": len(await self._ports()),
            "machines": len(await self.machines()),
        }

    async def machines(self) -> list[Any]:
        """Returns the virtual machines."""
        stub = self.client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
        listed = await stub.ListVirtualMachines(hypervisor_pb2.ListVirtualMachinesRequest())
        return list(listed.virtual_machines)

    async def _ports(self) -> list[Any]:
        switches = self.client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)
        ports = self.client.stub("vswitch", vswitch_pb2_grpc.PortsStub)
        found: list[Any] = []
        for switch in (await switches.ListSwitches(vswitch_pb2.ListSwitchesRequest())).switches:
            found += (await ports.ListPorts(vswitch_pb2.ListPortsRequest(parent=switch.name))).ports
        return found


class Holds(Protocol):
    """Asks other processes until what they answer is as wanted; fails the test when it does not become so in time."""

    async def __call__(
        self, look: Callable[[], Awaitable[Any]], wanted: Callable[[Any], object], what: str, within: float = 45.0
    ) -> None: ...


@pytest.fixture
def holds() -> Holds:
    """Returns the way in which these tests wait; a layer that does not answer yet is asked again."""

    async def wait(
        look: Callable[[], Awaitable[Any]], wanted: Callable[[Any], object], what: str, within: float = 45.0
    ) -> None:
        end = time.monotonic() + within
        while True:
            try:
                seen = await look()
                if wanted(seen):
                    return
            except grpc.aio.AioRpcError as error:
                seen = rpc_error(error)
            assert time.monotonic() < end, f"after {within:g} s still not: {what}; seen: {seen!r}"
            await asyncio.sleep(0.05)

    return wait


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def split(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Split]:
    """Six processes with a small host, joined by UNIX sockets, for the tests of a module: to start them is dear."""
    overrides = {"LAMINA_HARDWARE_MEMORY_BYTES": str(MEMORY)}
    stack = SplitStack(Settings(overrides=overrides), tmp_path_factory.mktemp("split") / "stack")
    await stack.start()
    try:
        async with stack.client() as client:
            yield Split(stack, client)
    finally:
        await stack.stop()
