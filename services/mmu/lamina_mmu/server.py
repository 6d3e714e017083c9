"""The MMU layer as a service: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import swap_pb2_grpc

from lamina_kit.service import Environment, Service
from lamina_mmu import convert
from lamina_mmu.config import MmuConfig
from lamina_mmu.domain.names import GROUP, OBJECT, SPACE
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.hold_stream import HoldStream
from lamina_mmu.host import MmuHost
from lamina_mmu.metrics import families
from lamina_mmu.serving.frames import FramesServicer
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
        "lamina.mmu.v1.Swap",
    )

    def __init__(self, environment: Environment, config: MmuConfig) -> None:
        self.host = MmuHost(environment, config)
        environment.layer.metrics.add(partial(families, self.host))

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the layer's services to a server."""
        rpc.add_SpacesServicer_to_server(SpacesServicer(self.host), server)
        rpc.add_ObjectsServicer_to_server(ObjectsServicer(self.host), server)
        rpc.add_FramesServicer_to_server(FramesServicer(self.host), server)
        rpc.add_GroupsServicer_to_server(GroupsServicer(self.host), server)
        swap_pb2_grpc.add_SwapServicer_to_server(SwapServicer(self.host), server)

    async def start(self) -> None:
        """Learns the RAM from the hardware, opens it and the swap file."""
        await self.host.start()

    async def stop(self) -> None:
        """Ends holds, closes RAM and swap. Idempotent."""
        await self.host.stop()


class SpacesServicer(rpc.SpacesServicer):
    """Serves `lamina.mmu.v1.Spaces`."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateSpace(self, request: pb.CreateSpaceRequest, context: Context) -> pb.Space:
        """Creates an empty address space."""
        host, wanted = self.host, request.space
        convert.label(wanted.label, request.request_id, 127, "space.label")
        group = convert.group_part(wanted.group, host.name, "space.group")
        kind, session = convert.kind(wanted.kind), host.session(context)
        view = await host.drive(host.engine.create_space(kind, group, wanted.label, session, request.request_id))
        return convert.space(view, host.names)

    async def GetSpace(self, request: pb.GetSpaceRequest, context: Context) -> pb.Space:
        """Returns one space."""
        return convert.space(self.host.engine.space(convert.key(request, self.host.name, SPACE)), self.host.names)

    async def ListSpaces(self, request: pb.ListSpacesRequest, context: Context) -> pb.ListSpacesResponse:
        """Lists spaces."""
        after, size = convert.page(request)
        found = self.host.engine.spaces(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        spaces = [convert.space(view, self.host.names) for view in found[:size]]
        return pb.ListSpacesResponse(spaces=spaces, next_page_token=token)

    async def DeleteSpace(self, request: pb.DeleteSpaceRequest, context: Context) -> pb.DeleteSpaceResponse:
        """Deletes a space."""
        await self.host.finish(self.host.engine.delete_space(convert.handle(request.handle)))
        return pb.DeleteSpaceResponse()

    async def ForkSpace(self, request: pb.ForkSpaceRequest, context: Context) -> pb.Space:
        """Copies a space."""
        host, handle = self.host, convert.handle(request.handle)
        convert.label(request.label, request.request_id, 127, "label")
        group, session = convert.group_part(request.group, host.name, "group"), host.session(context)
        view = await host.finish(host.engine.fork_space(handle, request.label, group, session, request.request_id))
        return convert.space(view, host.names)

    async def MapRange(self, request: pb.MapRangeRequest, context: Context) -> pb.MapRangeResponse:
        """Maps a range."""
        spec = convert.map_spec(request)
        step = self.host.engine.map_range(convert.handle(request.handle), spec, request.request_id)
        return pb.MapRangeResponse(address=await self.host.finish(step))

    async def UnmapRange(self, request: pb.UnmapRangeRequest, context: Context) -> pb.UnmapRangeResponse:
        """Unmaps a range."""
        start, end = convert.page_range(request.address, request.size_bytes)
        step = self.host.engine.unmap_range(convert.handle(request.handle), start, end)
        return pb.UnmapRangeResponse(freed_pages=await self.host.finish(step))

    async def ProtectRange(self, request: pb.ProtectRangeRequest, context: Context) -> pb.ProtectRangeResponse:
        """Changes the rights of a range."""
        start, end = convert.page_range(request.address, request.size_bytes)
        rights = convert.rights(request.protection)
        await self.host.finish(self.host.engine.protect_range(convert.handle(request.handle), start, end, rights))
        return pb.ProtectRangeResponse()

    async def ListMappings(self, request: pb.ListMappingsRequest, context: Context) -> pb.ListMappingsResponse:
        """Lists mappings."""
        after, size = convert.page(request, convert.MAX_PAGE)
        found = self.host.engine.mappings(convert.key(request, self.host.name, SPACE), after, size + 1)
        token = str(found[size - 1].vma.end) if len(found) > size else ""
        mappings = [convert.mapping(view, self.host.names) for view in found[:size]]
        return pb.ListMappingsResponse(mappings=mappings, next_page_token=token)

    async def Fault(self, request: pb.FaultRequest, context: Context) -> pb.FaultResponse:
        """Resolves a fault."""
        host = self.host
        access = convert.access(request.access)
        result = await host.drive(host.engine.fault(convert.handle(request.handle), request.address, access))
        if result.outcome != Outcome.OUT_OF_MEMORY:
            return convert.fault(result, "", "")
        group, victim = (host.names.group(result.limit_group), host.names.space(result.victim_space))
        return convert.fault(result, group, victim if result.victim_space else "")

    async def ReadSpace(self, request: pb.ReadSpaceRequest, context: Context) -> pb.ReadSpaceResponse:
        """Reads a space's bytes."""
        convert.byte_range(request.address, request.size_bytes, "size_bytes")
        step = self.host.engine.read_space(convert.handle(request.handle), request.address, request.size_bytes)
        return pb.ReadSpaceResponse(data=await self.host.drive(step))

    async def WriteSpace(self, request: pb.WriteSpaceRequest, context: Context) -> pb.WriteSpaceResponse:
        """Writes a space's bytes."""
        convert.byte_range(request.address, len(request.data), "data")
        handle = convert.handle(request.handle)
        await self.host.drive(self.host.engine.write_space(handle, request.address, request.data, request.force))
        return pb.WriteSpaceResponse()

    async def Translate(self, request: pb.TranslateRequest, context: Context) -> pb.TranslateResponse:
        """Explains an address."""
        key = convert.key(request, self.host.name, SPACE)
        return convert.translation(self.host.engine.translate(key, request.address), self.host.names)

    async def Reclaim(self, request: pb.ReclaimRequest, context: Context) -> pb.ReclaimResponse:
        """Pushes pages out of RAM."""
        pages = convert.count(request.pages, "pages", convert.MAX_PAGES)
        handle = convert.handle(request.handle) if request.HasField("handle") else None
        group = convert.group_part(request.group, self.host.name, "group")
        result = await self.host.drive(self.host.engine.reclaim(handle, group, pages))
        return pb.ReclaimResponse(reclaimed_pages=result.pages, written_pages=result.written)

    async def Hold(self, request_iterator: AsyncIterator[pb.HoldRequest], context: Context) -> AsyncIterator[Any]:
        """Serves one holder."""
        stream = HoldStream(self.host, request_iterator, self.host.session(context))
        async for response in stream.responses():
            yield response


