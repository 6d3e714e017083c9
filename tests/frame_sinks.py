"""Devices behind ports of a switch that only take frames."""

from __future__ import annotations

from collections.abc import Sequence


class Keeper:
    """A sink that keeps what it takes, up to `room` frames: those beyond are not taken."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.frames: list[bytes] = []

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Keep what fits."""
        taken = frames[: max(0, self.room - len(self.frames))]
        self.frames.extend(taken)
        return len(taken)

    def link_changed(self, up: bool) -> None:
        """Nothing hears of links."""

    def removed(self) -> None:
        """Nothing hears of the end of a port."""
