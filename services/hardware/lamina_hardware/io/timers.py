"""Deadlines on the stack's clock, for many small things at once: one task sleeps until the next."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from lamina_kit.clock import Clock

_LEAST_IDLE = 64
"""Cancelled deadlines that are not worth a new heap."""


def _nothing() -> None:
    """Does nothing."""


class _Deadline:
    """One thing that will happen, unless it is cancelled."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None], cancelled: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback
        self.cancelled = cancelled

    def cancel(self) -> None:
        """Makes it not happen. Idempotent."""
        if self.callback is not None:
            self.callback = None
            self.cancelled()


class Timers:
    """Calls back at given times, in the order of time, then of asking. `failed` is told what a callback raised."""

    def __init__(self, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._heap: list[tuple[int, int, _Deadline]] = []
        self._sequence = 0
        self._idle = 0
        self._sleeper: asyncio.Task[None] | None = None
        self._until = 0

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        return self._clock.now_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> _Deadline:
        """Has `callback` called once it is `when_ns`, never from inside this call."""
        deadline = _Deadline(callback, self._note_cancelled)
        self._sequence += 1
        heapq.heappush(self._heap, (when_ns, self._sequence, deadline))
        if self._sleeper is None or when_ns < self._until:
            self._sleep()
        return deadline

    def stop(self) -> None:
        """Forgets all deadlines. Idempotent."""
        self._heap.clear()
        self._idle = 0
        if self._sleeper is not None:
            self._sleeper.cancel()
            self._sleeper = None

    def _sleep(self) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._until = self._heap[0][0]
        self._sleeper = asyncio.get_running_loop().create_task(self._wake(self._until))

    async def _wake(self, when: int) -> None:
        await self._clock.sleep_ns(max(0, when - self._clock.now_ns()))
        self._sleeper = None
        now = self._clock.now_ns()
        due: list[_Deadline] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(self._pop())
        for deadline in due:
            callback, deadline.callback = deadline.callback, None
            if callback is not None:
                self._call(callback)
        while self._heap and self._heap[0][2].callback is None:
            self._pop()
        if self._heap and self._sleeper is None:
            self._sleep()

    def _pop(self) -> _Deadline:
        """Takes the first deadline off the heap; whoever cancels it from now on changes nothing there."""
        deadline = heapq.heappop(self._heap)[2]
        self._idle -= deadline.callback is None
        deadline.cancelled = _nothing
        return deadline

    def _note_cancelled(self) -> None:
        """Rebuilds the heap once more than half of it was cancelled: a device that resets often leaves nothing."""
        self._idle += 1
        if self._idle > max(_LEAST_IDLE, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._idle = 0

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._failed(error)
