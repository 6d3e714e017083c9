"""The log of refused transfers. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lamina_hardware.domain.devices.dma import DmaOutcome

KEPT = 4096


@dataclass(frozen=True, slots=True)
class DmaFault:
    """One refused transfer. `sequence` counts from 1; `domain` is a key, 0 for a device without one."""

    sequence: int
    time_ns: int
    device: str
    domain: int
    iova: int
    size: int
    write: bool
    outcome: DmaOutcome
    entry: int


class DmaFaultLog:
    """The last 4096 of them, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[DmaFault] = deque(maxlen=KEPT)
        self._sequence = 0

    @property
    def forgotten(self) -> int:
        """How many are no longer kept."""
        return self._sequence - len(self._kept)

    def next_sequence(self) -> int:
        """Returns the position of the next entry."""
        self._sequence += 1
        return self._sequence

    def add(self, fault: DmaFault) -> None:
        """Appends an entry."""
        self._kept.append(fault)

    def entries(self, device: str = "") -> list[DmaFault]:
        """Returns what is kept, of one device or of all."""
        return [fault for fault in self._kept if not device or fault.device == device]
