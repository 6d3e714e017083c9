"""A clock that stands still until it is told to go on: it gives everything ready many turns first."""

from __future__ import annotations

import asyncio
import heapq

START_WALL_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: what people are shown as the time of the start."""

TURNS = 200
"""Turns of the event loop that everything ready is given before time goes on."""


class SteppedClock:
    """Time in integer nanoseconds that only `advance` moves; sleepers wake in the order of their times."""

    mode = "stepped"

    def __init__(self, wall_ns: int = START_WALL_NS) -> None:
        self._now = 0
        self._wall = wall_ns
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = 0

    def now_ns(self) -> int:
        """Nanoseconds since the start."""
        return self._now

    def wall_ns(self) -> int:
        """Unix time in nanoseconds."""
        return self._wall + self._now

    async def sleep_ns(self, ns: int) -> None:
        """Returns when the clock was advanced by `ns`; at once, after other tasks ran, for 0 or less."""
        if ns <= 0:
            await asyncio.sleep(0)
            return
        self._sequence += 1
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + ns, self._sequence, waiter))
        await waiter

    async def advance(self, ns: int) -> None:
        """Moves time on by `ns`, stopping at each sleeper on the way and letting everything run there."""
        end = self._now + ns
        await self.idle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, waiter = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not waiter.done():
                waiter.set_result(None)
                await self.idle()
        self._now = end
        await self.idle()

    async def idle(self) -> None:
        """Lets everything that is ready run."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
