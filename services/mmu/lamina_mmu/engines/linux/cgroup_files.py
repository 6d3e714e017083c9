"""Which file of a cgroup holds what, in version 1 and in version 2 of the memory controller. Pure.

    setting            version 2              version 1
    max_bytes          memory.max             memory.limit_in_bytes
    swap_max_bytes     memory.swap.max        – (memory.memsw.limit_in_bytes bounds RAM and swap together)
    min, low, high     memory.min, low, high  – (memory.soft_limit_in_bytes is none of them)
    swap_high_bytes    memory.swap.high       –
    oom_group          memory.oom.group       –
    swappiness         –                      memory.swappiness
    events             memory.events.local    memory.failcnt (max), memory.oom_control (kills)
    pressure           memory.pressure        –

What a version does not have is refused by the name of the field, and is what it is without a limit when it is read.
Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lamina_kit.paging import PAGE_SHIFT
from lamina_kit.telemetry.pressure import Reading
from lamina_mmu.domain.groups.events import GroupEventKind
from lamina_mmu.domain.kernel.cgroups import flat, number, pressure

Read = Callable[[str], str]
"""Returns the content of a file of one group; empty when the kernel has no such file."""
Kind = GroupEventKind


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group uses and used at most, its children included, in bytes; `swap` is what of it is in swap."""

    ram: int
    swap: int
    peak: int


@dataclass(frozen=True, slots=True)
class Pages:
    """What the memory of a group consists of, and what was done to it; in pages."""

    anonymous: int
    objects: int
    tables: int
    locked: int
    huge: int
    minor_faults: int
    major_faults: int
    scanned: int
    reclaimed: int
    refaulted: int


class Version2:
    """The unified hierarchy."""

    files: ClassVar[Mapping[str, str]] = {
        "max_bytes": "memory.max",
        "swap_max_bytes": "memory.swap.max",
        "min_bytes": "memory.min",
        "low_bytes": "memory.low",
        "high_bytes": "memory.high",
        "swap_high_bytes": "memory.swap.high",
        "oom_group": "memory.oom.group",
    }
    no_limit: ClassVar[str] = "max"
    inner: ClassVar[str] = "_own"
    """Processes are in a group of this name within their group: one that has groups below it may have none itself.
    No group of a caller can have the name."""
    counts_reclaim: ClassVar[bool] = True
    nested: ClassVar[tuple[GroupEventKind, ...]] = (Kind.SWAP_MAX,)
    """Kinds whose counters include the groups below."""

    @staticmethod
    def usage(read: Read) -> Usage:
        """Returns what a group uses. Kernels before 5.19 keep no peak: then it is what is used now."""
        ram = number(read("memory.current")) or 0
        return Usage(ram, number(read("memory.swap.current")) or 0, number(read("memory.peak")) or ram)

    @staticmethod
    def pages(read: Read) -> Pages:
        """Returns what it consists of."""
        stat = flat(read("memory.stat"))
        huge = sum(stat.get(name, 0) for name in ("anon_thp", "file_thp", "shmem_thp"))
        major = stat.get("pgmajfault", 0)
        return Pages(
            anonymous=stat.get("anon", 0) >> PAGE_SHIFT,
            objects=stat.get("file", 0) >> PAGE_SHIFT,
            tables=stat.get("pagetables", 0) >> PAGE_SHIFT,
            locked=stat.get("unevictable", 0) >> PAGE_SHIFT,
            huge=huge >> PAGE_SHIFT,
            minor_faults=max(0, stat.get("pgfault", 0) - major),
            major_faults=major,
            scanned=stat.get("pgscan", 0),
            reclaimed=stat.get("pgsteal", 0),
            refaulted=stat.get("workingset_refault_anon", 0) + stat.get("workingset_refault_file", 0),
        )

    @staticmethod
    def events(read: Read) -> dict[GroupEventKind, int]:
        """Returns how often each kind of event occurred in the group itself."""
        told, swap = flat(read("memory.events.local")), flat(read("memory.swap.events"))
        return {
            Kind.LOW: told.get("low", 0),
            Kind.HIGH: told.get("high", 0),
            Kind.MAX: told.get("max", 0),
            Kind.OOM: told.get("oom", 0),
            Kind.OOM_KILL: told.get("oom_kill", 0),
            Kind.SWAP_MAX: swap.get("max", 0),
        }

    @staticmethod
    def pressure(read: Read) -> Reading | None:
        """Returns the pressure; None without CONFIG_PSI."""
        text = read("memory.pressure")
        return pressure(text) if text else None


class Version1:
    """A hierarchy of the memory controller alone, or with others."""

    files: ClassVar[Mapping[str, str]] = {"max_bytes": "memory.limit_in_bytes", "swappiness": "memory.swappiness"}
    no_limit: ClassVar[str] = "-1"
    inner: ClassVar[str] = ""
    counts_reclaim: ClassVar[bool] = False
    nested: ClassVar[tuple[GroupEventKind, ...]] = ()

    @staticmethod
    def usage(read: Read) -> Usage:
        """Returns what a group uses."""
        ram = number(read("memory.usage_in_bytes")) or 0
        swap = flat(read("memory.stat")).get("total_swap", 0)
        return Usage(ram, swap, number(read("memory.max_usage_in_bytes")) or 0)

    @staticmethod
    def pages(read: Read) -> Pages:
        """Returns what it consists of. The kernel counts neither page tables nor what reclaim looked at and took."""
        stat = flat(read("memory.stat"))
        major = stat.get("total_pgmajfault", 0)
        return Pages(
            anonymous=stat.get("total_rss", 0) >> PAGE_SHIFT,
            objects=stat.get("total_cache", 0) >> PAGE_SHIFT,
            tables=0,
            locked=stat.get("total_unevictable", 0) >> PAGE_SHIFT,
            huge=stat.get("total_rss_huge", 0) >> PAGE_SHIFT,
            minor_faults=max(0, stat.get("total_pgfault", 0) - major),
            major_faults=major,
            scanned=0,
            reclaimed=0,
            refaulted=stat.get("total_workingset_refault_anon", 0) + stat.get("total_workingset_refault_file", 0),
        )

    @staticmethod
    def events(read: Read) -> dict[GroupEventKind, int]:
        """Returns how often each kind of event occurred in the group itself. Each kill counts as an out-of-memory."""
        kills = flat(read("memory.oom_control")).get("oom_kill", 0)
        return {Kind.MAX: number(read("memory.failcnt")) or 0, Kind.OOM: kills, Kind.OOM_KILL: kills}

    @staticmethod
    def pressure(read: Read) -> Reading | None:
        """Returns None: it keeps none."""
        return None


Version = type[Version1] | type[Version2]


def files_of(version: int) -> Version:
    """Returns the files of a version, 1 or 2."""
    return Version2 if version == 2 else Version1
