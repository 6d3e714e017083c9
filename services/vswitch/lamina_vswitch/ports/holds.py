"""Holding ports while their devices move: the calls of a migration at its source and at its destination."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from lamina.vswitch.v1 import rings_pb2 as pb

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.convert import holds
from lamina_vswitch.convert.streams import device_batch
from lamina_vswitch.domain.definitions.refusals import not_held
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.rarp import announcement
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.domain.port.hold import Hold
from lamina_vswitch.ports.streams import first
from lamina_vswitch.switches.catalog import Catalog

CHUNK_FRAMES = 256
"""Held frames that a device gets between two turns of the loop, in which its stream sends them on."""


class Holding:
    """The holds of a host's ports, as the contract speaks of them."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._engine = catalog.engine
        self._clock = clock

    def hold(self, slot: int, generation: int, hold_frames: int) -> int:
        """Hold a port; return how many frames that had been queued for its device are held."""
        port = self._catalog.port_of_handle(slot, generation)
        return self._engine.quiesce(port.slot, hold_frames, self._clock.now_ns())

    async def take(
        self, slot: int, generation: int, *, follow: bool
    ) -> AsyncGenerator[pb.TakeHeldFramesResponse, None]:
        """Yield what a port holds, and with `follow` what it holds until the hold or the port ends."""
        hold = self._held(self._catalog.port_of_handle(slot, generation))
        wake = asyncio.Event()
        forget = hold.listen(wake.set)
        try:
            while True:
                wake.clear()
                while frames := hold.take():
                    yield pb.TakeHeldFramesResponse(batch=device_batch(frames))
                if hold.ended or not follow:
                    return
                await wake.wait()
        finally:
            forget()

    async def release(self, requests: AsyncIterator[pb.ReleasePortRequest]) -> pb.ReleasePortResponse:
        """End a hold: frames of the requests come first, then those that the port held, then new ones."""
        wanted = holds.release(await first(requests, pb.ReleasePortRequest()))
        port = self._catalog.port_of_handle(wanted.slot, wanted.generation)
        delivered = dropped = 0
        self._check(port, wanted)
        async for request in requests:
            frames = holds.released_frames(request)
            self._check(port, wanted)
            taken, lost = self._brought(port, frames, delivers=wanted.delivers)
            delivered, dropped = delivered + taken, dropped + lost
            await asyncio.sleep(0)  # lets the device's stream send before the next batch fills its queue
        if wanted.delivers:
            taken, lost = await self._deliver_held(port, wanted)
            delivered, dropped = delivered + taken, dropped + lost
        dropped += self._engine.release(port.slot, self._clock.now_ns())
        if wanted.delivers and wanted.announced:
            frames = [announcement(mac) for mac in wanted.announced]
            self._engine.transmit(port.slot, frames, self._clock.now_ns())
        return pb.ReleasePortResponse(delivered_frames=delivered, dropped_frames=dropped)

    def _brought(self, port: PortDefinition, frames: list[bytes], *, delivers: bool) -> tuple[int, int]:
        """Deliver or drop frames that the other host held; return how many of each."""
        now_ns = self._clock.now_ns()
        good, bad = admitted(frames, self._catalog.mtu_bytes(port.slot))
        if bad:
            self._engine.refused(port.slot, DropReason.OFFLOAD_INVALID, bad, now_ns)
        if not good:
            return 0, len(bad)
        if not delivers:
            self._engine.refused(port.slot, DropReason.DISCARDED, good, now_ns)
            return 0, len(frames)
        given, taken = self._engine.give(port.slot, good, now_ns)
        return taken, given - taken + len(bad)

    async def _deliver_held(self, port: PortDefinition, wanted: holds.Release) -> tuple[int, int]:
        """Deliver what the port holds, in chunks; return how many frames the device took, and how many it did not.

        What comes meanwhile is held, too, and comes next. A device that is slower than what comes for it gets twice as
        many at each turn, so that this ends.
        """
        delivered = dropped = 0
        chunk = CHUNK_FRAMES
        while True:
            self._check(port, wanted)
            hold = self._engine.hold(port.slot)
            withdrawn = hold.withdrawn if hold is not None else 0
            frames = hold.take(chunk) if hold is not None else []
            if not frames:
                return delivered, dropped
            given, taken = self._engine.give(port.slot, frames, self._clock.now_ns(), min(withdrawn, len(frames)))
            delivered, dropped, chunk = delivered + taken, dropped + given - taken, 2 * chunk
            await asyncio.sleep(0)

    def _check(self, port: PortDefinition, wanted: holds.Release) -> None:
        """Refuse when the port went away meanwhile, or has no device to deliver to."""
        self._catalog.port_of_handle(wanted.slot, wanted.generation)
        if wanted.delivers and not self._engine.attached(port.slot):
            name = self._catalog.port_name(port.switch, port.port)
            raise FailedPrecondition(
                f"No device is attached to {name} that could get what it holds.",
                reason="PORT_DETACHED",
                next_step="Attach the device first, or discard what is held.",
                port=name,
            )

    def _held(self, port: PortDefinition) -> Hold:
        hold = self._engine.hold(port.slot)
        if hold is None:
            raise not_held(self._catalog.port_name(port.switch, port.port))
        return hold
