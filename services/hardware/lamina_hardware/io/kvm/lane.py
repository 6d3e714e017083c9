"""What a vCPU knows of the compiled round that may run it: `fast_round.py` makes one."""

from __future__ import annotations

from typing import Protocol

from lamina_hardware.engines.interface import CoreRun


class FastLane(Protocol):
    """What runs a vCPU in one call while it is armed, and needs to be told when that no longer holds."""

    @property
    def turns(self) -> int:
        """How many runs it had."""

    def serves(self, work: CoreRun) -> bool:
        """Whether it is for the second stage, the run page and the controls that a context has now."""

    def arm(self, work: CoreRun) -> None:
        """Lets the next run be one call."""

    def disarm(self) -> None:
        """Has the next run look at everything."""
