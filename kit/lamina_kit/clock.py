"""The clock port. `Clock` is what everything below the shell sees of time.

Times are integer nanoseconds since the stack's start. Wall time exists for people only: it is shown, never compared.
`docs/adr/0005-time.md` says how time flows through the stack.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time of the stack and waits for it."""

    @property
    def mode(self) -> str:
        """`real`, `scaled`, `stepped` or `virtual`: what moves this clock."""

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start; never goes back."""

    def wall_ns(self) -> int:
        """Returns Unix time in nanoseconds, for people: log lines, `creationTimestamp`, certificates."""

    async def sleep_ns(self, ns: int) -> None:
        """Returns once `ns` have passed, never earlier; 0 or less lets other tasks run once."""


class RealClock:
    """The machine's monotonic clock, counted from when this object was made; `now_ns` is what it shows then.

    `wall_ns` is the wall time at the start plus the monotonic time since: setting the machine's clock moves nothing.
    """

    mode = "real"

    def __init__(self, now_ns: int = 0) -> None:
        self._start = time.monotonic_ns() - now_ns
        self._wall_start = time.time_ns() - now_ns

    def now_ns(self) -> int:
        """Returns nanoseconds since the stack's start."""
        return time.monotonic_ns() - self._start

    def wall_ns(self) -> int:
        """Returns Unix time in nanoseconds."""
        return self._wall_start + self.now_ns()

    async def sleep_ns(self, ns: int) -> None:
        """Returns once `ns` have passed on this clock; loops rounded a little short are made up for."""
        end = self.now_ns() + ns
        await asyncio.sleep(max(ns, 0) / 1e9)
        while (left := end - self.now_ns()) > 0:  # noqa: ASYNC110 (what it waits for is time itself)
            await asyncio.sleep(left / 1e9)
