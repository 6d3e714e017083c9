"""What an engine shows of groups beyond their limits, and of policies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from lamina_kit.telemetry.pressure import Reading
from lamina_mmu.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class ProtectionView:
    """What protects a group and slows it down; limits in bytes (None: never). `policy` is empty for the parent's."""

    min_bytes: int
    low_bytes: int
    high_bytes: int | None
    swap_high_bytes: int | None
    oom_group: bool
    policy: str
    parameters: Mapping[str, int]
    swappiness: int


@dataclass(frozen=True, slots=True)
class StatisticsView:
    """What a group uses and what was done to it, in pages, children included. `pressure`: None where none is kept."""

    name: str
    time_ns: int
    anonymous: int
    objects: int
    tables: int
    allocated: int
    locked: int
    huge: int
    dirty: int
    swapped: int
    minor_faults: int
    major_faults: int
    scanned: int
    reclaimed: int
    refaulted: int
    events: Mapping[int, int]
    pressure: Reading | None


class Origin(IntEnum):
    """Where a policy comes from; the numbers are those of the contract's `Policy.Origin`."""

    BUILT_IN = 1
    INSTALLED = 2
    PLUGGED = 3


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A policy, and the names of the groups that use it."""

    policy: type[Policy]
    origin: Origin
    groups: tuple[str, ...]
