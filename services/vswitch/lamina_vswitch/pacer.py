"""What turns a clock into calls of the engine: it sleeps until the time that the engine named, if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lamina_kit.clock import Clock


class Pacer:
    """Calls `advance` with the time once the time that was asked for last has come. Used in a running event loop.

    `failed` is told of what `advance` raises, which is a defect: the switches go on, whatever one of their tasks does.
    """

    def __init__(self, clock: Clock, advance: Callable[[int], None], failed: Callable[[Exception], None]) -> None:
        self._clock = clock
        self._advance = advance
        self._failed = failed
        self._sleep: asyncio.Task[None] | None = None

    def wake_at(self, at_ns: int | None) -> None:
        """Call `advance` at this time, and not at the one that was asked for before; None: not at all."""
        self.stop()
        if at_ns is not None:
            self._sleep = asyncio.get_running_loop().create_task(self._wait(at_ns))

    def stop(self) -> None:
        """Call nothing any more until asked again. Idempotent."""
        sleep, self._sleep = self._sleep, None
        if sleep is not None:
            sleep.cancel()

    async def _wait(self, at_ns: int) -> None:
        await self._clock.sleep_ns(at_ns - self._clock.now_ns())
        self._sleep = None  # so that what `advance` asks for does not cancel this very call
        try:
            self._advance(self._clock.now_ns())
        except Exception as error:
            self._failed(error)
