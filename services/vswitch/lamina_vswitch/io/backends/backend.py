"""What every backend is: a sink at a port, held by the switch's own process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lamina_vswitch.domain.backend.definition import BackendState
from lamina_vswitch.domain.offload.features import Takes


class Backend(Protocol):
    """A `QueueingSink` that was opened by its making, and begins to bring frames with `start`."""

    @property
    def state(self) -> BackendState:
        """What it is doing."""

    @property
    def detail(self) -> str:
        """Why it is in that state, empty when there is nothing to say."""

    takes: Takes | None
    """What it takes unfinished; None: it neither takes nor brings anything but complete frames."""

    def start(self) -> None:
        """Begin to bring frames; the port has it as its sink now."""

    def close(self) -> None:
        """Close it; what waits is dropped. Idempotent."""

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames in order; return how many were taken, those that were not at the tail of a list."""

    def withdraw(self) -> list[bytes]:
        """Return what waits, oldest first, and forget it."""

    def link_changed(self, up: bool) -> None:
        """Learn that the port's link was switched."""

    def removed(self) -> None:
        """Learn that the port is gone; who keeps the backends closes it."""


def sorted_out(frames: Sequence[bytes], taken: list[bytes], lost: list[bytes]) -> int:
    """Bring a list of frames into the order that `FrameSink.deliver` promises; return how many were taken."""
    if lost and isinstance(frames, list):
        frames[:] = taken + lost
    return len(taken)
