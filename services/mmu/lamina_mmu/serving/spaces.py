"""`lamina.mmu.v1.Spaces`: spaces, their settings and statistics; the rest is in the modules beside it."""

from __future__ import annotations

from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import ranges_pb2 as ranges

from lamina_mmu.convert import mmu
from lamina_mmu.convert import ranges as convert_ranges
from lamina_mmu.domain.names import SPACE
from lamina_mmu.host import MmuHost
from lamina_mmu.serving.mappings import MappingCalls
from lamina_mmu.serving.pages import MemoryCalls

Context = grpc.aio.ServicerContext[Any, Any]


class SpacesServicer(MappingCalls, MemoryCalls, rpc.SpacesServicer):
    """Serves `lamina.mmu.v1.Spaces`."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateSpace(self, request: pb.CreateSpaceRequest, context: Context) -> pb.Space:
        """Creates an empty address space."""
        host, wanted = self.host, request.space
        mmu.label(wanted.label, request.request_id, 127, "space.label")
        group = mmu.group_part(wanted.group, host.name, "space.group")
        kind, session = mmu.kind(wanted.kind), host.session(context)
        view = await host.drive(host.engine.create_space(kind, group, wanted.label, session, request.request_id))
        return mmu.space(view, host.names)

    async def GetSpace(self, request: pb.GetSpaceRequest, context: Context) -> pb.Space:
        """Returns one space."""
        return mmu.space(self.host.engine.space(mmu.key(request, self.host.name, SPACE)), self.host.names)

    async def ListSpaces(self, request: pb.ListSpacesRequest, context: Context) -> pb.ListSpacesResponse:
        """Lists spaces."""
        after, size = mmu.page(request)
        found = self.host.engine.spaces(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        spaces = [mmu.space(view, self.host.names) for view in found[:size]]
        return pb.ListSpacesResponse(spaces=spaces, next_page_token=token)

    async def DeleteSpace(self, request: pb.DeleteSpaceRequest, context: Context) -> pb.DeleteSpaceResponse:
        """Deletes a space."""
        await self.host.finish(self.host.engine.delete_space(mmu.handle(request.handle)))
        return pb.DeleteSpaceResponse()

    async def ForkSpace(self, request: pb.ForkSpaceRequest, context: Context) -> pb.Space:
        """Copies a space."""
        host, handle = self.host, mmu.handle(request.handle)
        mmu.label(request.label, request.request_id, 127, "label")
        group, session = mmu.group_part(request.group, host.name, "group"), host.session(context)
        view = await host.finish(host.engine.fork_space(handle, request.label, group, session, request.request_id))
        return mmu.space(view, host.names)

    async def AttachProcess(self, request: ranges.AttachProcessRequest, context: Context) -> pb.Space:
        """Makes a running process a space."""
        host = self.host
        mmu.label(request.label, request.request_id, 127, "label")
        group, session = mmu.group_part(request.group, host.name, "group"), host.session(context)
        step = host.engine.attach_process(request.pid, group, request.label, session, request.request_id)
        return mmu.space(await host.finish(step), host.names)

    async def GetSpaceSettings(self, request: ranges.GetSpaceSettingsRequest, context: Context) -> ranges.SpaceSettings:
        """Returns the settings of a space."""
        key = mmu.key(request, self.host.name, SPACE)
        return convert_ranges.settings(self.host.engine.space_settings(key), self.host.names)

    async def UpdateSpaceSettings(
        self, request: ranges.UpdateSpaceSettingsRequest, context: Context
    ) -> ranges.SpaceSettings:
        """Changes settings of a space."""
        change = convert_ranges.settings_change(request, self.host.name)
        view = await self.host.finish(self.host.engine.update_space_settings(mmu.handle(request.handle), change))
        return convert_ranges.settings(view, self.host.names)

    async def GetSpaceStatistics(
        self, request: ranges.GetSpaceStatisticsRequest, context: Context
    ) -> ranges.SpaceStatistics:
        """Returns what a space uses."""
        key = mmu.key(request, self.host.name, SPACE)
        return convert_ranges.statistics(self.host.engine.space_statistics(key))
