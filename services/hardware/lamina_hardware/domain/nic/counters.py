"""What a NIC counts since it was made."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_hardware.domain.nic.settings import Drop


@dataclass(slots=True)
class NicCounters:
    """Counters of one NIC. `drops` is of received frames, by reason."""

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    drops: dict[Drop, int] = field(default_factory=dict)
    segmented_sends: int = 0
    coalesced_frames: int = 0
    interrupts: int = 0
    moderated_interrupts: int = 0
    descriptor_reads: int = 0
    descriptor_writes: int = 0

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Counts dropped frames."""
        self.drops[reason] = self.drops.get(reason, 0) + count
