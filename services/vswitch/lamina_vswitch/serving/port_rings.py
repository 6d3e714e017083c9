"""`lamina.vswitch.v1.PortRings`: devices with offloads, queues and traces; ports that hold their frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from grpc import aio
from lamina.vswitch.v1 import rings_pb2 as pb
from lamina.vswitch.v1 import rings_pb2_grpc as rpc

from lamina_vswitch.convert import holds
from lamina_vswitch.convert.streams import DeviceForm
from lamina_vswitch.ports.holds import Holding
from lamina_vswitch.ports.rings import RingStreams
from lamina_vswitch.ports.streams import Streams

Context = aio.ServicerContext[Any, Any]


class PortRingsServicer(rpc.PortRingsServicer):
    """Serves `lamina.vswitch.v1.PortRings`."""

    def __init__(self, streams: Streams, rings: RingStreams, holding: Holding) -> None:
        self._streams = streams
        self._rings = rings
        self._holding = holding

    def AttachDevice(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.AttachDeviceResponse]:
        """Carry frames both ways for as long as the stream lives; the kit closes the generator with the call."""
        return self._streams.run(request_iterator, DeviceForm(), pb.AttachDeviceRequest())

    def AttachRing(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.AttachRingResponse]:
        """Keep a ring at its port for as long as the stream lives."""
        return self._rings.run(request_iterator, context.peer())

    async def QuiescePort(self, request: pb.QuiescePortRequest, context: Context) -> pb.QuiescePortResponse:
        """Hold what is for the device of a port."""
        handle, hold_frames = request.handle, holds.hold_frames(request)
        return pb.QuiescePortResponse(held_frames=self._holding.hold(handle.id, handle.generation, hold_frames))

    def TakeHeldFrames(
        self, request: pb.TakeHeldFramesRequest, context: Context
    ) -> AsyncGenerator[pb.TakeHeldFramesResponse, None]:
        """Send what a port holds, and with `follow` what it holds from then on."""
        return self._holding.take(request.handle.id, request.handle.generation, follow=request.follow)

    async def ReleasePort(self, request_iterator: Any, context: Context) -> pb.ReleasePortResponse:
        """End a hold."""
        return await self._holding.release(request_iterator)
