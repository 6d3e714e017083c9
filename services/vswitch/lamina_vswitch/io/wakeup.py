"""The timer of something in this process that has times of its own, but no clock: a router, a tunnel, a translator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lamina_kit.clock import Clock

PAUSE_NS = 1_000_000_000
"""Time between a call that failed and the next one."""


class Wakeup:
    """Calls `tick` with the time once the one that `due` names has come. Used in a running event loop.

    `failed` is told of what `tick` raises, which is a defect or a disk that refuses: the timer goes on, after a pause.
    """

    def __init__(
        self,
        clock: Clock,
        due: Callable[[], int | None],
        tick: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._due = due
        self._tick = tick
        self._failed = failed
        self._sleep: asyncio.Task[None] | None = None
        self._due_ns = 0
        self._not_before_ns = 0

    def watch(self) -> None:
        """Wait for the time that is due now, if there is one and no earlier one is waited for."""
        due_ns = self._due()
        if due_ns is None or (self._sleep is not None and self._due_ns <= due_ns):
            return
        self.stop()
        self._due_ns = max(due_ns, self._not_before_ns)
        self._sleep = asyncio.get_running_loop().create_task(self._wait(self._due_ns))

    def stop(self) -> None:
        """Call nothing until asked again. Idempotent."""
        sleep, self._sleep = self._sleep, None
        if sleep is not None:
            sleep.cancel()

    async def _wait(self, due_ns: int) -> None:
        await self._clock.sleep_ns(due_ns - self._clock.now_ns())
        self._sleep = None  # so that what `tick` asks for does not cancel this very call
        try:
            self._tick(self._clock.now_ns())
        except Exception as error:
            self._not_before_ns = self._clock.now_ns() + PAUSE_NS
            self._failed(error)
            self.watch()


def raised(error: Exception) -> None:
    """Raise an error that nobody else wants to be told of."""
    raise error
