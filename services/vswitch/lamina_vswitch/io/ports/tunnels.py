"""The ports of overlays and of their tunnels: sinks whose other end is in this process, and a tunnel's timer.

The engine's `deliver` returns at once and never reaches back into the engine; what came is worked off in a step of its
own, right after. A timer runs only while a tunnel waits for a neighbour.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.overlay.tunnel import Tunnel
from lamina_vswitch.domain.port.queue import FrameQueue
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.io.wakeup import Wakeup

QUEUE_FRAMES = 4096
STEP_FRAMES = 64
"""Frames that are worked off before others of this process have their turn: a storm does not stop the host."""


class SteppedPort:
    """A `FrameSink` that hands each frame to `work` in steps, and sends at its port.

    `failed` is told of what `work` raises, which is a defect: the frames behind the one that met it go on.
    """

    def __init__(
        self,
        engine: SwitchEngine,
        slot: int,
        clock: Clock,
        work: Callable[[bytes, int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._engine = engine
        self.slot = slot
        self._clock = clock
        self._work = work
        self._failed = failed
        self._queue = FrameQueue(QUEUE_FRAMES)
        self._frames: deque[bytes] = deque()
        self._step: asyncio.Handle | None = None
        self.closed = False

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames; return how many fitted."""
        taken = self._queue.push(frames)
        self._soon()
        return taken

    def link_changed(self, up: bool) -> None:
        """Nothing: without a link nothing is heard, and nothing that is said arrives."""

    def removed(self) -> None:
        """End: the port is gone."""
        self.close()

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames into the switch."""
        if frames and not self.closed:
            self._engine.transmit(self.slot, frames, self._clock.now_ns())

    def dropped(self, reason: DropReason, frame: bytes, now_ns: int) -> None:
        """Count a frame at this port."""
        if not self.closed:
            self._engine.refused(self.slot, reason, [frame], now_ns)

    def close(self) -> None:
        """Send and take nothing more. Idempotent."""
        self.closed = True
        if self._step is not None:
            self._step.cancel()
        self._step = None

    def _soon(self) -> None:
        if self._step is None and not self.closed:
            self._step = asyncio.get_running_loop().call_soon(self._worked)

    def _worked(self) -> None:
        self._step = None
        now_ns = self._clock.now_ns()
        if not self._frames:
            self._frames.extend(self._queue.drain()[0])
        for _ in range(min(STEP_FRAMES, len(self._frames))):
            try:
                self._work(self._frames.popleft(), now_ns)
            except Exception as error:
                self._failed(error)
        if self._frames or len(self._queue):
            self._soon()


class Carrier:
    """A tunnel with its port in the uplink's switch and its timer; `failed` is told of defects in its work."""

    def __init__(
        self,
        mac: bytes,
        address: int,
        engine: SwitchEngine,
        slot: int,
        clock: Clock,
        failed: Callable[[Exception], None],
    ) -> None:
        self.port = SteppedPort(engine, slot, clock, self._receive, failed)
        self.tunnel = Tunnel(mac, address, self.port.dropped)
        self._timer = Wakeup(clock, self._due_ns, self._ticked, failed)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames of the tunnel, and wait for the answers that it wants."""
        self.port.send(frames)
        self._timer.watch()

    def close(self) -> None:
        """End. Idempotent."""
        self.port.close()
        self._timer.stop()

    def _receive(self, frame: bytes, now_ns: int) -> None:
        self.send(self.tunnel.receive(frame, now_ns))

    def _due_ns(self) -> int | None:
        return None if self.port.closed else self.tunnel.next_wakeup_ns

    def _ticked(self, now_ns: int) -> None:
        self.send(self.tunnel.tick(now_ns))
