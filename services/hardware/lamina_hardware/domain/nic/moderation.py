"""Interrupt moderation of one queue: not more often than its interval, unless enough frames have come.

Source: Intel 82599 datasheet 331520, chapter 7.3.2 (interrupt moderation).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Moderation:
    """When a queue interrupts. `interval_ns` 0: at once, for each batch; `frames` 0: only the interval counts."""

    interval_ns: int = 0
    frames: int = 0
    pending: int = 0
    """Frames since the last interrupt."""
    batches: int = 0
    """Batches since the last interrupt: all but one of them are interrupts that were saved."""
    last_ns: int = -(1 << 62)
    armed: bool = False
    """Whether a timer runs that will ask `due`."""

    def note(self, frames: int, now_ns: int) -> int | None:
        """Counts a batch; returns when to interrupt (`now_ns`: at once), or None when a timer will see to it."""
        self.pending += frames
        self.batches += 1
        earliest = self.last_ns + self.interval_ns
        if earliest <= now_ns or (self.frames and self.pending >= self.frames):
            return now_ns
        if self.armed:
            return None
        self.armed = True
        return earliest

    def due(self, now_ns: int) -> int | None:
        """Returns when to interrupt for what is pending as the timer has run out, or None when nothing is.

        That is later than `now_ns` when the number of frames made an interrupt meanwhile: the interval counts from it.
        """
        self.armed = False
        if not self.pending:
            return None
        earliest = max(now_ns, self.last_ns + self.interval_ns)
        self.armed = earliest > now_ns
        return earliest

    def fired(self, now_ns: int) -> int:
        """Notes an interrupt; returns how many interrupts moderation saved."""
        saved = max(0, self.batches - 1)
        self.pending = self.batches = 0
        self.last_ns = now_ns
        return saved
