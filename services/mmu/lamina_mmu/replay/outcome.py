"""What a replay says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_mmu.replay.run import Counts


@dataclass(frozen=True)
class Progress:
    """How far a replay is."""

    accesses: int
    trace_bytes: int
    distinct_pages: int


@dataclass(frozen=True)
class Result:
    """What came out for one policy and size."""

    policy: str
    frames: int
    accesses: int
    cold_misses: int
    distinct_pages: int
    truncated: bool
    counts: Counts


@dataclass(frozen=True)
class Eviction:
    """An eviction beside what OPT would have chosen; next uses in accesses from there, -1 for never."""

    access: int
    incoming_page: int
    page: int
    reason: str
    next_use: int
    best_page: int
    best_next_use: int


@dataclass(frozen=True)
class Explanation:
    """The first evictions of one policy and size."""

    policy: str
    frames: int
    evictions: tuple[Eviction, ...]


@dataclass(frozen=True)
class Curve:
    """Misses of a policy for ascending numbers of frames, as arrays of integers of the same length."""

    policy: str
    frames: tuple[int, ...]
    misses: tuple[int, ...]
    accesses: int


Outcome = Progress | Result | Explanation | Curve
