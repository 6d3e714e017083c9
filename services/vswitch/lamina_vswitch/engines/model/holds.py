"""The part of the `model` engine that holds ports while their devices move, and releases them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.port.hold import Hold
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.engines.model.egress import Egress
from lamina_vswitch.engines.model.policing import Policing


class HeldPorts(ABC):
    """Stands on the engine's ports, their sinks and their egress."""

    _egress: Egress
    _policing: Policing
    _sinks: dict[int, FrameSink]
    _switch_of: dict[int, Switch]

    @abstractmethod
    def drop(
        self,
        port: Port,
        reason: DropReason,
        frames: Sequence[bytes],
        now_ns: int,
        direction: Direction = Direction.EGRESS,
    ) -> None:
        """Count drops at a port, and tell of them."""

    @abstractmethod
    def put(self, port: Port, frames: list[bytes], now_ns: int, given: Sequence[bytes] = (), counted: int = 0) -> int:
        """Put frames into the queue of a device; return how many it took. They are what was made of those `given`, if
        any were; the first `counted` were in the queue before."""

    @abstractmethod
    def shifted(self, switch: Switch, now_ns: int) -> None:
        """Tell of teams that came to use other uplinks."""

    def quiesce(self, slot: int, hold_frames: int, now_ns: int) -> int:
        """Hold what is for the device of a port; return how many frames had been in its queue."""
        held = self._egress.quiesce(self._switch_of[slot].ports[slot], self._sinks.get(slot), hold_frames, now_ns)
        self._set_held(slot, True, now_ns)
        return held

    def hold(self, slot: int) -> Hold | None:
        """Return the hold of a port."""
        return self._egress.hold(slot)

    def give(self, slot: int, frames: Sequence[bytes], now_ns: int, withdrawn: int = 0) -> tuple[int, int]:
        """Deliver frames past a hold; return how many they became, and how many the device took."""
        port = self._switch_of[slot].ports[slot]
        before = self._egress.finished(port, list(frames[:withdrawn]))
        pieces = before + self._egress.finished(port, list(frames[withdrawn:]))
        return len(pieces), self.put(port, pieces, now_ns, frames, len(before))

    def release(self, slot: int, now_ns: int) -> int:
        """End a hold; what it still holds is dropped. Return how many frames that were."""
        hold = self._egress.hold(slot)
        left = 0
        while hold is not None and (frames := hold.take()):
            left += len(frames)
            self.drop(self._switch_of[slot].ports[slot], DropReason.DISCARDED, frames, now_ns)
        self._egress.unhold(slot)
        self._set_held(slot, False, now_ns)
        self._policing.went_down(self._switch_of[slot].ports[slot], now_ns)
        return left

    def _set_held(self, slot: int, held: bool, now_ns: int) -> None:
        switch = self._switch_of[slot]
        switch.set_held(slot, held, now_ns)
        self.shifted(switch, now_ns)
