"""One device attached to one port: the queues between the engine, which never waits, and a stream, which does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from lamina_kit.errors import Aborted
from lamina_vswitch.domain.offload.flow_hash import flow_hash
from lamina_vswitch.domain.port.queue import FrameQueue


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a stream has to send next; what is None or empty is not sent.

    `batches` are queue, frames, and how many were lost since that queue's batch before.
    """

    link_up: bool | None
    batches: list[tuple[int, list[bytes], int]]
    completion: tuple[int, int, int] | None


class Attachment:
    """A `QueueingSink` that a stream reads with `next`.

    Frames are bounded by the rings, one a queue. Link changes and completions are states, not queues: a newer one
    replaces an older one that has not been sent yet, so a slow reader costs no memory. Without `completions` there are
    none, and nobody is woken for them.
    """

    def __init__(self, port_name: str, capacity: int, queues: int = 1, *, completions: bool = True) -> None:
        self.closed = False
        self._port_name = port_name
        self._completions = completions
        self._rings = [FrameQueue(capacity) for _ in range(queues)]
        self._wake = asyncio.Event()
        self._link_up: bool | None = None
        self._done = (0, 0, 0)
        self._done_changed = False
        self._finished = False
        self._error: Exception | None = None

    # What the engine calls

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames in order; return how many fitted."""
        taken = self._rings[0].push(frames) if len(self._rings) == 1 else self._spread(frames)
        self._wake.set()
        return taken

    def link_changed(self, up: bool) -> None:
        """Note the new state of the link."""
        self._link_up = up
        self._wake.set()

    def removed(self) -> None:
        """End the stream: its port is gone."""
        self.fail(
            Aborted(
                f"{self._port_name} was deleted while a stream was attached to it.",
                reason="PORT_DELETED",
                next_step="Create a port and attach to that.",
                port=self._port_name,
            )
        )

    def withdraw(self) -> list[bytes]:
        """Return what has not gone to the device yet, oldest first, and forget it."""
        return [frame for ring in self._rings for frame in ring.withdraw()]

    # What the stream's two tasks call

    def switched(self, frames: int, dropped: int) -> None:
        """Note that a batch of the device went through the switch, for a device that wants to know."""
        if not self._completions:
            return
        batches, all_frames, all_dropped = self._done
        self._done = (batches + 1, all_frames + frames, all_dropped + dropped)
        self._done_changed = True
        self._wake.set()

    def finish(self) -> None:
        """Note that the device will send no more: what is queued goes out, then `next` returns None."""
        self._finished = True
        self._wake.set()

    def fail(self, error: Exception) -> None:
        """Have `next` raise `error`. The first one counts."""
        self.closed = True
        self._error = self._error or error
        self._wake.set()

    async def next(self) -> Outgoing | None:
        """Wait for something to send; None once the device has finished and everything is sent."""
        while True:
            if self._error is not None:
                raise self._error
            if self._link_up is not None or self._done_changed or any(map(len, self._rings)):
                return self._take()
            if self._finished:
                return None
            self._wake.clear()
            await self._wake.wait()

    def _spread(self, frames: Sequence[bytes]) -> int:
        """Push each frame to the queue of its flow; a list gets the frames that did not fit at its tail."""
        taken: list[bytes] = []
        lost: list[bytes] = []
        for frame in frames:
            ring = self._rings[flow_hash(frame) % len(self._rings)]
            (taken if ring.push((frame,)) else lost).append(frame)
        if lost and isinstance(frames, list):
            frames[:] = taken + lost
        return len(taken)

    def _take(self) -> Outgoing:
        batches = []
        for queue, ring in enumerate(self._rings):
            if len(ring):
                frames, lost = ring.drain()
                batches.append((queue, frames, lost))
        outgoing = Outgoing(self._link_up, batches, self._done if self._done_changed else None)
        self._link_up = None
        self._done_changed = False
        return outgoing
