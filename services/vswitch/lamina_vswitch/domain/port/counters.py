"""What went through a port, seen from the switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lamina_vswitch.domain.frames.drop_reasons import DropReason


@dataclass(slots=True)
class Counters:
    """Frames and bytes each way, flooded frames, drops by reason. All only grow."""

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    flooded_frames: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)

    def received(self, frames: Sequence[bytes]) -> None:
        """Count frames that came in from the port."""
        self.received_frames += len(frames)
        self.received_bytes += sum(map(len, frames))

    def sent(self, frames: Sequence[bytes]) -> None:
        """Count frames that were put in the port's queue."""
        self.sent_frames += len(frames)
        self.sent_bytes += sum(map(len, frames))

    def dropped(self, reason: DropReason, frames: int) -> None:
        """Count drops."""
        self.drops[reason] = self.drops.get(reason, 0) + frames

    def drops_by_reason(self) -> tuple[tuple[DropReason, int], ...]:
        """Return the drops, ordered by reason."""
        return tuple(sorted(self.drops.items()))
