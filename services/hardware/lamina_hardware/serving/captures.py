"""Captures of wires: what a reader has not fetched yet, and the stream that hands it over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from lamina.hardware.v1 import wires_pb2 as pb

from lamina_hardware.devices.wires import HostWires, Line

CAPTURE_FRAMES = 4096
CAPTURE_BYTES = 2 << 20


@dataclass(slots=True)
class Captured:
    """Frames for one reader: columns of the same length."""

    frames: list[bytes] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    missed: int = 0


class CaptureQueue:
    """What one reader has not fetched yet: at most 4096 frames and 2 MiB; the wire waits for nobody."""

    def __init__(self, snap_bytes: int, notify: Callable[[], None]) -> None:
        self._snap = snap_bytes or 65535
        self._notify = notify
        self._queue: deque[tuple[bytes, int, int]] = deque()
        self._bytes = 0
        self._missed = 0

    def take(self, frames: Sequence[bytes], now_ns: int) -> None:
        """Takes frames in, as far as they fit."""
        for frame in frames:
            cut = frame[: self._snap]
            if len(self._queue) >= CAPTURE_FRAMES or self._bytes + len(cut) > CAPTURE_BYTES:
                self._missed += 1
                continue
            self._queue.append((cut, now_ns, len(frame)))
            self._bytes += len(cut)
        self._notify()

    def fetch(self) -> Captured | None:
        """Returns all that waits, or None."""
        if not self._queue and not self._missed:
            return None
        batch = Captured(missed=self._missed)
        for frame, when, length in self._queue:
            batch.frames.append(frame)
            batch.times_ns.append(when)
            batch.lengths.append(length)
        self._queue.clear()
        self._bytes = self._missed = 0
        return batch


async def capture(wires: HostWires, line: Line, snap_bytes: int) -> AsyncIterator[pb.WireFrames]:
    """Yields the frames that pass on a wire, in batches, until the wire or the reader goes."""
    news = asyncio.Event()
    queue = CaptureQueue(snap_bytes, news.set)
    line.wire.captures.append(queue.take)
    line.ended.append(news.set)
    try:
        while True:
            await news.wait()
            news.clear()
            while (batch := queue.fetch()) is not None:
                yield pb.WireFrames(
                    frames=batch.frames, times_ns=batch.times_ns, lengths=batch.lengths, missed=batch.missed
                )
            if wires.find(line.wire.name) is not line:
                return
    finally:
        line.wire.captures.remove(queue.take)
        line.ended.remove(news.set)
