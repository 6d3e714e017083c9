"""The one observer of the data plane: hands what passes to the captures and mirrors that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_vswitch.domain.capture.capture import Capture
from lamina_vswitch.domain.capture.mirror import Tap
from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.switch.topology import Port


class Hub:
    """An `Observer`. Captures see copies of mirrors leave at their destination; mirrors do not copy them again.

    `copy` sends copies out of the port in a slot and returns how many; `attended` is called when somebody begins or
    ceases to watch, with whether anybody does.
    """

    def __init__(self, copy: Callable[[int, Sequence[bytes], int], int], attended: Callable[[Hub, bool], None]) -> None:
        self.captures: list[Capture] = []
        self._taps: list[Tap] = []
        self._copy = copy
        self._attended = attended

    def wants(self, port: Port) -> bool:
        """Tell whether a capture or a mirror looks at a port."""
        if any(capture.selection.looks_at(port.name) for capture in self.captures):
            return True
        return any(tap.looks_at(port) for tap in self._taps)

    def missed(self, port: Port, direction: Direction, count: int, now_ns: int) -> None:
        """Count frames that captures did not get to see."""
        for capture in self.captures:
            capture.miss(port.name, direction, count, now_ns)

    def passed(self, port: Port, direction: Direction, frames: Sequence[bytes], now_ns: int) -> None:
        """Hand on frames that passed."""
        for capture in self.captures:
            capture.see(port.name, direction, frames, now_ns)
        for tap in self._taps:
            self._mirror(tap, port, direction, frames, now_ns)

    def dropped(
        self, port: Port, direction: Direction, reason: DropReason, frames: Sequence[bytes], now_ns: int
    ) -> None:
        """Hand on frames that were dropped."""
        for capture in self.captures:
            capture.see(port.name, direction, frames, now_ns, reason)
        for tap in self._taps:
            if tap.definition.drops:
                self._mirror(tap, port, direction, frames, now_ns)

    def open(self, capture: Capture) -> None:
        """Let a capture see frames from now on."""
        self.captures.append(capture)
        self._attended(self, True)

    def close(self, capture: Capture) -> None:
        """Let a capture see no more. Idempotent."""
        if capture in self.captures:
            self.captures.remove(capture)
            self._attended(self, self._is_attended())

    def set_taps(self, taps: Sequence[Tap]) -> None:
        """Replace the mirrors, in the order in which they copy."""
        self._taps = list(taps)
        self._attended(self, self._is_attended())

    def _is_attended(self) -> bool:
        return bool(self.captures or self._taps)

    def _mirror(self, tap: Tap, port: Port, direction: Direction, frames: Sequence[bytes], now_ns: int) -> None:
        copies = tap.copies(port, direction, frames)
        if copies:
            tap.copied += self._copy(tap.to, copies, now_ns)
