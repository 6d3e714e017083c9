"""Calls of `lamina.mmu.v1.Spaces` on pages: faults, bytes, translations, residency, holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges

from lamina_kit.effects import WaitFor
from lamina_mmu.convert import mmu
from lamina_mmu.convert import ranges as convert_ranges
from lamina_mmu.domain.fault_feed import watch_key
from lamina_mmu.domain.names import SPACE
from lamina_mmu.host import MmuHost
from lamina_mmu.streams.hold import HoldStream

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryCalls:
    """The part of the servicer that is about pages."""

    host: MmuHost

    async def Fault(self, request: pb.FaultRequest, context: Context) -> pb.FaultResponse:
        """Resolves a fault."""
        host = self.host
        access = mmu.access(request.access)
        told = not request.without_steps
        step = host.engine.fault(mmu.handle(request.handle), request.address, access, told)
        try:
            begun = next(step)
        except StopIteration as end:  # as almost every fault ends
            return convert_ranges.fault(end.value, host.names, told)
        return convert_ranges.fault(await host.drive(step, begun), host.names, told)

    async def ReadSpace(self, request: pb.ReadSpaceRequest, context: Context) -> pb.ReadSpaceResponse:
        """Reads a space's bytes."""
        mmu.bytes_read(request.address, request.size_bytes)
        step = self.host.engine.read_space(mmu.handle(request.handle), request.address, request.size_bytes)
        return pb.ReadSpaceResponse(data=await self.host.drive(step))

    async def WriteSpace(self, request: pb.WriteSpaceRequest, context: Context) -> pb.WriteSpaceResponse:
        """Writes a space's bytes."""
        mmu.bytes_written(request.address, len(request.data))
        handle = mmu.handle(request.handle)
        await self.host.drive(self.host.engine.write_space(handle, request.address, request.data, request.force))
        return pb.WriteSpaceResponse()

    async def Translate(self, request: pb.TranslateRequest, context: Context) -> pb.TranslateResponse:
        """Explains an address."""
        key = mmu.key(request, self.host.name, SPACE)
        return mmu.translation(self.host.engine.translate(key, request.address), self.host.names)

    async def Reclaim(self, request: pb.ReclaimRequest, context: Context) -> pb.ReclaimResponse:
        """Pushes pages out of RAM."""
        pages = mmu.count(request.pages, "pages", mmu.MAX_PAGES)
        handle = mmu.handle(request.handle) if request.HasField("handle") else None
        group = mmu.group_part(request.group, self.host.name, "group")
        result = await self.host.drive(self.host.engine.reclaim(handle, group, pages))
        return pb.ReclaimResponse(reclaimed_pages=result.pages, written_pages=result.written)

    async def Hold(self, request_iterator: AsyncIterator[pb.HoldRequest], context: Context) -> AsyncIterator[Any]:
        """Serves one holder."""
        stream = HoldStream(self.host, request_iterator, self.host.session(context))
        async for response in stream.responses():
            yield response

    async def ReadResidency(
        self, request: ranges.ReadResidencyRequest, context: Context
    ) -> AsyncIterator[ranges.ResidencyPiece]:
        """Streams where the pages of a range are."""
        address, end = convert_ranges.residency_range(request)
        engine, key = self.host.engine, mmu.key(request, self.host.name, SPACE)
        while address < end:
            behind, pages = await self.host.drive(engine.read_residency(key, address, end, request.clear_accessed))
            yield ranges.ResidencyPiece(address=address, pages=pages)
            address = behind

    async def WatchFaults(self, request: pb.WatchFaultsRequest, context: Context) -> AsyncIterator[pb.FaultBatch]:
        """Streams faults as they are resolved."""
        host, sample = self.host, convert_ranges.sample(request)
        name = mmu.name_part(request.name, host.name, SPACE) if request.name else ""
        watch = host.engine.watch_faults(name, sample)
        try:
            while True:
                events, missed = watch.take(convert_ranges.MOST_EVENTS)
                if events or missed:
                    yield convert_ranges.fault_batch(events, missed, host.names)
                elif watch.closed:
                    return
                else:
                    await host.perform(WaitFor(watch_key(watch.id)))
        finally:
            host.engine.end_watch(watch)
