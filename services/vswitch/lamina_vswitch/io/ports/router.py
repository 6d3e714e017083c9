"""The port of a router: a sink whose other end is in this process, and the clock that the router does not have.

The engine's `deliver` returns at once and never reaches back into the engine; what came is worked off in a step of its
own, right after, in one batch. A timer runs only while the router waits for something.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_vswitch.domain.network.router.router import Router
from lamina_vswitch.domain.port.queue import FrameQueue
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.io.wakeup import Wakeup

QUEUE_FRAMES = 4096
STEP_FRAMES = 64
"""Frames that are worked off before others of this process have their turn: a storm does not stop the host."""
QUEUE_PACKETS = 1024
"""Packets of other networks that may wait; what does not fit is lost, as on any link."""


class RouterPort:
    """A `FrameSink` that gives frames to a router and sends what the router answers."""

    def __init__(
        self, router: Router, engine: SwitchEngine, slot: int, clock: Clock, failed: Callable[[Exception], None]
    ) -> None:
        self._router = router
        self._engine = engine
        self.slot = slot
        self._clock = clock
        self.failed = failed
        self._queue = FrameQueue(QUEUE_FRAMES)
        self._frames: deque[bytes] = deque()
        self._packets: deque[bytes] = deque()
        self._step: asyncio.Handle | None = None
        self._timer = Wakeup(clock, self._due_ns, self._ticked, failed)
        self._closed = False

    # What the engine calls

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames for the router; return how many fitted."""
        taken = self._queue.push(frames)
        self._soon()
        return taken

    def link_changed(self, up: bool) -> None:
        """Nothing: a router without a link hears nothing and says nothing that arrives."""

    def removed(self) -> None:
        """End: the port is gone."""
        self.close()

    # What others of this process call

    def take_packet(self, packet: bytes, now_ns: int) -> None:
        """Take a packet of another network, to be routed in a step of its own."""
        if len(self._packets) < QUEUE_PACKETS:
            self._packets.append(packet)
            self._soon()

    def send_inside(self, packet: bytes) -> None:
        """Send a packet from the outside to a device of the network."""
        now_ns = self._clock.now_ns()
        self.send(self._router.to_inside(packet, now_ns))

    def send(self, frames: list[bytes]) -> None:
        """Send frames of the router into its VLAN."""
        if frames and not self._closed:
            self._engine.transmit(self.slot, frames, self._clock.now_ns())
        self._timer.watch()

    def close(self) -> None:
        """Send and take nothing more. Idempotent."""
        self._closed = True
        if self._step is not None:
            self._step.cancel()
        self._step = None
        self._timer.stop()

    # Steps

    def _soon(self) -> None:
        if self._step is None and not self._closed:
            self._step = asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._step = None
        now_ns = self._clock.now_ns()
        answers: list[bytes] = []
        if not self._frames:
            self._frames.extend(self._queue.drain()[0])
        self._router.hold()
        for _ in range(min(STEP_FRAMES, len(self._frames))):
            answers += self._one(self._router.receive, self._frames.popleft(), now_ns)
        packets, self._packets = self._packets, deque()
        for packet in packets:
            answers += self._one(self._router.from_peer, packet, now_ns)
        self.send(answers + self._router.release(now_ns))
        if self._frames or len(self._queue):
            self._soon()

    def _one(self, take: Callable[[bytes, int], list[bytes]], data: bytes, now_ns: int) -> list[bytes]:
        try:
            return take(data, now_ns)
        except Exception as error:  # a lease that the disk refuses is not promised; for a defect nobody else pays
            self.failed(error)
            return []

    def _due_ns(self) -> int | None:
        return None if self._closed else self._router.next_wakeup_ns

    def _ticked(self, now_ns: int) -> None:
        self.send(self._router.tick(now_ns))
