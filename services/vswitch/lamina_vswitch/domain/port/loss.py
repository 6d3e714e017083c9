"""Frames that get lost on a bad cable: a share of them, chosen by a seed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.rng import Rng

MILLION = 1_000_000


class Loss:
    """The loss at one port, in either direction. `ppm` is the share in parts per million, 0 to 1000000."""

    def __init__(self, ppm: int, rng: Rng) -> None:
        self.ppm = ppm
        self._rng = rng

    def split(self, frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return (frames that pass, frames that are lost), both in their order."""
        passing: list[bytes] = []
        lost: list[bytes] = []
        for frame in frames:
            (lost if self._rng.randrange(MILLION) < self.ppm else passing).append(frame)
        return passing, lost
