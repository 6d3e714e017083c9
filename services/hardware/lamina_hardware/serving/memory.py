"""Serves `lamina.hardware.v1.Memory`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpc import aio
from lamina.hardware.v1 import dirty_log_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.convert import cpu, dirty_logs

if TYPE_CHECKING:
    from lamina_hardware.machine import Machine

Context = aio.ServicerContext[Any, Any]


class MemoryServicer(rpc.MemoryServicer):
    """RAM: extents, bytes, and logs of what was written."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    async def MapMemory(self, request: pb.MapMemoryRequest, context: Context) -> pb.MapMemoryResponse:
        """Returns the extents of a range."""
        return self._m.memory.extents(request.address, request.size_bytes)

    async def ReadMemory(self, request: pb.ReadMemoryRequest, context: Context) -> pb.ReadMemoryResponse:
        """Returns bytes of RAM."""
        return pb.ReadMemoryResponse(data=self._m.memory.read(request.address, request.size_bytes))

    async def WriteMemory(self, request: pb.WriteMemoryRequest, context: Context) -> pb.WriteMemoryResponse:
        """Writes bytes to RAM."""
        self._m.memory.write(request.address, request.data)
        await self._m.dispatcher.drop_written_code()
        return pb.WriteMemoryResponse()

    async def StartDirtyLog(
        self, request: dirty_log_pb2.StartDirtyLogRequest, context: Context
    ) -> dirty_log_pb2.DirtyLog:
        """Starts a log."""
        ranges = dirty_logs.ranges(request.ranges, self._m.bus.size)
        log = await self._m.dirty_logs.start(ranges, self._m.owner(context), request.request_id)
        return dirty_logs.log(log)

    async def ReadDirtyLog(
        self, request: dirty_log_pb2.ReadDirtyLogRequest, context: Context
    ) -> AsyncIterator[dirty_log_pb2.DirtyLogPiece]:
        """Reads a log."""
        for piece in await self._m.dirty_logs.read(cpu.handle(request.handle), clear=request.clear):
            yield dirty_logs.piece(piece)

    async def StopDirtyLog(
        self, request: dirty_log_pb2.StopDirtyLogRequest, context: Context
    ) -> dirty_log_pb2.StopDirtyLogResponse:
        """Ends a log."""
        self._m.dirty_logs.stop(cpu.handle(request.handle))
        return dirty_log_pb2.StopDirtyLogResponse()
