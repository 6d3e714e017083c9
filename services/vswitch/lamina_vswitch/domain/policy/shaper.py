"""Shaping: frames that wait until their bits may travel. When each one leaves is computed, not polled.

A frame leaves once three things are true: it is there, the bucket of the average rate has a token for each of its
bits, and the frame before it has been sent at the peak rate. A frame larger than the bucket leaves from a full one,
which then owes the rest. Since times follow from arrivals alone, it does not matter when somebody looks: late looks
find more frames that have left, at the same times.
"""

from __future__ import annotations

from collections import deque

from lamina_vswitch.domain.definitions.switches import DEFAULT_QUEUE_FRAMES
from lamina_vswitch.domain.policy.bucket import TokenBucket
from lamina_vswitch.domain.policy.settings import Shaping

QUEUE_FRAMES = DEFAULT_QUEUE_FRAMES
"""Most frames that wait at one port for one direction."""


class Shaper:
    """The queue of one port in one direction. Times that are passed never go back."""

    def __init__(self, shaping: Shaping, now_ns: int) -> None:
        self.shaping = shaping
        self._tokens = TokenBucket(shaping.average, shaping.bucket_bytes * 8, now_ns)
        self._line = TokenBucket.link(shaping.peak, now_ns) if shaping.peak else None
        self._queue: deque[tuple[bytes, int]] = deque()
        self._left_ns = now_ns
        self._due_ns = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def due_ns(self) -> int | None:
        """When the next frame leaves; None when none waits."""
        return self._due_ns if self._queue else None

    def change(self, shaping: Shaping, now_ns: int) -> None:
        """Go on with other rates; what waits goes on waiting by them."""
        self.shaping = shaping
        self._tokens.resize(shaping.average, shaping.bucket_bytes * 8, now_ns)
        self._line = TokenBucket.link(shaping.peak, now_ns) if shaping.peak else None
        self._left_ns = max(self._left_ns, now_ns)
        self._plan()

    def has_room(self, now_ns: int) -> bool:
        """Tell whether a frame that comes now may wait, or leave at once."""
        return len(self._queue) < QUEUE_FRAMES or self._due_ns <= now_ns

    def push(self, frame: bytes, now_ns: int) -> None:
        """Let a frame wait. There is room: see `has_room`, and release what has left before."""
        self._queue.append((frame, now_ns))
        if len(self._queue) == 1:
            self._plan()

    def release(self, now_ns: int) -> list[bytes]:
        """Return the frames that have left by now, in order."""
        left = []
        while self._queue and self._due_ns <= now_ns:
            frame, _ = self._queue.popleft()
            self._tokens.spend(len(frame) * 8, self._due_ns)
            if self._line is not None:
                self._line.spend(len(frame) * 8, self._due_ns)
            self._left_ns = self._due_ns
            left.append(frame)
            self._plan()
        return left

    def wait_ns(self, frame: bytes, now_ns: int) -> int | None:
        """Return for how long a frame that comes now would wait; None behind others, whose times come first."""
        if self._queue:
            return None
        return self._leaves_ns(frame, now_ns) - now_ns

    def clear(self) -> list[bytes]:
        """Return everything that waits; nothing does any more."""
        waiting = [frame for frame, _ in self._queue]
        self._queue.clear()
        return waiting

    def _plan(self) -> None:
        if self._queue:
            self._due_ns = self._leaves_ns(*self._queue[0])

    def _leaves_ns(self, frame: bytes, came_ns: int) -> int:
        at_ns = self._tokens.ready_ns(len(frame) * 8, max(came_ns, self._left_ns))
        return at_ns if self._line is None else self._line.ready_ns(0, at_ns)
