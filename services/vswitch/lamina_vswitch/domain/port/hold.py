"""Frames that wait at a held port while the device behind it moves to another host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from lamina_vswitch.domain.port.queue import MAX_BATCH_BYTES, MAX_BATCH_FRAMES

HOLD_FRAMES = (1, 1 << 16)
DEFAULT_HOLD_FRAMES = 4096


class Hold:
    """At most `limit` frames, oldest first. It lasts until somebody ends it.

    `withdrawn` is how many of the oldest frames had been in the device's queue already, and so are counted as sent.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.withdrawn = 0
        self.size_bytes = 0
        self.ended = False
        self._frames: deque[bytes] = deque()
        self._listeners: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frames: Sequence[bytes], room_bytes: int) -> int:
        """Hold as many frames as fit, the first ones, in at most `room_bytes`. Return how many that were."""
        taken = 0
        for frame in frames[: self.limit - len(self._frames)]:
            if len(frame) > room_bytes:
                break
            room_bytes -= len(frame)
            self.size_bytes += len(frame)
            self._frames.append(frame)
            taken += 1
        if taken:
            self._tell()
        return taken

    def take(self, most_frames: int = MAX_BATCH_FRAMES, most_bytes: int = MAX_BATCH_BYTES) -> list[bytes]:
        """Return the oldest frames, and hold them no longer; one frame may be longer than `most_bytes`."""
        batch: list[bytes] = []
        size = 0
        while self._frames and len(batch) < most_frames and (not batch or size + len(self._frames[0]) <= most_bytes):
            frame = self._frames.popleft()
            size += len(frame)
            batch.append(frame)
        self.size_bytes -= size
        self.withdrawn = max(self.withdrawn - len(batch), 0)
        return batch

    def end(self) -> None:
        """End the hold: nobody waits for its frames any more."""
        self.ended = True
        self._tell()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when frames came or the hold ended; return what stops that."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def _tell(self) -> None:
        for changed in tuple(self._listeners):
            changed()