class ObjectsServicer(rpc.ObjectsServicer):
    """Serves `lamina.mmu.v1.Objects`."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateObject(self, request: pb.CreateObjectRequest, context: Context) -> pb.Object:
        """Creates an object."""
        host, wanted = self.host, request.object
        convert.label(wanted.label, request.request_id, 255, "object.label")
        size = convert.count(wanted.size_bytes, "object.size_bytes", convert.MAX_OBJECT)
        group, session = convert.group_part(wanted.group, host.name, "object.group"), host.session(context)
        view = await host.drive(host.engine.create_object(size, group, wanted.label, session, request.request_id))
        return convert.entity(view, host.names)

    async def WriteObject(
        self, request_iterator: AsyncIterator[pb.WriteObjectRequest], context: Context
    ) -> pb.WriteObjectResponse:
        """Writes content, a piece a message."""
        written = 0
        async for request in request_iterator:
            convert.piece(request)
            handle = convert.handle(request.handle)
            written += await self.host.drive(self.host.engine.write_object(handle, request.offset, request.data))
        return pb.WriteObjectResponse(written_bytes=written)

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.Object:
        """Returns one object."""
        return convert.entity(self.host.engine.object(convert.key(request, self.host.name, OBJECT)), self.host.names)

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Context) -> pb.ListObjectsResponse:
        """Lists objects."""
        after, size = convert.page(request)
        found = self.host.engine.objects(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        objects = [convert.entity(view, self.host.names) for view in found[:size]]
        return pb.ListObjectsResponse(objects=objects, next_page_token=token)

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Context) -> pb.DeleteObjectResponse:
        """Deletes an object."""
        self.host.engine.delete_object(convert.handle(request.handle))
        return pb.DeleteObjectResponse()


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
