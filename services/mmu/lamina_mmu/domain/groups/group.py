"""Memory groups: who may use how much RAM and swap, and who uses it. Pure.

A frame is charged to one group (that of the space or object which had it first) and so to every group above it. A
charge that would lift any of them over its limit is refused and names that group: what lies under *it* must shrink.

    root ─┬─ burst (max 64 MiB) ─┬─ web-1 (max 32 MiB)      a page of web-1 counts in web-1, burst and root
          └─ vms                 └─ web-2

Source: Linux Documentation/admin-guide/cgroup-v2.rst (memory.max, memory.swap.max, memory.peak, memory.events).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from lamina_kit.paging import PAGE_SIZE
from lamina_kit.telemetry.pressure import Pressure
from lamina_mmu.domain.session import NOBODY, Session

SWAPPINESS = 60
"""How much anonymous pages are preferred to pages of objects, of 200 (Linux: vm.swappiness)."""
ROOT = "root"
"""Last name part of the root group, which has no limits of its own."""


@dataclass(slots=True)
class Group:
    """One group. Limits are in bytes (None: no limit), usage and counters in pages.

    The counters from `minor_faults` on, `events` (by kind), `pressure` and `waiting` (space ids that wait for memory,
    and how often at once) are of the group and all below it, also of those that are gone. `reclaimed` is of pages that
    the group itself paid for, `taken` of those below it, too. `balance` spreads evictions between anonymous pages and
    pages of objects; `own_swappiness` is None where that of the group above holds.
    `victims` are the numbers of the spaces that were chosen to end when memory ran out.
    """

    id: int
    name: str
    parent: Group | None
    number: int
    max_bytes: int | None = None
    swap_max_bytes: int | None = None
    usage: int = 0
    swap_usage: int = 0
    peak: int = 0
    max_events: int = 0
    oom_events: int = 0
    reclaimed: int = 0
    members: int = 0
    min_bytes: int = 0
    low_bytes: int = 0
    high_bytes: int | None = None
    swap_high_bytes: int | None = None
    oom_group: bool = False
    policy: str = ""
    policy_values: dict[str, int] = field(default_factory=dict)
    own_swappiness: int | None = None
    balance: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    scanned: int = 0
    refaulted: int = 0
    taken: int = 0
    events: dict[int, int] = field(default_factory=dict)
    pressure: Pressure = field(default_factory=Pressure)
    pressure_told_ns: int = -(1 << 62)
    waiting: dict[int, int] = field(default_factory=dict)
    victims: tuple[int, ...] = ()
    session: Session = NOBODY
    children: list[Group] = field(default_factory=list)

    @property
    def limit(self) -> int | None:
        """Returns the most pages of RAM; None without a limit."""
        return None if self.max_bytes is None else self.max_bytes // PAGE_SIZE

    @property
    def swappiness(self) -> int:
        """Returns how much anonymous pages are preferred, of 200: its own, or the nearest above; else SWAPPINESS."""
        for level in self.path:
            if level.own_swappiness is not None:
                return level.own_swappiness
        return SWAPPINESS

    @swappiness.setter
    def swappiness(self, value: int) -> None:
        self.own_swappiness = value

    @property
    def is_empty(self) -> bool:
        """Returns whether nothing is in it: no group, space or object, no page in RAM or swap."""
        return not (self.children or self.members or self.usage or self.swap_usage)

    @property
    def path(self) -> list[Group]:
        """Returns the group and all above it, itself first."""
        found = [self]
        while found[-1].parent is not None:
            found.append(found[-1].parent)
        return found

    def subtree(self) -> list[Group]:
        """Returns the group and all below it, itself first, in the order of creation."""
        found = [self]
        for child in self.children:
            found += child.subtree()
        return found


class GroupTree:
    """All groups, by id (0 is the root) and by last name part."""

    def __init__(self) -> None:
        self.root = Group(0, ROOT, None, 1)
        self._by_id: dict[int, Group] = {0: self.root}
        self._by_name: dict[str, Group] = {ROOT: self.root}
        self._paths: dict[int, list[Group]] = {0: [self.root]}
        self._next = 1

    def get(self, group: int) -> Group:
        """Returns the group with an id that is in use."""
        return self._by_id[group]

    def named(self, name: str) -> Group:
        """Returns a group by its last name part; empty means the root."""
        group = self._by_name.get(name or ROOT)
        if group is None:
            raise NotFound(f"There is no memory group {name}.", reason="GROUP_UNKNOWN", next_step="Create it first.")
        return group

    def create(self, name: str, parent: Group, max_bytes: int | None, swap_max_bytes: int | None) -> Group:
        """Adds a group under `parent`."""
        if name in self._by_name:
            raise AlreadyExists(
                f"The memory group {name} exists.", reason="GROUP_EXISTS", next_step="Take another name, or use it."
            )
        group = Group(self._next, name, parent, self._next + 1, max_bytes, swap_max_bytes)
        self._next += 1
        parent.children.append(group)
        self._by_id[group.id] = self._by_name[name] = group
        self._paths[group.id] = group.path
        return group

    def delete(self, group: Group) -> None:
        """Removes an empty group; GROUP_IN_USE while anything is charged to it, belongs to it or lies under it."""
        parent = group.parent
        if parent is None or not group.is_empty:
            why = "it is the root" if parent is None else f"{len(group.children)} groups, {group.members} spaces and "
            why += "" if parent is None else f"objects and {group.usage + group.swap_usage} pages are in it"
            raise FailedPrecondition(
                f"The memory group {group.name} cannot be deleted: {why}.",
                reason="GROUP_IN_USE",
                next_step="Delete its spaces, objects and groups first.",
            )
        parent.children.remove(group)
        del self._by_id[group.id], self._by_name[group.name], self._paths[group.id]

    def path(self, group: int) -> list[Group]:
        """Returns the group with an id that is in use and all above it, itself first."""
        return self._paths[group]

    def exists(self, group: Group) -> bool:
        """Returns whether a group is still there."""
        return self._by_id.get(group.id) is group

    def ordered(self) -> list[Group]:
        """Returns all groups in the order of creation, the root first."""
        return list(self._by_id.values())

    def over(self, group: int, pages: int = 1) -> Group | None:
        """Returns the nearest group that `pages` more would lift over its limit; None when they fit."""
        for level in self._paths[group]:
            limit = level.max_bytes
            if limit is not None and (level.usage + pages) * PAGE_SIZE > limit:
                return level
        return None

    def charge(self, group: int, pages: int) -> None:
        """Adds to (or, negative, takes from) the usage of a group and all above it."""
        for level in self._paths[group]:
            level.usage += pages
            if level.usage > level.peak:
                level.peak = level.usage

    def swap_over(self, group: int, pages: int = 1) -> Group | None:
        """Returns the nearest group that `pages` more in swap would lift over its limit; None when they fit."""
        for level in self._paths[group]:
            limit = level.swap_max_bytes
            if limit is not None and (level.swap_usage + pages) * PAGE_SIZE > limit:
                return level
        return None

    def charge_swap(self, group: int, pages: int) -> None:
        """Adds to (or takes from) the swap usage of a group and all above it."""
        for level in self._paths[group]:
            level.swap_usage += pages
