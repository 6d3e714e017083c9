"""The bounded queue between a switch and whoever is behind a port."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

MAX_BATCH_FRAMES = 4096
MAX_BATCH_BYTES = 4 << 20
"""Most bytes drained at once: half of the largest message, so that the rest of a message always fits. One frame may be
longer than its share, but never longer than a message."""


class FrameQueue:
    """Frames in order, at most `capacity`. What does not fit is refused at the tail, and counted."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._frames: deque[bytes] = deque()
        self._refused = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frames: Sequence[bytes]) -> int:
        """Append as many frames as fit, the first ones. Return how many that were."""
        room = self.capacity - len(self._frames)
        if len(frames) <= room:
            self._frames.extend(frames)
            return len(frames)
        self._frames.extend(frames[:room])
        self._refused += len(frames) - room
        return room

    def withdraw(self) -> list[bytes]:
        """Take everything."""
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def drain(self) -> tuple[list[bytes], int]:
        """Take the next batch: at most 4096 frames and 4 MiB, and how many were refused since the last batch."""
        refused, self._refused = self._refused, 0
        if len(self._frames) <= MAX_BATCH_FRAMES and sum(map(len, self._frames)) <= MAX_BATCH_BYTES:
            return self.withdraw(), refused
        batch: list[bytes] = []
        size = 0
        while self._frames and len(batch) < MAX_BATCH_FRAMES and size + len(self._frames[0]) <= MAX_BATCH_BYTES:
            frame = self._frames.popleft()
            size += len(frame)
            batch.append(frame)
        return batch, refused
