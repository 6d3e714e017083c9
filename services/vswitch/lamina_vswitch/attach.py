"""One `Attach` stream: a device behind a port.

Two tasks, so that reading never waits for writing: the reader takes the device's batches and switches them, the
stream's own task sends what the attachment holds. The device is detached in every case when the stream ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.clock import Clock
from lamina_kit.errors import Unavailable
from lamina_vswitch import convert
from lamina_vswitch.catalog import Catalog
from lamina_vswitch.domain.definition import PortDefinition
from lamina_vswitch.io.attachment import Attachment


class Streams:
    """The `Attach` streams of a service that are open now."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._open: dict[int, Attachment] = {}

    async def run(self, requests: AsyncIterator[pb.AttachRequest]) -> AsyncGenerator[pb.AttachResponse, None]:
        """Serve one stream from its first message to its end. Whoever iterates closes the generator."""
        slot, generation, capacity, completions = convert.attach_open(await _first(requests))
        port = self._catalog.port_of_handle(slot, generation)
        name = self._catalog.port_name(port.switch, port.port)
        sink = Attachment(name, capacity)
        self._catalog.attach(port, sink, self._clock.now_ns())
        self._open[slot] = sink
        reader = asyncio.get_running_loop().create_task(self._read(requests, slot, sink))
        try:
            yield self._opened(port, name)
            while (outgoing := await sink.next()) is not None:
                for message in convert.attach_responses(outgoing, completions):
                    yield message
        finally:
            sink.closed = True
            if self._open.get(slot) is sink:
                del self._open[slot]
            self._catalog.detach(port, sink, self._clock.now_ns())
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def stop(self) -> None:
        """End all streams: the service stops."""
        for slot in sorted(self._open):
            self._open[slot].fail(
                Unavailable(
                    "The vswitch service is stopping.",
                    reason="SERVICE_STOPPING",
                    next_step="Attach again once it is back; the port keeps its handle.",
                )
            )

    def _opened(self, port: PortDefinition, name: str) -> pb.AttachResponse:
        mtu_bytes = self._catalog.switch(port.switch).mtu_bytes
        link = convert.link(self._catalog.engine.link(port.slot))
        return pb.AttachResponse(opened=pb.AttachOpened(port=name, mtu_bytes=mtu_bytes, link=link))

    async def _read(self, requests: AsyncIterator[pb.AttachRequest], slot: int, sink: Attachment) -> None:
        """Switch what the device sends. Whatever ends the reading ends the stream, with its own error."""
        try:
            async for request in requests:
                frames = convert.attach_frames(request)
                if sink.closed:
                    return
                sink.switched(len(frames), self._catalog.engine.transmit(slot, frames, self._clock.now_ns()))
                await asyncio.sleep(0)  # lets the receiving streams send before the next batch fills their queues
        except Exception as error:
            sink.fail(error)
        else:
            sink.finish()


async def _first(requests: AsyncIterator[pb.AttachRequest]) -> pb.AttachRequest:
    """Return the first message, or an empty one, which is refused, when there is none."""
    async for request in requests:
        return request
    return pb.AttachRequest()
