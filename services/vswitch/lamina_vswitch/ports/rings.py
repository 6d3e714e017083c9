"""`AttachRing`: a device behind a port, at rings in memory that it shares with the switch.

The stream carries no frames. What the device wrote is read when its doorbell rings, a bounded number of frames at a
turn of the loop; then the switch says that it sleeps, looks once more, and waits. What it wrote before it ended its
side is switched too. Compiled code is loaded with the first ring.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.vswitch.v1 import rings_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import DataLoss, FailedPrecondition
from lamina_vswitch.convert import rings
from lamina_vswitch.convert.rings import RingOpening
from lamina_vswitch.domain.definitions.switches import PortDefinition
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.io.attachments.ring_file import Doorbell, RingFile, RingFolder, is_heard
from lamina_vswitch.io.attachments.stream import Attachment
from lamina_vswitch.io.backends.refusals import lacking
from lamina_vswitch.plane.loading import PlaneLoader
from lamina_vswitch.ports.streams import first, stopping
from lamina_vswitch.switches.catalog import Catalog

if TYPE_CHECKING:
    from lamina_vswitch.plane.memory_ring import MemoryRing
    from lamina_vswitch.plane.switching import Plane

MOST_AT_ONCE = 1024
"""Frames of a queue that are switched before other work of the loop has its turn."""


class RingStreams:
    """The rings that are attached now."""

    def __init__(self, catalog: Catalog, clock: Clock, folder: Path, planes: PlaneLoader) -> None:
        self._catalog = catalog
        self._clock = clock
        self._folder = RingFolder(folder)
        self._planes = planes
        self._open: dict[int, Attachment] = {}

    async def run(
        self, requests: AsyncIterator[pb.AttachRingRequest], peer: str
    ) -> AsyncGenerator[pb.AttachRingResponse, None]:
        """Keep a ring attached from the stream's first message to its end; `peer` says where the caller is."""
        opening = rings.ring_opening(await first(requests, pb.AttachRingRequest()))
        self._catalog.port_of_handle(opening.slot, opening.generation)
        self._check(opening, peer)
        plane = await self._loaded_plane()
        port = self._catalog.port_of_handle(opening.slot, opening.generation)  # it may have gone meanwhile
        name = self._catalog.port_name(port.switch, port.port)
        file = self._folder.make(opening.geometry)
        reader: asyncio.Task[None] | None = None
        told = Attachment(name, 1)
        bell: Doorbell | None = None
        ring: _AttachedRing | None = None
        try:
            bell = Doorbell(file.path.with_suffix(".bell"))
            ring = _AttachedRing(plane, port, opening, file, bell, told, self._clock)
            self._catalog.attach(port, ring.sink, self._clock.now_ns(), opening.takes)
            self._open[opening.slot] = told
            reader = asyncio.get_running_loop().create_task(self._read(requests, opening.slot, told, ring))
            ring.start()
            link_up = self._catalog.engine.link(port.slot)
            mtu_bytes = self._catalog.mtu_bytes(port.slot)
            paths = str(file.path), str(bell.path)
            yield rings.ring_opened(name, mtu_bytes, link_up, opening.geometry, *paths)
            while (outgoing := await told.next()) is not None:
                if outgoing.link_up is not None:
                    yield rings.ring_link(outgoing.link_up)
        finally:
            told.closed = True
            if self._open.get(opening.slot) is told:
                del self._open[opening.slot]
            if ring is not None:
                ring.stop()
                self._catalog.detach(port, ring.sink, self._clock.now_ns())
                ring.release()
            if bell is not None:
                bell.close()
            self._folder.remove(file)
            if reader is not None:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    def stop(self) -> None:
        """End all streams: the service stops."""
        for slot in sorted(self._open):
            self._open[slot].fail(stopping())

    async def _read(
        self, requests: AsyncIterator[pb.AttachRingRequest], slot: int, told: Attachment, ring: _AttachedRing
    ) -> None:
        """Take what the device says of itself. Whatever ends the reading ends the stream, with its own error."""
        try:
            async for request in requests:
                listening = rings.ring_state(request)
                if told.closed:
                    return
                self._catalog.engine.listen(slot, listening)
            await ring.finish()
        except Exception as error:
            told.fail(error)
        else:
            told.finish()

    def _check(self, opening: RingOpening, peer: str) -> None:
        if not peer.startswith(("inproc:", "unix:")):
            raise FailedPrecondition(
                "A ring is memory of one machine, and this call does not come through a UNIX socket of it.",
                reason="NOT_SAME_MACHINE",
                next_step="Call through the service's UNIX socket, or use AttachDevice.",
            )
        if self._clock.mode != "real":
            raise FailedPrecondition(
                f"A ring's doorbell is outside of the stack's time, which is {self._clock.mode}.",
                reason="CLOCK_VIRTUAL",
                next_step="Use AttachDevice.",
            )
        with Checks() as check:
            path = opening.doorbell_path
            check.that(not path or is_heard(path), "open.doorbell_path", "is no socket at which somebody waits")

    async def _loaded_plane(self) -> Plane:
        """Return the compiled plane. Raises Unimplemented `ENGINE_LACKS_BACKEND` where the engine has none."""
        plane = await self._planes.load()
        if plane is None:
            raise lacking("rings in shared memory", f"the engine {self._catalog.engine.name} has none")
        return plane


