"""What to replay: policies, sizes, and what is wanted beside the counts. Pure; `convert.replay` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Format(IntEnum):
    """How a trace comes; numbers of the contract."""

    COLUMNS = 1
    RAW_U64 = 2
    CSV = 3
    ORACLE_GENERAL = 4
    LACKEY = 5


class Compression(IntEnum):
    """How its bytes are compressed; numbers of the contract."""

    NONE = 1
    GZIP = 2
    ZSTD = 3


@dataclass(frozen=True)
class PolicyPlan:
    """A policy and all of its parameters."""

    name: str
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TlbPlan:
    """Two levels; the second is absent with 0 entries. Ways divide entries."""

    entries: int = 64
    ways: int = 4
    second_entries: int = 0
    second_ways: int = 12


@dataclass(frozen=True)
class CurvePlan:
    """Curves: of which policies, from one of how many pages, at most how many points (0: each size there is)."""

    policies: tuple[PolicyPlan, ...]
    sample: int = 1
    points: int = 0


@dataclass(frozen=True)
class ReplayPlan:
    """One replay. Pages have 2^`page_shift` bytes; the first `warmup` accesses are not counted."""

    policies: tuple[PolicyPlan, ...]
    frames: tuple[int, ...]
    page_shift: int = 12
    warmup: int = 0
    tlb: TlbPlan | None = None
    table_bits: bool = False
    explain: int = 0
    curve: CurvePlan | None = None
    partial: bool = False
    progress: int = 10_000_000
    format: Format = Format.COLUMNS
    compression: Compression = Compression.NONE


@dataclass(frozen=True)
class Limits:
    """What one replay may use: bytes of memory and of disk, accesses."""

    memory_bytes: int = 2 << 30
    spool_bytes: int = 16 << 30
    accesses: int = 1 << 36
