"""What the way in and the way out use of the NIC that they belong to."""

from __future__ import annotations

from typing import Protocol

from lamina_hardware.domain.nic.counters import NicCounters
from lamina_hardware.domain.nic.ports import NicPorts
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import Settings


class Adapter(Protocol):
    """One NIC, as those see it that move its frames; `nic.py` has the whole."""

    settings: Settings
    ports: NicPorts
    counters: NicCounters
    rings: dict[int, Ring]

    @property
    def is_link_up(self) -> bool:
        """Whether frames pass."""

    def look(self, ring: Ring) -> bool:
        """Takes over how far the driver has filled a ring; returns whether that lies in it. If not, the ring stops."""

    def resume(self, ring: Ring) -> None:
        """Goes on sending from a ring, if it is still there."""

    def stop(self, ring: Ring, reason: str, detail: str = "") -> None:
        """Has a ring stand still until it is configured anew."""

    def notify(self, ring: Ring, frames: int) -> None:
        """Interrupts for what was done in a ring, now or when moderation allows it."""

    def hold_back(self, ring: Ring) -> None:
        """Sees to it that what coalescing holds back is delivered when moderation allows the next interrupt."""
