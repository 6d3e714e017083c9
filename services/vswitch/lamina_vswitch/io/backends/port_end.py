"""A backend's end at its port: what it may do in the switch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.engines.interface import SwitchEngine

if TYPE_CHECKING:
    from lamina_vswitch.plane.bursts import Burst
    from lamina_vswitch.plane.kernel_ports import Wire
    from lamina_vswitch.plane.switching import Plane


class PortEnd:
    """One port, for the backend that is plugged into it. Nothing happens once it is closed."""

    def __init__(
        self, engine: SwitchEngine, slot: int, mtu_bytes: Callable[[], int], now_ns: Callable[[], int]
    ) -> None:
        self.mtu_bytes = mtu_bytes
        self.now_ns = now_ns
        self._engine = engine
        self.slot = slot
        self._open = True

    def transmit(self, frames: Sequence[bytes]) -> None:
        """Switch what came from the outside; what is wrong with it is counted at the port."""
        if self._open and frames:
            good, bad = admitted(frames, self.mtu_bytes())
            self.turn_away(DropReason.OFFLOAD_INVALID, bad)
            self._engine.transmit(self.slot, good, self.now_ns())

    def connect(self, plane: Plane, wire: Wire) -> None:
        """Let the plane send by a wire what leaves by the port."""
        plane.connect(self.slot, wire)

    def disconnect(self, plane: Plane, wire: Wire) -> None:
        """Take the wire away."""
        plane.disconnect(self.slot, wire)

    def switch(self, plane: Plane, burst: Burst) -> None:
        """Switch a burst that came from the outside, by the plane."""
        if self._open and len(burst):
            plane.transmit(self.slot, burst, self.now_ns())

    def turn_away(self, reason: DropReason, frames: Sequence[bytes]) -> None:
        """Count frames from the outside that are none."""
        if self._open:
            self._engine.turned_away(self.slot, reason, frames, self.now_ns())

    def lost(self, frames: Sequence[bytes]) -> None:
        """Count frames to the outside that had been taken, and could not go after all."""
        if self._open and frames:
            self._engine.refused(self.slot, DropReason.QUEUE_FULL, frames, self.now_ns())

    def close(self) -> None:
        """Cut the backend off. Idempotent."""
        self._open = False