class _AttachedRing:
    """One attachment: the rings of its file, the sink that writes to the device, the reading of what it wrote."""

    def __init__(
        self,
        plane: Plane,
        port: PortDefinition,
        opening: RingOpening,
        file: RingFile,
        bell: Doorbell,
        told: Attachment,
        clock: Clock,
    ) -> None:
        from lamina_vswitch.io.attachments.ring import DeviceRing, DeviceRings
        from lamina_vswitch.plane.memory_ring import MemoryRing

        sizes, queues = file.geometry, range(file.geometry.queues)
        self._plane, self._slot, self._bell, self._clock, self._told = plane, port.slot, bell, clock, told
        self._peer = opening.doorbell_path
        self._name = file.path.name
        self._to_switch: list[MemoryRing] = [MemoryRing(file.memory, sizes.to_switch(n), sizes) for n in queues]
        out = [MemoryRing(file.memory, sizes.to_device(n), sizes) for n in queues]
        for ring in out:
            ring.records = True
        sinks = [DeviceRing(ring, told, self._wake, self._corrupt) for ring in out]
        self.sink: FrameSink = sinks[0] if len(sinks) == 1 else DeviceRings(sinks)
        self._turn: asyncio.Handle | None = None
        self._reading = False

    def start(self) -> None:
        """Begin to read what the device writes."""
        asyncio.get_running_loop().add_reader(self._bell.socket.fileno(), self._rung)
        self._reading = True
        self._work()

    def stop(self) -> None:
        """Read no more. Idempotent."""
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._bell.socket.fileno())
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    async def finish(self) -> None:
        """Switch what the device has written by now, as it ended its side."""
        self.stop()
        for ring in self._to_switch:
            waiting = ring.waiting()
            if waiting is None:
                self._corrupt()
                return
            for _ in range(0, waiting, MOST_AT_ONCE):
                self._switch(ring)
                await asyncio.sleep(0)  # lets the receiving streams send before the next burst fills their queues
                if self._told.closed:
                    return

    def release(self) -> None:
        """Let go of the memory, once stopped and detached: whoever still refers to this does not keep it."""
        del self._to_switch, self.sink

    def _rung(self) -> None:
        self._bell.heard()
        if self._turn is None:
            self._work()

    def _work(self) -> None:
        """Switch what waits in the queues; go on at the next turn of the loop, or sleep when there is nothing."""
        self._turn = None
        if self._told.closed:
            return
        is_busy = False
        for ring in self._to_switch:
            is_busy = self._switch(ring) > 0 or is_busy
            if self._told.closed:
                return
        if not is_busy:
            for ring in self._to_switch:
                left = ring.lie_down()
                if left is None:
                    self._corrupt()
                    return
                is_busy = is_busy or left > 0
        if is_busy:
            self._turn = asyncio.get_running_loop().call_soon(self._work)

    def _switch(self, ring: MemoryRing) -> int:
        """Switch some of what waits in a queue; return how many frames."""
        burst = ring.peek(MOST_AT_ONCE)
        if burst is None:
            self._corrupt()
            return 0
        if len(burst):
            self._plane.transmit(self._slot, burst, self._clock.now_ns())
            ring.give_back(len(burst))
        return len(burst)

    def _wake(self) -> None:
        if self._peer:
            self._bell.ring(self._peer)

    def _corrupt(self) -> None:
        """End the stream: nothing that the device writes can be trusted any more."""
        self.stop()
        self._told.fail(
            DataLoss(
                f"The device wrote indices or lengths into {self._name} that cannot be.",
                reason="RING_CORRUPT",
                next_step="Attach again with a new ring, once the device keeps to the layout.",
            )
        )
