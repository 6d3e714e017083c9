"""Serves `lamina.mmu.v1.Frames`: parses requests, drives the engine's steps, converts the answers."""

from __future__ import annotations

from typing import Any

import grpc
from lamina.mmu.v1 import frames_pb2
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import mmu_pb2_grpc as rpc

from lamina_mmu.convert import frames as convert_frames
from lamina_mmu.convert import mmu
from lamina_mmu.host import MmuHost

Context = grpc.aio.ServicerContext[Any, Any]


class FramesServicer(rpc.FramesServicer):
    """Frames and extents of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Context) -> pb.MemoryStatus:
        """Returns the state of memory."""
        return mmu.memory(self.host.engine.memory())

    async def GetFrame(self, request: pb.GetFrameRequest, context: Context) -> pb.Frame:
        """Returns what a frame is used for."""
        return mmu.frame(self.host.engine.frame(request.frame), self.host.names)

    async def AllocateFrames(self, request: pb.AllocateFramesRequest, context: Context) -> pb.AllocateFramesResponse:
        """Allocates frames."""
        mmu.allocation(request)
        host, owner = self.host, request.owner
        group, session = mmu.group_part(request.group, host.name, "group"), host.session(context)
        step = host.engine.allocate_frames(request.count, owner, group, session, request.request_id)
        return pb.AllocateFramesResponse(frames=await host.drive(step))

    async def FreeFrames(self, request: pb.FreeFramesRequest, context: Context) -> pb.FreeFramesResponse:
        """Frees frames."""
        mmu.count(len(request.frames), "frames", mmu.MAX_FRAMES)
        self.host.engine.free_frames(list(request.frames), request.owner)
        return pb.FreeFramesResponse()

    async def ListFrames(self, request: pb.ListFramesRequest, context: Context) -> pb.ListFramesResponse:
        """Lists frames by number."""
        host, use = self.host, convert_frames.use(request.use)
        after, size = mmu.page(request)
        group = mmu.group_part(request.group, host.name, "group") if request.group else None
        found = host.engine.frames(use, group, after if request.page_token else -1, size + 1)
        frames = [mmu.frame(view, host.names) for view in found]
        token = convert_frames.frame_token(frames, size)
        return pb.ListFramesResponse(frames=frames[:size], next_page_token=token)

    async def GetFragmentation(
        self, request: frames_pb2.GetFragmentationRequest, context: Context
    ) -> frames_pb2.Fragmentation:
        """Returns how free memory is cut up."""
        return convert_frames.fragmentation(self.host.engine.fragmentation())

    async def CompactFrames(
        self, request: frames_pb2.CompactFramesRequest, context: Context
    ) -> frames_pb2.CompactFramesResponse:
        """Moves pages together."""
        step = self.host.engine.compact_frames(convert_frames.blocks(request))
        moved, free = await self.host.drive(step)
        return frames_pb2.CompactFramesResponse(moved_frames=moved, free_huge_blocks=free)

    async def AllocateExtents(
        self, request: frames_pb2.AllocateExtentsRequest, context: Context
    ) -> frames_pb2.AllocateExtentsResponse:
        """Allocates extents of huge pages."""
        order, host = convert_frames.extents(request), self.host
        group, session = mmu.group_part(request.group, host.name, "group"), host.session(context)
        step = host.engine.allocate_extents(request.count, order, request.owner, group, session, request.request_id)
        return frames_pb2.AllocateExtentsResponse(first_frames=await host.drive(step), frames_each=1 << order)

    async def FreeExtents(
        self, request: frames_pb2.FreeExtentsRequest, context: Context
    ) -> frames_pb2.FreeExtentsResponse:
        """Frees extents."""
        self.host.engine.free_extents(convert_frames.first_frames(request), request.owner)
        return frames_pb2.FreeExtentsResponse()

    async def OfflineFrames(
        self, request: frames_pb2.OfflineFramesRequest, context: Context
    ) -> frames_pb2.OfflineFramesResponse:
        """Takes frames out of use."""
        step = self.host.engine.offline_frames(convert_frames.failing(request), request.lost)
        results: Any = await self.host.finish(step)
        return frames_pb2.OfflineFramesResponse(results=results)
