"""The port of an uplink that drives a NIC: a sink while the NIC has a link, and what opens the NIC again.

Without a link the port has no carrier, as when a cable is pulled: what was learned behind it is forgotten, and teams
use other uplinks. A NIC that is gone, or hardware that does not answer, is tried again until the uplink is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_kit.errors import Internal, LaminaError
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.io.backends.backend import sorted_out
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.nic.driver import HardwareBelow, NicDriver, NicWish

PAUSES_NS = (200_000_000, 1_000_000_000, 5_000_000_000)
"""Pauses before a NIC is tried again; the last one stays."""

STEADY_NS = 10_000_000_000
"""How long a NIC has to work before its next failure is taken for a new one: it is told, and tried again soon."""

PATIENCE_NS = 5_000_000_000
"""How long hardware has to reset a NIC that is given back."""


class NicPort:
    """A `QueueingSink`. `plug` gives the port its carrier and takes it away; `failed` is told what went wrong."""

    def __init__(
        self,
        below: HardwareBelow,
        clock: Clock,
        wish: Callable[[], NicWish],
        plug: Callable[[NicPort, bool], None],
        failed: Callable[[LaminaError], None],
    ) -> None:
        self._below, self._clock = below, clock
        self._wish, self._plug, self._failed = wish, plug, failed
        self._driver: NicDriver | None = None
        self._task: asyncio.Task[None] | None = None
        self._end: PortEnd | None = None
        self._closing = False
        self._is_plugged = False
        self._last_failure = ""
        self.rate_bits_per_second = 0

    # What the engine calls

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Give frames to the NIC in order; return how many it or its queues took."""
        if self._driver is None:
            return 0
        taken, lost = self._driver.send(frames)
        return sorted_out(frames, taken, lost)

    def withdraw(self) -> list[bytes]:
        """Return what waits for room in the rings, oldest first, and forget it."""
        pairs = self._driver.pairs if self._driver is not None else []
        return [frame for pair in pairs for frame in pair.withdraw()]

    def link_changed(self, up: bool) -> None:
        """Have the NIC's link follow, so that the far end sees it."""
        self.settings_changed()

    def removed(self) -> None:
        """Take nothing more; who keeps the uplinks closes this."""
        if self._end is not None:
            self._end.close()

    # What who keeps the uplinks calls

    @property
    def driver(self) -> NicDriver | None:
        """The driver while it is open."""
        return self._driver

    async def open(self) -> None:
        """Take the NIC, for the first time. Raises what hardware answers."""
        self._driver = await NicDriver.open(self._below, self._wish(), self)

    def start(self, end: PortEnd) -> None:
        """Begin to bring frames to a port, and keep the NIC from now on."""
        self._end = end
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def settings_changed(self) -> None:
        """Have the NIC get what is wanted now."""
        if self._driver is not None:
            self._driver.want(self._wish())

    async def close(self) -> None:
        """Give the NIC back. Idempotent."""
        self.removed()
        self._closing = True
        task, self._task = self._task, None
        if task is not None and self._driver is not None:
            await self._driver.finish()
            timer = asyncio.get_running_loop().create_task(self._cut(task))
            await asyncio.gather(task, return_exceptions=True)
            timer.cancel()
        elif task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._drop()

    # What the driver calls

    def received(self, good: list[bytes], bad: list[bytes]) -> None:
        """Switch what came."""
        if self._end is not None:
            self._end.turn_away(DropReason.OVERSIZE, bad)
            self._end.transmit(good)

    def link(self, up: bool, rate_bits_per_second: int) -> None:
        """Give the port its carrier, or take it away."""
        self.rate_bits_per_second = rate_bits_per_second
        if up != self._is_plugged:
            self._is_plugged = up
            self._plug(self, up)

    def refused(self, error: LaminaError) -> None:
        """Tell what hardware refused."""
        self._failed(error)

    # Inside

    async def _keep(self) -> None:
        attempt, steady_ns = 0, 0
        failure: LaminaError
        while not self._closing:
            try:
                if self._driver is None:
                    self._driver = await NicDriver.open(self._below, self._wish(), self)
                steady_ns = self._clock.now_ns() + STEADY_NS
                await self._driver.serve()
            except LaminaError as error:
                failure = error
            except Exception as error:  # it costs the NIC its stream, and not the uplink
                failure = Internal(f"A defect ended the driver: {error!r}.", reason="DEFECT", next_step="Report it.")
            if self._driver is not None and self._clock.now_ns() >= steady_ns:
                self._last_failure, attempt = "", 0
            self._tell(failure)
            await self._drop()
            if self._closing:
                return
            await self._clock.sleep_ns(PAUSES_NS[min(attempt, len(PAUSES_NS) - 1)])
            attempt += 1

    async def _cut(self, task: asyncio.Task[None]) -> None:
        """Wait no longer for hardware that does not answer."""
        await self._clock.sleep_ns(PATIENCE_NS)
        task.cancel()

    async def _drop(self) -> None:
        self.link(False, 0)
        if self._end is not None:
            self._end.lost(self.withdraw())
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    def _tell(self, error: LaminaError) -> None:
        """Tell a failure once, however often it repeats."""
        if error.reason != self._last_failure and not self._closing:
            self._last_failure = error.reason
            self._failed(error)
