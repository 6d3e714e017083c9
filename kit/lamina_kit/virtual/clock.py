"""The kit's `Clock` on a virtual loop."""

from __future__ import annotations

import asyncio

from lamina_kit.virtual.loop import VirtualLoop

WALL_EPOCH_NS = 1_767_225_600 * 10**9
"""What `VirtualClock.wall_ns` counts from: 2026-01-01T00:00:00Z, in every run."""


class VirtualClock:
    """The kit's `Clock` on a virtual loop. `wall_ns` counts from 2026-01-01, the same in every run."""

    def __init__(self, loop: VirtualLoop, wall_epoch_ns: int = WALL_EPOCH_NS, mode: str = "virtual") -> None:
        self.mode = mode
        self.loop = loop
        self._epoch = wall_epoch_ns

    def now_ns(self) -> int:
        """Returns nanoseconds since the loop's start."""
        return self.loop.now_ns

    def wall_ns(self) -> int:
        """Returns Unix time in nanoseconds."""
        return self._epoch + self.loop.now_ns

    async def sleep_ns(self, ns: int) -> None:
        """Returns when `ns` have passed, to the nanosecond; 0 or less lets other tasks run once."""
        if ns <= 0:
            await asyncio.sleep(0)
            return
        loop = self.loop
        woken = loop.create_future()
        timer = loop.call_at_ns(loop.now_ns + ns, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
