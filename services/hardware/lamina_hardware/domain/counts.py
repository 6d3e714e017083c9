"""What cores and contexts count. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

REASONS = 39


@dataclass(slots=True)
class Counts:
    """Counters since something was made. `exits` has one place for each exit reason, by its number."""

    instructions: int = 0
    exits: list[int] = field(default_factory=lambda: [0] * REASONS)
    tlb_fills: int = 0
    walk_faults: int = 0
    shootdowns: int = 0
    code_invalidations: int = 0
    run_time_ns: int = 0
    wait_time_ns: int = 0

    def add(self, other: Counts) -> None:
        """Adds another's counts to these."""
        self.instructions += other.instructions
        self.exits = [mine + theirs for mine, theirs in zip(self.exits, other.exits, strict=True)]
        self.tlb_fills += other.tlb_fills
        self.walk_faults += other.walk_faults
        self.shootdowns += other.shootdowns
        self.code_invalidations += other.code_invalidations
        self.run_time_ns += other.run_time_ns
        self.wait_time_ns += other.wait_time_ns
