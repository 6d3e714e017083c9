"""The calls that run on a server, and how they end when it stops.

    calls = InFlight()
    with calls.held(lasting=True): …            # around every handler
    await calls.drain(refusal, 2.0)             # new calls are refused; those with one response may end by themselves
    await calls.close(refusal)                  # those that still run, every stream among them, end with the refusal

A stream has no end of its own to wait for: its caller is told UNAVAILABLE, the reason and what to do, where gRPC alone
would break the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lamina_kit.errors import LaminaError, Unavailable
from lamina_kit.telemetry import log

CLEANUP_S = 5.0
"""How long a cancelled handler may clean up before `close` goes on without it."""

Refusal = Callable[[], LaminaError]
"""Makes the error of a call that is not served, a new one for each."""


def shutting_down(layer: str) -> LaminaError:
    """Returns what callers of a layer are told that stops in order."""
    return Unavailable(
        f"The {layer} layer is shutting down.",
        reason="SHUTTING_DOWN",
        next_step="Try again when it serves; `lamina status` shows it.",
        layer=layer,
    )


class InFlight:
    """The calls that run on one server. `refusal` is None while calls are taken."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.refusal = refusal
        self._active: dict[asyncio.Task[object], bool] = {}  # of each call, whether it may last for ever
        self._over = asyncio.Event()
        self._log = log.logger("calls")

    def count(self, *, lasting: bool) -> int:
        """Returns how many calls run: streams of responses, or calls with one."""
        return sum(kind is lasting for kind in self._active.values())

    @contextmanager
    def held(self, lasting: bool) -> Iterator[None]:
        """Counts the calling task's call as running, and turns what `close` does to it into the refusal.

        Raises the refusal at once when no calls are taken.
        """
        if self.refusal is not None:
            raise self.refusal()
        task = asyncio.current_task()
        assert task is not None
        self._active[task] = lasting
        try:
            yield
        except asyncio.CancelledError:
            if self.refusal is None or not task.cancelling():
                raise
            task.uncancel()
            raise self.refusal() from None
        finally:
            self._active.pop(task, None)
            if not lasting and not self.count(lasting=False):
                self._over.set()

    async def drain(self, refusal: Refusal, limit_s: float) -> None:
        """Refuses new calls, and lets those with one response end by themselves for up to `limit_s` seconds."""
        self.refusal = refusal
        if not self.count(lasting=False):
            return
        self._over.clear()
        with contextlib.suppress(TimeoutError):  # what is left then is told below, as when somebody hastens
            async with asyncio.timeout(limit_s):
                await self._over.wait()
        if left := self.count(lasting=False):
            self._log.warning("calls.cut", count=left)

    def hasten(self) -> None:
        """Ends a `drain` that waits."""
        self._over.set()

    async def close(self, refusal: Refusal) -> None:
        """Ends the calls that run with `refusal`, and refuses those that come so. Returns when they have ended."""
        self.refusal = refusal
        ending = list(self._active)
        for task in ending:
            task.cancel()
        try:
            async with asyncio.timeout(CLEANUP_S):
                await asyncio.gather(*ending, return_exceptions=True)
        except TimeoutError:
            self._log.error("calls.do_not_end", count=sum(not task.done() for task in ending))
