"""Limits of sandboxes and containers, as cgroups have them."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_CPU_WEIGHT = 100
DEFAULT_CPU_PERIOD_NS = 100_000_000
DEFAULT_PIDS_LIMIT = 1024
MIN_MEMORY_LIMIT = 64 << 10


@dataclass(frozen=True)
class Resources:
    """CPU share (1 to 10000), CPU time `quota` in each `period` (ns; 0: no limit), and memory in bytes (0: no limit).

    `swap_limit_bytes` is swap beside the memory limit; -1: no limit.
    """

    cpu_weight: int = DEFAULT_CPU_WEIGHT
    cpu_quota_ns: int = 0
    cpu_period_ns: int = DEFAULT_CPU_PERIOD_NS
    memory_limit_bytes: int = 0
    swap_limit_bytes: int = 0
