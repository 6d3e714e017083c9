"""What SIGTERM and SIGINT mean to the process of a stack: the first asks it to stop, further ones hasten it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol


class Cancellable(Protocol):
    """A call, or a task."""

    def cancel(self) -> bool:
        """Ends it."""


class StopSignal:
    """`told` is set by the first signal; `hasten` is called by each further one."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.hasten: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Takes the signals of this process; to be called within its event loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._take)

    async def cancels(self, call: Cancellable) -> None:
        """Cancels a call once `told` is set."""
        await self.told.wait()
        call.cancel()

    def _take(self) -> None:
        if self.told.is_set():
            self.hasten()
        self.told.set()
