"""The captures that run: each a stream of pieces of a pcapng file, until its reader goes or a limit is reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from lamina_kit.clock import Clock
from lamina_kit.errors import Aborted, LaminaError, ResourceExhausted, Unavailable
from lamina_vswitch.domain.capture.capture import Capture, Piece
from lamina_vswitch.domain.capture.hub import Hub
from lamina_vswitch.domain.capture.selection import MAX_CAPTURES, Selection
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.switches.catalog import Catalog


class Captures:
    """At most 64 captures. The data plane calls them by way of the hub and never waits for them."""

    def __init__(self, catalog: Catalog, clock: Clock, hub: Hub) -> None:
        self._catalog = catalog
        self._clock = clock
        self._hub = hub
        self._running: list[_Run] = []
        catalog.switch_gone.append(self._switch_gone)

    async def run(self, selection: Selection) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of a capture. Whoever iterates closes the generator."""
        run = self._begin(selection)
        timer = None
        if selection.duration_ns:
            timer = asyncio.get_running_loop().create_task(self._end_after(run, selection.duration_ns))
        try:
            async with aclosing(run.pieces(self._clock)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._running.remove(run)
            self._hub.close(run.capture)
            if timer is not None:
                timer.cancel()
                await asyncio.gather(timer, return_exceptions=True)

    def stop(self) -> None:
        """End all captures: the service stops."""
        for run in self._running:
            run.end(
                Unavailable(
                    "The vswitch service is stopping.",
                    reason="SERVICE_STOPPING",
                    next_step="Capture again once it is back; what came until now is a whole file.",
                )
            )

    def _begin(self, selection: Selection) -> _Run:
        if len(self._running) >= MAX_CAPTURES:
            raise ResourceExhausted(
                f"{MAX_CAPTURES} captures run already.",
                reason="CAPTURE_LIMIT",
                next_step="End a capture first.",
                limit=MAX_CAPTURES,
            )
        offset_ns = self._clock.wall_ns() - self._clock.now_ns() if self._clock.mode == "real" else 0
        run = _Run(selection, offset_ns)
        self._running.append(run)
        self._hub.open(run.capture)
        return run

    async def _end_after(self, run: _Run, duration_ns: int) -> None:
        await self._clock.sleep_ns(duration_ns)
        run.end(None)

    def _switch_gone(self, switch: SwitchDefinition) -> None:
        name = self._catalog.switch_name(switch.switch)
        for run in self._running:
            if run.capture.selection.switch == name:
                run.end(switch_deleted(name))


class _Run:
    """One capture and whether it has ended, with which error."""

    def __init__(self, selection: Selection, offset_ns: int) -> None:
        self._wake = asyncio.Event()
        self._ended = False
        self._error: LaminaError | None = None
        self.capture = Capture(selection, offset_ns, self._wake.set)

    def end(self, error: LaminaError | None) -> None:
        """Have the pieces end after what waits now; the first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake.set()

    async def pieces(self, clock: Clock) -> AsyncGenerator[Piece, None]:
        """Yield pieces as they come, the first at once, and at the end the statistics of every port."""
        while not (self._ended or self.capture.full):
            self._wake.clear()
            while (piece := self.capture.take(clock.now_ns())) is not None:
                yield piece
            if not (self._ended or self.capture.full):
                await self._wake.wait()
        self._ended = True
        self.capture.end(clock.now_ns())
        while (piece := self.capture.take(clock.now_ns())) is not None:
            yield piece
        if self._error is not None:
            raise self._error


def switch_deleted(name: str) -> Aborted:
    """Return the error of a stream about a switch that is gone."""
    return Aborted(
        f"{name} was deleted while a stream told of it.",
        reason="SWITCH_DELETED",
        next_step="Create the switch again, and call again.",
        switch=name,
    )
