"""The port of a NAT network's outside in the uplink's switch: frames in steps, and the timer of its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_kit.clock import Clock
from lamina_vswitch.domain.nat.outside.station import OutsideStation, Sent
from lamina_vswitch.engines.interface import SwitchEngine
from lamina_vswitch.io.ports.tunnels import SteppedPort
from lamina_vswitch.io.wakeup import Wakeup


class OutsidePort:
    """A station at a port. `inside` takes the packets that the router has to send on, `lost` is for who loses it.

    `failed` is told of a defect of the station.
    """

    def __init__(
        self, engine: SwitchEngine, slot: int, clock: Clock, inside: Callable[[Sequence[bytes]], None],
        lost: Callable[[], None], failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self.port = SteppedPort(engine, slot, clock, self._receive, failed)
        self._inside, self.lost = inside, lost
        self._station: OutsideStation | None = None
        self._timer = Wakeup(clock, self._due_ns, self._ticked, failed)

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
        self._timer.stop()

    def _receive(self, frame: bytes, now_ns: int) -> None:
        if self._station is not None:
            self._take(self._station.receive(frame, now_ns))

    def _take(self, sent: Sent) -> None:
        self.port.send(sent.frames)
        if sent.packets:
            self._inside(sent.packets)
        self._timer.watch()

    def _due_ns(self) -> int | None:
        return None if self._station is None or self.port.closed else self._station.next_wakeup_ns

    def _ticked(self, now_ns: int) -> None:
        if self._station is not None:
            self._take(self._station.tick(now_ns))
