"""Calls of `lamina.mmu.v1.Spaces` on mappings: map, move, protect, advise, lock, pin."""

from __future__ import annotations

from typing import Any

import grpc
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges

from lamina_mmu.convert import mmu
from lamina_mmu.convert import ranges as convert_ranges
from lamina_mmu.domain.names import SPACE
from lamina_mmu.host import MmuHost

Context = grpc.aio.ServicerContext[Any, Any]


class MappingCalls:
    """The part of the servicer that changes mappings."""

    host: MmuHost

    async def MapRange(self, request: pb.MapRangeRequest, context: Context) -> pb.MapRangeResponse:
        """Maps a range."""
        spec = mmu.map_spec(request)
        step = self.host.engine.map_range(mmu.handle(request.handle), spec, request.request_id)
        return pb.MapRangeResponse(address=await self.host.finish(step))

    async def UnmapRange(self, request: pb.UnmapRangeRequest, context: Context) -> pb.UnmapRangeResponse:
        """Unmaps a range."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        convert_ranges.request_id(request.request_id)
        step = self.host.engine.unmap_range(mmu.handle(request.handle), start, end, request.request_id)
        return pb.UnmapRangeResponse(freed_pages=await self.host.finish(step))

    async def ProtectRange(self, request: pb.ProtectRangeRequest, context: Context) -> pb.ProtectRangeResponse:
        """Changes the rights of a range."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        rights = mmu.rights(request.protection)
        convert_ranges.request_id(request.request_id)
        handle = mmu.handle(request.handle)
        await self.host.finish(self.host.engine.protect_range(handle, start, end, rights, request.request_id))
        return pb.ProtectRangeResponse()

    async def ListMappings(self, request: pb.ListMappingsRequest, context: Context) -> pb.ListMappingsResponse:
        """Lists mappings."""
        after, size = mmu.page(request, mmu.MAX_PAGE)
        found = self.host.engine.mappings(mmu.key(request, self.host.name, SPACE), after, size + 1)
        token = str(found[size - 1].vma.end) if len(found) > size else ""
        mappings = [mmu.mapping(view, self.host.names) for view in found[:size]]
        return pb.ListMappingsResponse(mappings=mappings, next_page_token=token)

    async def SetBreak(self, request: ranges.SetBreakRequest, context: Context) -> ranges.SetBreakResponse:
        """Moves the end of the heap."""
        start, end = convert_ranges.heap(request)
        step = self.host.engine.set_break(mmu.handle(request.handle), start, end)
        start, end = await self.host.finish(step)
        return ranges.SetBreakResponse(start=start, end=end)

    async def RemapRange(self, request: ranges.RemapRangeRequest, context: Context) -> ranges.RemapRangeResponse:
        """Resizes or moves a mapping."""
        move = convert_ranges.move(request)
        step = self.host.engine.remap_range(mmu.handle(request.handle), move, request.request_id)
        return ranges.RemapRangeResponse(address=await self.host.finish(step))

    async def AdviseRange(self, request: ranges.AdviseRangeRequest, context: Context) -> ranges.AdviseRangeResponse:
        """Takes advice."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        given = convert_ranges.advice(request.advice)
        step = self.host.engine.advise_range(mmu.handle(request.handle), start, end, given)
        return ranges.AdviseRangeResponse(pages=await self.host.finish(step))

    async def SplitHugePages(
        self, request: ranges.SplitHugePagesRequest, context: Context
    ) -> ranges.SplitHugePagesResponse:
        """Splits huge pages."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        step = self.host.engine.split_huge_pages(mmu.handle(request.handle), start, end)
        return ranges.SplitHugePagesResponse(split_pages=await self.host.finish(step))

    async def SyncRange(self, request: ranges.SyncRangeRequest, context: Context) -> ranges.SyncRangeResponse:
        """Has changes of shared mappings kept."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        step = self.host.engine.sync_range(mmu.handle(request.handle), start, end)
        return ranges.SyncRangeResponse(written_pages=await self.host.finish(step))

    async def LockRange(self, request: ranges.LockRangeRequest, context: Context) -> ranges.LockRangeResponse:
        """Locks a range in RAM."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        step = self.host.engine.lock_range(mmu.handle(request.handle), start, end, request.on_fault)
        return ranges.LockRangeResponse(locked_bytes=await self.host.finish(step))

    async def UnlockRange(self, request: ranges.UnlockRangeRequest, context: Context) -> ranges.UnlockRangeResponse:
        """Unlocks a range."""
        start, end = mmu.page_range(request.address, request.size_bytes)
        step = self.host.engine.unlock_range(mmu.handle(request.handle), start, end)
        return ranges.UnlockRangeResponse(locked_bytes=await self.host.finish(step))

    async def PinRange(self, request: ranges.PinRangeRequest, context: Context) -> ranges.PinnedRange:
        """Pins a range for DMA."""
        convert_ranges.pinned_range(request)
        host, handle = self.host, mmu.handle(request.handle)
        step = host.engine.pin_range(
            handle, request.address, request.size_bytes, request.write, host.session(context), request.request_id
        )
        return convert_ranges.pinned(await host.drive(step))

    async def UnpinRanges(self, request: ranges.UnpinRangesRequest, context: Context) -> ranges.UnpinRangesResponse:
        """Ends pins."""
        self.host.engine.unpin_ranges(convert_ranges.pins(request), request.written)
        return ranges.UnpinRangesResponse()
