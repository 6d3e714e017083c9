"""How long the dispatcher lets a core run at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """How long grants last, in instructions, and whether cores have threads."""

    inline_instructions: int = 100_000
    slice_instructions: int = 5_000_000
    threads: bool = True
    ns_per_instruction: int = 1
    quantum_ns: int = 100_000
    least_ns: int = 1_000
    """Shortest slice in virtual time: timers that are closer do not cut it."""
    exact: bool = True
    """Whether cores count instructions. Those that do not keep no budget, and their CPU time is time."""
