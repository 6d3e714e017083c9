"""Streams that are attached to ports, `Attach` and `AttachDevice`: a device behind a port.

Two tasks, so that reading never waits for writing: the reader takes the device's batches and switches them, the
stream's own task sends what the attachment holds. The device is detached in every case when the stream ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from lamina_kit.clock import Clock
from lamina_kit.errors import Unavailable
from lamina_vswitch.convert.streams import Opening, StreamForm
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.switches.catalog import Catalog

Request = TypeVar("Request")
Response = TypeVar("Response")


class Streams:
    """The streams of a service that are open now."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._open: dict[int, Attachment] = {}

    async def run(
        self, requests: AsyncIterator[Request], form: StreamForm[Request, Response], nothing: Request
    ) -> AsyncGenerator[Response, None]:
        """Serve one stream from its first message to its end. Whoever iterates closes the generator.

        `nothing` stands for the first message when none comes; it is refused.
        """
        opening = form.opening(await first(requests, nothing))
        slot = opening.slot
        port = self._catalog.port_of_handle(slot, opening.generation)
        name = self._catalog.port_name(port.switch, port.port)
        sink = Attachment(name, opening.capacity, opening.queues, completions=opening.completions)
        self._catalog.attach(port, sink, self._clock.now_ns(), opening.takes)
        self._open[slot] = sink
        mtu_bytes = self._catalog.switch(port.switch).mtu_bytes
        reader = asyncio.get_running_loop().create_task(self._read(requests, form, opening, sink))
        try:
            yield form.opened(name, mtu_bytes, self._catalog.engine.link(slot))
            while (outgoing := await sink.next()) is not None:
                for message in form.responses(outgoing, opening):
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
            self._open[slot].fail(stopping())

    async def _read(
        self, requests: AsyncIterator[Request], form: StreamForm[Request, Response], opening: Opening, sink: Attachment
    ) -> None:
        """Switch what the device sends. Whatever ends the reading ends the stream, with its own error."""
        engine, slot = self._catalog.engine, opening.slot
        try:
            async for request in requests:
                taken = form.taken(request, opening)
                if sink.closed:
                    return
                if taken.listening is not None:
                    engine.listen(slot, taken.listening)
                    continue
                sink.switched(len(taken.frames), self._transmit(opening, taken.frames))
                await asyncio.sleep(0)  # lets the receiving streams send before the next batch fills their queues
        except Exception as error:
            sink.fail(error)
        else:
            sink.finish()

    def _transmit(self, opening: Opening, frames: list[bytes]) -> int:
        """Switch a batch; return how many frames were dropped at this port."""
        engine, slot, now_ns = self._catalog.engine, opening.slot, self._clock.now_ns()
        if opening.takes is None:
            return engine.transmit(slot, frames, now_ns)
        good, bad = admitted(frames, self._catalog.mtu_bytes(slot))
        engine.turned_away(slot, DropReason.OFFLOAD_INVALID, bad, now_ns)
        return len(bad) + engine.transmit(slot, good, now_ns)


def stopping() -> Unavailable:
    """Return the error that ends a stream when the service stops."""
    return Unavailable(
        "The vswitch service is stopping.",
        reason="SERVICE_STOPPING",
        next_step="Attach again once it is back; the port keeps its handle.",
    )


async def first(requests: AsyncIterator[Request], nothing: Request) -> Request:
    """Return the first message, or `nothing` when there is none."""
    async for request in requests:
        return request
    return nothing
