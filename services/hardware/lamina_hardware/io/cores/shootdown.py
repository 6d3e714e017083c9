"""What cores must forget before their next instruction: translations, and code translated from frames written since.

It is kept here and handed to a core between two slices. ADR 0001 and 0004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lamina_hardware.engines.interface import CoreEngine
from lamina_kit.bus.memory import ALL, MemoryBus


@dataclass(slots=True)
class _Pending:
    """What one core must do before its next instruction."""

    flush: bool = False
    drop: set[int] | None = field(default_factory=set)  # None: all


class Shootdowns:
    """What the cores of one host have yet to forget."""

    def __init__(self, cores: Sequence[CoreEngine], bus: MemoryBus) -> None:
        self._cores = cores
        self._bus = bus
        self._pending = [_Pending() for _ in cores]

    def flush(self, core: int) -> None:
        """Has a core empty its TLB."""
        self._pending[core].flush = True

    def flushes(self, core: int) -> bool:
        """Whether a core is to empty its TLB."""
        return self._pending[core].flush

    def has_code(self, core: int) -> bool:
        """Whether a core is to drop translated code."""
        return self._pending[core].drop != set()

    def hand_over(self, core: int) -> None:
        """Hands an idle core what it must forget before its next instruction."""
        if self._bus.has_code_writes:
            self.collect()
        pending = self._pending[core]
        if pending.flush:
            self._cores[core].flush()
            pending.flush = False
        if pending.drop is None or pending.drop:
            self._cores[core].drop_code(pending.drop)
            pending.drop = set()

    def collect(self) -> None:
        """Takes the frames whose code is stale off the bus, for every core."""
        frames = self._bus.drain_code_writes()
        if frames is ALL:
            for pending in self._pending:
                pending.drop = None
        elif frames:
            for pending in self._pending:
                if pending.drop is not None:
                    pending.drop.update(frames)
            for frame in frames:
                self._bus.clear_exec(frame)
