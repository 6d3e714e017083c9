"""What happens to memory groups, in order, for those who watch. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from lamina_kit.errors import OutOfRange, ResourceExhausted
from lamina_mmu.domain.groups.group import Group

KEPT = 65_536
"""Events that are kept for slow readers."""
MOST_SPACES = 1024
"""Most spaces that one event names."""
NEWS = ("group-events",)
"""The key that is woken when there is a new event, or pressure begins to rise."""
WINDOW_NS = 1_000_000_000
"""Window of `PRESSURE` events, and the shortest time between two of one group (1 s)."""
MILLION = 1_000_000


class GroupEventKind(IntEnum):
    """Kinds; the numbers are those of the contract's `GroupEventKind`."""

    LOW = 1
    HIGH = 2
    MAX = 3
    OOM = 4
    OOM_KILL = 5
    SWAP_MAX = 6
    PRESSURE = 7
    EMPTY = 8
    PAGE_LOST = 9


@dataclass(frozen=True, slots=True)
class GroupEvent:
    """One event of the group with name `group`; `path` are the ids of that group and all above it."""

    sequence: int
    time_ns: int
    group: str
    path: tuple[int, ...]
    kind: GroupEventKind
    usage_bytes: int
    limit_bytes: int
    spaces: tuple[int, ...]
    reason: str
    address: int
    pressure_ppm: int
    cause: str


@dataclass(eq=False, slots=True)
class Watch:
    """What one watcher wants: groups with all below them (none: all), kinds (none: all), pressure from `ppm` on.

    A `ppm` of 0 wants no pressure. `position` is that of the last event that it has seen.
    """

    groups: tuple[Group, ...]
    kinds: frozenset[int]
    ppm: int
    position: int

    def wants(self, event: GroupEvent) -> bool:
        """Returns whether an event is for this watcher."""
        if self.kinds and event.kind not in self.kinds:
            return False
        if event.kind == GroupEventKind.PRESSURE and not 0 < self.ppm <= event.pressure_ppm:
            return False
        return not self.groups or any(group.id in event.path for group in self.groups)


class GroupEvents:
    """The last events of all groups, and who watches them."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[GroupEvent] = deque(maxlen=kept)
        self.last = 0
        self.watches: dict[Watch, None] = {}

    def add(self, event: GroupEvent) -> None:
        """Keeps an event, whose sequence is `last` + 1."""
        self.last = event.sequence
        self._kept.append(event)

    def watch(self, groups: tuple[Group, ...], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Begins a watch; EVENTS_FORGOTTEN when events after `after` are no longer kept. None begins with news."""
        position = self.last if after is None else after
        if position < self.last - len(self._kept) or position > self.last:
            raise OutOfRange(
                f"Events of groups after {position} are not kept; those after {self.last - len(self._kept)} are.",
                reason="EVENTS_FORGOTTEN",
                next_step="Read the groups, and watch without after_sequence.",
            )
        watch = Watch(groups, frozenset(kinds), ppm, position)
        self.watches[watch] = None
        return watch

    def take(self, watch: Watch, most: int) -> list[GroupEvent]:
        """Returns up to `most` events that a watch wants and has not seen; WATCHER_TOO_SLOW when some are lost."""
        missing = self.last - watch.position
        if missing > len(self._kept):
            raise ResourceExhausted(
                f"{missing - len(self._kept)} events of groups were forgotten before they were read.",
                reason="WATCHER_TOO_SLOW",
                next_step="Read the groups, and watch without after_sequence; read faster, or watch fewer groups.",
            )
        found: list[GroupEvent] = []
        for event in islice(self._kept, len(self._kept) - missing, None):
            watch.position = event.sequence
            if watch.wants(event):
                found.append(event)
                if len(found) == most:
                    break
        return found

    def least_ppm(self, group: Group) -> int:
        """Returns the lowest pressure that somebody wants to be told of a group; 0 when nobody does."""
        wanted = [
            watch.ppm
            for watch in self.watches
            if watch.ppm and (not watch.groups or any(level in watch.groups for level in group.path))
        ]
        return min(wanted, default=0)
