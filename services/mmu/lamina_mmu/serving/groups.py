"""Serves `lamina.mmu.v1.Groups`: memory groups, their protection, statistics and events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.mmu.v1 import group_events_pb2 as events_pb
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc

from lamina_mmu.convert import groups as convert_groups
from lamina_mmu.convert import mmu
from lamina_mmu.domain.names import GROUP
from lamina_mmu.host import MmuHost
from lamina_mmu.streams.groups import watch_groups

Context = grpc.aio.ServicerContext[Any, Any]


class GroupsServicer(rpc.GroupsServicer):
    """The memory groups of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.Group:
        """Creates a group."""
        host, name = self.host, mmu.group_id(request)
        parent = mmu.group_part(request.group.parent, host.name, "group.parent")
        limits, session = mmu.limits(request.group, zero_is_none=True), host.session(context)
        view = await host.drive(host.engine.create_group(name, parent, limits, session, request.request_id))
        return mmu.group(view, host.names)

    async def GetGroup(self, request: pb.GetGroupRequest, context: Context) -> pb.Group:
        """Returns a group."""
        return mmu.group(self.host.engine.group(self._name(request)), self.host.names)

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        """Lists groups."""
        after, size = mmu.page(request)
        found = self.host.engine.groups(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        groups = [mmu.group(view, self.host.names) for view in found[:size]]
        return pb.ListGroupsResponse(groups=groups, next_page_token=token)

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Context) -> pb.Group:
        """Changes a group's limits."""
        limits = mmu.limits(request, zero_is_none=False)
        view = await self.host.drive(self.host.engine.update_group(self._name(request), limits))
        return mmu.group(view, self.host.names)

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:
        """Deletes a group."""
        self.host.engine.delete_group(self._name(request))
        return pb.DeleteGroupResponse()

    async def GetGroupProtection(
        self, request: events_pb.GetGroupProtectionRequest, context: Context
    ) -> events_pb.GroupProtection:
        """Returns what protects a group and slows it down."""
        return convert_groups.protection(self.host.engine.protection(self._name(request)))

    async def UpdateGroupProtection(
        self, request: events_pb.UpdateGroupProtectionRequest, context: Context
    ) -> events_pb.GroupProtection:
        """Changes a group's protection, throttling or policy."""
        name, changes = self._name(request), convert_groups.changes(request)
        return convert_groups.protection(await self.host.drive(self.host.engine.protect_group(name, changes)))

    async def GetGroupStatistics(
        self, request: events_pb.GetGroupStatisticsRequest, context: Context
    ) -> events_pb.GroupStatistics:
        """Returns what a group uses, what was done to it, and its pressure."""
        return convert_groups.statistics(self.host.engine.group_statistics(self._name(request)), self.host.names)

    async def WatchGroups(
        self, request: events_pb.WatchGroupsRequest, context: Context
    ) -> AsyncIterator[events_pb.GroupEventBatch]:
        """Streams events of groups until the watched ones are gone. The first message comes at once."""
        async for batch in watch_groups(self.host, request):
            yield batch

    def _name(self, request: Any) -> str:
        return mmu.name_part(request.name, self.host.name, GROUP)
