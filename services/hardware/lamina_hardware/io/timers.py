"""Deadlines on the stack's clock, for many small things at once: one task sleeps until the next."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from lamina_kit.clock import Clock


class _Deadline:
    """One thing that will happen, unless it is cancelled."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Makes it not happen. Idempotent."""
        self.callback = None


class Timers:
    """Calls back at given times, in the order of time, then of asking. `failed` is told what a callback raised."""

    def __init__(self, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._heap: list[tuple[int, int, _Deadline]] = []
        self._sequence = 0
        self._sleeper: asyncio.Task[None] | None = None
        self._until = 0

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        return self._clock.now_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> _Deadline:
        """Has `callback` called once it is `when_ns`, never from inside this call."""
        deadline = _Deadline(callback)
        self._sequence += 1
        heapq.heappush(self._heap, (when_ns, self._sequence, deadline))
        if self._sleeper is None or when_ns < self._until:
            self._sleep()
        return deadline

    def stop(self) -> None:
        """Forgets all deadlines. Idempotent."""
        self._heap.clear()
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
            due.append(heapq.heappop(self._heap)[2])
        for deadline in due:
            callback, deadline.callback = deadline.callback, None
            if callback is not None:
                self._call(callback)
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        if self._heap and self._sleeper is None:
            self._sleep()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._failed(error)
