"""The MMU layer as a service: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import replay_pb2_grpc, swap_pb2_grpc

from lamina_kit.service import Environment, Service
from lamina_mmu import convert
from lamina_mmu.config import MmuConfig
from lamina_mmu.domain.names import GROUP
from lamina_mmu.host import MmuHost
from lamina_mmu.metrics import families
from lamina_mmu.serving.frames import FramesServicer
from lamina_mmu.serving.objects import ObjectsServicer
from lamina_mmu.serving.replays import ReplaysServicer
from lamina_mmu.serving.spaces import SpacesServicer
from lamina_mmu.serving.swap import SwapServicer

Context = grpc.aio.ServicerContext[Any, Any]


def build(environment: Environment, config: MmuConfig | None = None) -> Service:
    """Returns the service. `environment.layer.engine` names its engine; nothing is opened before `start`."""
    return MmuService(environment, config or MmuConfig())


class MmuService:
    """The memory of one host."""

    layer = "mmu"
    service_names = (
        "lamina.mmu.v1.Spaces",
        "lamina.mmu.v1.Objects",
        "lamina.mmu.v1.Frames",
        "lamina.mmu.v1.Groups",
        "lamina.mmu.v1.Replays",
        "lamina.mmu.v1.Swap",
    )

    def __init__(self, environment: Environment, config: MmuConfig) -> None:
        self.host = MmuHost(environment, config)
        self.replays = ReplaysServicer(environment.state_dir / "replays", environment.rng)
        environment.layer.metrics.add(partial(families, self.host))

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_SpacesServicer_to_server(SpacesServicer(self.host), server)
        rpc.add_ObjectsServicer_to_server(ObjectsServicer(self.host), server)
        rpc.add_FramesServicer_to_server(FramesServicer(self.host), server)
        rpc.add_GroupsServicer_to_server(GroupsServicer(self.host), server)
        replay_pb2_grpc.add_ReplaysServicer_to_server(self.replays, server)
        swap_pb2_grpc.add_SwapServicer_to_server(SwapServicer(self.host), server)

    async def start(self) -> None:
        """Learns the RAM from the hardware, opens it and the swap file."""
        await self.host.start()

    async def stop(self) -> None:
        """Ends holds, closes RAM and swap. Idempotent."""
        await self.host.stop()


class GroupsServicer(rpc.GroupsServicer):
    """Serves `lamina.mmu.v1.Groups`."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.Group:
        """Creates a group."""
        host, name = self.host, convert.group_id(request)
        parent = convert.group_part(request.group.parent, host.name, "group.parent")
        limits, session = convert.limits(request.group, zero_is_none=True), host.session(context)
        view = await host.drive(host.engine.create_group(name, parent, limits, session, request.request_id))
        return convert.group(view, host.names)

    async def GetGroup(self, request: pb.GetGroupRequest, context: Context) -> pb.Group:
        """Returns a group."""
        name = convert.name_part(request.name, self.host.name, GROUP)
        return convert.group(self.host.engine.group(name), self.host.names)

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        """Lists groups."""
        after, size = convert.page(request)
        found = self.host.engine.groups(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        groups = [convert.group(view, self.host.names) for view in found[:size]]
        return pb.ListGroupsResponse(groups=groups, next_page_token=token)

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Context) -> pb.Group:
        """Changes a group's limits."""
        name = convert.name_part(request.name, self.host.name, GROUP)
        limits = convert.limits(request, zero_is_none=False)
        return convert.group(await self.host.drive(self.host.engine.update_group(name, limits)), self.host.names)

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:
        """Deletes a group."""
        self.host.engine.delete_group(convert.name_part(request.name, self.host.name, GROUP))
        return pb.DeleteGroupResponse()
