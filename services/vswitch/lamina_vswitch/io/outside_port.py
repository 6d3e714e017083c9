"""The port of a NAT network's outside in the uplink's switch: frames in steps, and the timer of its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_vswitch.domain.nat.outside import OutsideStation, Sent
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.io.tunnel_ports import SteppedPort


class OutsidePort:
    """A station at a port. `inside` takes the packets that the router has to send on, `lost` is for who loses it."""

    def __init__(
        self, engine: SwitchEngine, slot: int, clock: Clock, inside: Callable[[Sequence[bytes]], None],
        lost: Callable[[], None],
    ) -> None:  # fmt: skip
        self.port = SteppedPort(engine, slot, clock, self._receive)
        self._clock, self._inside, self.lost = clock, inside, lost
        self._station: OutsideStation | None = None
        self._timer: asyncio.Task[None] | None = None
        self._due_ns = 0

    def join(self, station: OutsideStation) -> None:
        """Let a station send and receive here."""
        self._station = station

    def send(self, packets: Sequence[bytes], now_ns: int) -> None:
        """Send translated packets."""
        if self._station is not None and not self.port.closed:
            self._take(self._station.send(packets, now_ns))

    def close(self) -> None:
        """End. Idempotent."""
        self.port.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _receive(self, frame: bytes, now_ns: int) -> None:
        if self._station is not None:
            self._take(self._station.receive(frame, now_ns))

    def _take(self, sent: Sent) -> None:
        self.port.send(sent.frames)
        if sent.packets:
            self._inside(sent.packets)
        due_ns = self._station.next_wakeup_ns if self._station is not None else None
        if due_ns is None or self.port.closed or (self._timer is not None and self._due_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        self._timer = asyncio.get_running_loop().create_task(self._wait(due_ns))

    async def _wait(self, due_ns: int) -> None:
        await self._clock.sleep_ns(due_ns - self._clock.now_ns())
        self._timer = None
        if self._station is not None:
            self._take(self._station.tick(self._clock.now_ns()))
