"""What a space does that its mappings do not say: huge pages, fault-around, limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class HugePages(IntEnum):
    """When huge pages are used; the numbers are those of the contract."""

    ADVISED = 1
    ALWAYS = 2
    NEVER = 3


class LockFuture(IntEnum):
    """What becomes of future mappings; the numbers are those of the contract."""

    NO = 1
    NOW = 2
    ON_FAULT = 3


@dataclass(frozen=True, slots=True)
class SpaceSettings:
    """Settings of one space. Sizes in bytes, limits None without one.

    `fault_around_bytes`: a power of 2, 4 KiB to 2 MiB. `locked_max_bytes` is RLIMIT_MEMLOCK, `mapped_max_bytes`
    RLIMIT_AS. `stack_guard_pages`, 0 to 65536, stay free below a stack. `oom_score_adjust`, -1000 (never) to 1000
    (first), weighs in the choice of an out-of-memory victim.
    """

    huge_pages: HugePages = HugePages.ADVISED
    fault_around_bytes: int = 64 << 10
    locked_max_bytes: int | None = None
    mapped_max_bytes: int | None = None
    lock_future: LockFuture = LockFuture.NO
    stack_guard_pages: int = 256
    oom_score_adjust: int = 0
