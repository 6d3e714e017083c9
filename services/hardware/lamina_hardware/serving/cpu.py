"""Serves `lamina.hardware.v1.Cpu`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from grpc import aio
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import exit_controls_pb2, registers_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.contexts import updates
from lamina_hardware.contexts.posted_writes import Posted
from lamina_hardware.convert import cpu, exit_controls
from lamina_hardware.machine import Machine
from lamina_hardware.serving import walks
from lamina_hardware.serving.pagination import page
from lamina_hardware.serving.run_stream import RunStream
from lamina_kit.checks import Checks

Context = aio.ServicerContext[Any, Any]
_MOST = 1024


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
        return cpu.run_group(group, self._m.names)

    async def GetRunGroup(self, request: pb.GetRunGroupRequest, context: Context) -> pb.RunGroup:
        """Returns a run group."""
        return cpu.run_group(self._m.find_run_group(request.name), self._m.names)

    async def ListRunGroups(self, request: pb.ListRunGroupsRequest, context: Context) -> pb.ListRunGroupsResponse:
        """Lists run groups."""
        found, token = page(self._m.engine.groups.entries(), lambda g: g.name, request.page_size, request.page_token)
        return pb.ListRunGroupsResponse(
            run_groups=[cpu.run_group(group, self._m.names) for group in found], next_page_token=token
        )

    async def DeleteRunGroup(self, request: pb.DeleteRunGroupRequest, context: Context) -> pb.DeleteRunGroupResponse:
        """Deletes a run group."""
        self._m.delete_run_group(self._m.find_run_group(request.name).name)
        return pb.DeleteRunGroupResponse()

    async def CreateContext(self, request: pb.CreateContextRequest, context: Context) -> pb.Context:
        """Creates a context."""
        made = self._m.create_context(request, self._m.owner(context))
        return cpu.context(made, self._m.names)

    async def GetContext(self, request: pb.GetContextRequest, context: Context) -> pb.Context:
        """Returns a context."""
        return cpu.context(self._m.find_context(request.handle), self._m.names)

    async def ListContexts(self, request: pb.ListContextsRequest, context: Context) -> pb.ListContextsResponse:
        """Lists contexts."""
        contexts = self._m.engine.contexts.entries()
        found, token = page(contexts, lambda c: f"{c.handle.id:08d}", request.page_size, request.page_token)
        return pb.ListContextsResponse(
            contexts=[cpu.context(entry, self._m.names) for entry in found], next_page_token=token
        )

    async def DeleteContext(self, request: pb.DeleteContextRequest, context: Context) -> pb.DeleteContextResponse:
        """Deletes a context."""
        await self._m.delete_context(self._m.find_context(request.handle))
        return pb.DeleteContextResponse()

    async def Run(  # type: ignore[override]  # the form of a handler that writes, which gRPC takes too
        self, request_iterator: AsyncIterator[pb.RunRequest], context: Context
    ) -> None:
        """Runs contexts."""
        await RunStream(self._m.dispatcher, context).serve(request_iterator)

    async def KickContext(self, request: pb.KickContextRequest, context: Context) -> pb.KickContextResponse:
        """Stops a context."""
        found = self._m.find_context(request.handle)
        return pb.KickContextResponse(was_active=self._m.dispatcher.cancel(found))

    async def UpdateRunGroup(self, request: pb.UpdateRunGroupRequest, context: Context) -> pb.RunGroup:
        """Changes a run group."""
        group = await self._m.update_run_group(request.run_group, _paths(request.update_mask))
        return cpu.run_group(group, self._m.names)

    async def GetRunGroupUsage(self, request: pb.GetRunGroupUsageRequest, context: Context) -> pb.RunGroupUsage:
        """Returns what a run group used."""
        group = self._m.find_run_group(request.name)
        return updates.usage(group, self._m.names.format_run_group(group.name), self._m.clock.now_ns())

    async def UpdateContext(self, request: pb.UpdateContextRequest, context: Context) -> pb.Context:
        """Changes a context."""
        found = self._m.find_context(request.context.handle)
        self._m.update_context(found, request.context, _paths(request.update_mask))
        return cpu.context(found, self._m.names)

    async def SetExitControls(
        self, request: exit_controls_pb2.SetExitControlsRequest, context: Context
    ) -> exit_controls_pb2.ExitControls:
        """Replaces what a context exits for."""
        found = self._m.find_context(request.handle)
        await self._m.controls.set(found, exit_controls.exit_controls(request.controls))
        return exit_controls.exit_controls_message(self._m.controls.get(found))

    async def GetExitControls(
        self, request: exit_controls_pb2.GetExitControlsRequest, context: Context
    ) -> exit_controls_pb2.ExitControls:
        """Returns what a context exits for."""
        return exit_controls.exit_controls_message(self._m.controls.get(self._m.find_context(request.handle)))

    async def WatchPostedWrites(
        self, request: exit_controls_pb2.WatchPostedWritesRequest, context: Context
    ) -> AsyncIterator[exit_controls_pb2.WatchPostedWritesResponse]:
        """Tells writes to doorbells."""
        with Checks() as check:
            check.range("handles", len(request.handles), 1, _MOST)
        contexts = [self._m.find_context(handle) for handle in request.handles]
        async for news in self._m.posted.watch(contexts, _MOST):
            yield exit_controls_pb2.WatchPostedWritesResponse(posted=[_posted(entry) for entry in news])

    async def MapRunPages(self, request: pb.MapRunPagesRequest, context: Context) -> pb.Extent:
        """Returns the extent of the run pages."""
        bus = self._m.bus
        return pb.Extent(path=str(bus.path), offset=bus.run_offset, size_bytes=bus.run_pages * 4096)

    async def ReadRegisters(
        self, request: registers_pb2.ReadRegistersRequest, context: Context
    ) -> registers_pb2.ReadRegistersResponse:
        """Reads registers."""
        found = self._m.find_context(request.handle)
        return self._m.registers.read(found, request.groups, request.msrs)

    async def WriteRegisters(
        self, request: registers_pb2.WriteRegistersRequest, context: Context
    ) -> registers_pb2.WriteRegistersResponse:
        """Writes registers."""
        self._m.registers.write(self._m.find_context(request.handle), request.registers, request.groups)
        return registers_pb2.WriteRegistersResponse()

    async def SaveContext(
        self, request: registers_pb2.SaveContextRequest, context: Context
    ) -> registers_pb2.ContextState:
        """Returns the whole state of a context."""
        return self._m.registers.save(self._m.find_context(request.handle))

    async def RestoreContext(
        self, request: registers_pb2.RestoreContextRequest, context: Context
    ) -> registers_pb2.RestoreContextResponse:
        """Gives a context a state."""
        self._m.registers.restore(self._m.find_context(request.handle), request.state)
        return registers_pb2.RestoreContextResponse()

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


def _paths(mask: FieldMask) -> list[str]:
    return list(mask.paths)


def _posted(entry: Posted) -> exit_controls_pb2.WatchPostedWritesResponse.Posted:
    handle = entry.context.handle
    return exit_controls_pb2.WatchPostedWritesResponse.Posted(
        handle=handle_pb2.Handle(id=handle.id, generation=handle.generation),
        slot=entry.slot,
        count=min(entry.count, (1 << 63) - 1),
        value=entry.value,
    )
