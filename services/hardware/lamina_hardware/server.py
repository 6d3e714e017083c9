"""The hardware layer as a service: parses requests, calls the machine, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from grpc import aio
from lamina.hardware.v1 import (
    clock_pb2_grpc,
    devices_pb2_grpc,
    disks_pb2_grpc,
    interrupts_pb2_grpc,
    iommu_pb2_grpc,
    nics_pb2_grpc,
    performance_pb2_grpc,
    wires_pb2_grpc,
)
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware import clock, convert
from lamina_hardware.config import HardwareConfig
from lamina_hardware.machine import Machine
from lamina_hardware.metrics import families
from lamina_hardware.paging import page
from lamina_hardware.runs import RunStream
from lamina_hardware.serving import walks
from lamina_hardware.serving.devices import DevicesServicer
from lamina_hardware.serving.disks import DisksServicer
from lamina_hardware.serving.hosts import HostsServicer
from lamina_hardware.serving.interrupts import InterruptsServicer
from lamina_hardware.serving.iommu import IommuServicer
from lamina_hardware.serving.memory import MemoryServicer
from lamina_hardware.serving.nics import NicsServicer
from lamina_hardware.serving.performance import PerformanceServicer
from lamina_hardware.serving.wires import WiresServicer
from lamina_kit.service import Environment, Service

Context = aio.ServicerContext[Any, Any]


def build(environment: Environment, config: HardwareConfig) -> Service:
    """Returns the service; `start` makes the memory bus at `environment.bus_path` and the cores."""
    return HardwareService(environment, config)


class HardwareService:
    """The machine of one host."""

    layer = "hardware"
    service_names = (
        "lamina.hardware.v1.Hosts",
        "lamina.hardware.v1.Memory",
        "lamina.hardware.v1.Cpu",
        "lamina.hardware.v1.Interrupts",
        "lamina.hardware.v1.Devices",
        "lamina.hardware.v1.Iommu",
        "lamina.hardware.v1.Disks",
        "lamina.hardware.v1.Nics",
        "lamina.hardware.v1.Wires",
        "lamina.hardware.v1.Performance",
        clock.SERVICE_NAME,
    )

    def __init__(self, environment: Environment, config: HardwareConfig) -> None:
        self.machine = Machine(environment, config)
        environment.layer.metrics.add(partial(families, self.machine))

    def register(self, server: aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_HostsServicer_to_server(HostsServicer(self.machine), server)
        rpc.add_MemoryServicer_to_server(MemoryServicer(self.machine), server)
        rpc.add_CpuServicer_to_server(CpuServicer(self.machine), server)
        interrupts_pb2_grpc.add_InterruptsServicer_to_server(InterruptsServicer(self.machine), server)
        devices_pb2_grpc.add_DevicesServicer_to_server(DevicesServicer(self.machine), server)
        iommu_pb2_grpc.add_IommuServicer_to_server(IommuServicer(self.machine), server)
        disks_pb2_grpc.add_DisksServicer_to_server(DisksServicer(self.machine), server)
        nics_pb2_grpc.add_NicsServicer_to_server(NicsServicer(self.machine), server)
        wires_pb2_grpc.add_WiresServicer_to_server(WiresServicer(self.machine), server)
        performance_pb2_grpc.add_PerformanceServicer_to_server(PerformanceServicer(self.machine), server)
        clock_pb2_grpc.add_ClockServicer_to_server(clock.ClockServicer(self.machine.clock), server)

    async def start(self) -> None:
        """Powers the machine on."""
        await self.machine.start()

    async def stop(self) -> None:
        """Powers the machine off. Idempotent."""
        await self.machine.stop()


class CpuServicer(rpc.CpuServicer):
    """Serves `lamina.hardware.v1.Cpu`."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def ListCores(self, request: pb.ListCoresRequest, context: Context) -> pb.ListCoresResponse:
        """Lists the cores."""
        return pb.ListCoresResponse(cores=self._m.list_cores())

    async def CreateRunGroup(self, request: pb.CreateRunGroupRequest, context: Context) -> pb.RunGroup:
        """Creates a run group."""
        group = self._m.create_run_group(request, self._m.owner(context))
        return convert.run_group(group, self._m.names)

    async def GetRunGroup(self, request: pb.GetRunGroupRequest, context: Context) -> pb.RunGroup:
        """Returns a run group."""
        return convert.run_group(self._m.find_run_group(request.name), self._m.names)

    async def ListRunGroups(self, request: pb.ListRunGroupsRequest, context: Context) -> pb.ListRunGroupsResponse:
        """Lists run groups."""
        found, token = page(self._m.engine.groups.entries(), lambda g: g.name, request.page_size, request.page_token)
        return pb.ListRunGroupsResponse(
            run_groups=[convert.run_group(group, self._m.names) for group in found], next_page_token=token
        )

    async def DeleteRunGroup(self, request: pb.DeleteRunGroupRequest, context: Context) -> pb.DeleteRunGroupResponse:
        """Deletes a run group."""
        self._m.delete_run_group(self._m.find_run_group(request.name).name)
        return pb.DeleteRunGroupResponse()

    async def CreateContext(self, request: pb.CreateContextRequest, context: Context) -> pb.Context:
        """Creates a context."""
        made = self._m.create_context(request, self._m.owner(context))
        return convert.context(made, self._m.names)

    async def GetContext(self, request: pb.GetContextRequest, context: Context) -> pb.Context:
        """Returns a context."""
        return convert.context(self._m.find_context(request.handle), self._m.names)

    async def ListContexts(self, request: pb.ListContextsRequest, context: Context) -> pb.ListContextsResponse:
        """Lists contexts."""
        contexts = self._m.engine.contexts.entries()
        found, token = page(contexts, lambda c: f"{c.handle.id:08d}", request.page_size, request.page_token)
        return pb.ListContextsResponse(
            contexts=[convert.context(entry, self._m.names) for entry in found], next_page_token=token
        )

    async def DeleteContext(self, request: pb.DeleteContextRequest, context: Context) -> pb.DeleteContextResponse:
        """Deletes a context."""
        await self._m.delete_context(self._m.find_context(request.handle))
        return pb.DeleteContextResponse()

    async def Run(
        self, request_iterator: AsyncIterator[pb.RunRequest], context: Context
    ) -> AsyncIterator[pb.RunResponse]:
        """Runs contexts."""
        async for response in RunStream(self._m.dispatcher).serve(request_iterator):
            yield response

    async def KickContext(self, request: pb.KickContextRequest, context: Context) -> pb.KickContextResponse:
        """Stops a context."""
        found = self._m.find_context(request.handle)
        return pb.KickContextResponse(was_active=self._m.dispatcher.cancel(found))

    async def Shootdown(self, request: pb.ShootdownRequest, context: Context) -> pb.ShootdownResponse:
        """Drops translations."""
        self._m.check_shootdown(request)
        return pb.ShootdownResponse(cores=await self._m.dispatcher.shootdown(request.root, request.eptp))

    async def Translate(self, request: pb.TranslateRequest, context: Context) -> pb.TranslateResponse:
        """Walks page tables."""
        return walks.translate(self._m.memory, request)

    async def WalkAddresses(self, request: pb.WalkAddressesRequest, context: Context) -> pb.WalkAddressesResponse:
        """Walks page tables for many addresses."""
        return walks.walk_addresses(self._m.memory, request)
