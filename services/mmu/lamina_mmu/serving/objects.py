"""Serves `lamina.mmu.v1.Objects`: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc
from lamina.mmu.v1 import supply_pb2

from lamina_mmu.convert import mmu, supply
from lamina_mmu.domain.names import OBJECT
from lamina_mmu.host import MmuHost
from lamina_mmu.streams.supply import SupplyStream

Context = grpc.aio.ServicerContext[Any, Any]


class ObjectsServicer(rpc.ObjectsServicer):
    """Memory objects of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def CreateObject(self, request: pb.CreateObjectRequest, context: Context) -> pb.Object:
        """Creates an object."""
        host, wanted = self.host, request.object
        mmu.label(wanted.label, request.request_id, 255, "object.label")
        size = mmu.count(wanted.size_bytes, "object.size_bytes", mmu.MAX_OBJECT)
        group, session = mmu.group_part(wanted.group, host.name, "object.group"), host.session(context)
        view = await host.drive(host.engine.create_object(size, group, wanted.label, session, request.request_id))
        return mmu.entity(view, host.names)

    async def WriteObject(
        self, request_iterator: AsyncIterator[pb.WriteObjectRequest], context: Context
    ) -> pb.WriteObjectResponse:
        """Writes content, a piece a message."""
        written = 0
        async for request in request_iterator:
            mmu.piece(request)
            handle = mmu.handle(request.handle)
            written += await self.host.drive(self.host.engine.write_object(handle, request.offset, request.data))
        return pb.WriteObjectResponse(written_bytes=written)

    async def GetObject(self, request: pb.GetObjectRequest, context: Context) -> pb.Object:
        """Returns one object."""
        return mmu.entity(self.host.engine.object(mmu.key(request, self.host.name, OBJECT)), self.host.names)

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Context) -> pb.ListObjectsResponse:
        """Lists objects."""
        after, size = mmu.page(request)
        found = self.host.engine.objects(after, size + 1)
        token = str(found[size - 1].number) if len(found) > size else ""
        objects = [mmu.entity(view, self.host.names) for view in found[:size]]
        return pb.ListObjectsResponse(objects=objects, next_page_token=token)

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Context) -> pb.DeleteObjectResponse:
        """Deletes an object."""
        self.host.engine.delete_object(mmu.handle(request.handle))
        return pb.DeleteObjectResponse()

    async def ReadObject(
        self, request: supply_pb2.ReadObjectRequest, context: Context
    ) -> AsyncIterator[supply_pb2.ObjectPiece]:
        """Streams content, at most 1 MiB a piece."""
        host = self.host
        offset, size = supply.content_range(request.offset, request.size_bytes)
        handle = host.engine.object(mmu.key(request, host.name, OBJECT)).handle
        end = host.engine.content_end(handle, offset, size)
        while offset < end:
            count = min(end - offset, mmu.MAX_PIECE)
            for start, data in await host.drive(host.engine.read_object(handle, offset, count)):
                yield supply_pb2.ObjectPiece(offset=start, data=data)
            offset += count

    async def ResizeObject(self, request: supply_pb2.ResizeObjectRequest, context: Context) -> pb.Object:
        """Changes the size of an object."""
        size = mmu.count(request.size_bytes, "size_bytes", mmu.MAX_OBJECT)
        view = await self.host.finish(self.host.engine.resize_object(mmu.handle(request.handle), size))
        return mmu.entity(view, self.host.names)

    async def SyncObject(
        self, request: supply_pb2.SyncObjectRequest, context: Context
    ) -> supply_pb2.SyncObjectResponse:
        """Has an object's changes kept."""
        offset, size = supply.sync_range(request)
        step = self.host.engine.sync_object(mmu.handle(request.handle), offset, size, request.drop)
        written, dropped = await self.host.drive(step)
        return supply_pb2.SyncObjectResponse(written_pages=written, dropped_pages=dropped)

    async def Supply(
        self, request_iterator: AsyncIterator[supply_pb2.SupplyRequest], context: Context
    ) -> AsyncIterator[Any]:
        """Serves one supplier."""
        stream = SupplyStream(self.host, request_iterator, self.host.session(context))
        async for response in stream.responses():
            yield response
