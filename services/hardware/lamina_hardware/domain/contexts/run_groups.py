"""Run groups: the tree of shares, as cpu cgroups are. Pure.

Each group has a *virtual run time*: its CPU time divided by its weight. Among siblings the one that is furthest behind
runs next, so over time siblings that always want to run get CPU time in the ratio of their weights. A group that wakes
up starts where its siblings are, so nobody saves up. The contexts that lie directly in a group count together as one
more child of weight 100.

A quota limits the CPU time of a group in each period; one that used it up is throttled until the next. What it used
beyond the quota is taken off the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from lamina_kit.telemetry.pressure import Pressure

ROOT = ""
DEFAULT_WEIGHT = 100
DEFAULT_PERIOD_NS = 100_000_000
MAX_GROUPS = 16_384
MAX_DEPTH = 64
"""Groups above each other, the root included: what a context costs to start and stop grows with it."""
_SCALE = 10_000


@dataclass(slots=True)
class Share:
    """A competitor among siblings: a group, or the contexts directly in one."""

    weight: int = DEFAULT_WEIGHT
    virtual_ns: int = 0
    active: int = 0

    def charge(self, ns: int) -> None:
        """Adds CPU time."""
        self.virtual_ns += ns * _SCALE // self.weight


@dataclass(slots=True, eq=False)
class RunGroup:
    """A node. `cores` empty means all that the parent has. Times are CPU time in nanoseconds.

    Of its contexts, those of the groups below included, `ready` wait for a core and `running` have one.
    """

    name: str
    parent: str
    share: Share
    quota_ns: int = 0
    period_ns: int = DEFAULT_PERIOD_NS
    cores: frozenset[int] = frozenset()
    owner: str = ""
    own: Share = field(default_factory=Share)
    floor_ns: int = 0
    used_ns: int = 0
    throttled_ns: int = 0
    throttled_since: int | None = None
    window_start: int = 0
    window_used: int = 0
    contexts: int = 0
    ready: int = 0
    running: int = 0
    pressure: Pressure = field(default_factory=Pressure)
    instructions: int = 0
    periods: int = 0
    throttled_periods: int = 0
    window_active: bool = False

    def roll(self, now: int) -> None:
        """Moves to the period that `now` lies in; debt stays."""
        if not self.quota_ns or now < self.window_start + self.period_ns:
            return
        passed = (now - self.window_start) // self.period_ns
        self.window_start += passed * self.period_ns
        self.periods += self.window_active + (passed - 1 if self.share.active or self.own.active else 0)
        self.throttled_periods += min(passed, self.window_used // self.quota_ns)
        self.window_active = bool(self.share.active or self.own.active)
        self.window_used = max(0, self.window_used - passed * self.quota_ns)
        if self.throttled_since is not None and self.window_used < self.quota_ns:
            self.throttled_ns += self.window_start - self.throttled_since
            self.throttled_since = None

    def is_throttled(self, now: int) -> bool:
        """Returns whether the quota of this period is used up."""
        self.roll(now)
        return bool(self.quota_ns) and self.window_used >= self.quota_ns

    def charge(self, ns: int, now: int) -> bool:
        """Adds CPU time; returns whether that throttled the group."""
        self.used_ns += ns
        self.share.charge(ns)
        if not self.quota_ns:
            return False
        if not self.window_used and now >= self.window_start + self.period_ns:
            self.window_start = now - ns
        self.roll(now)
        self.window_active = True
        self.window_used += ns
        if self.window_used >= self.quota_ns and self.throttled_since is None:
            self.throttled_since = now
            return True
        return False


@dataclass(frozen=True, slots=True)
class Change:
    """New values of a group; None leaves one as it is."""

    weight: int | None = None
    quota_ns: int | None = None
    period_ns: int | None = None
    cores: frozenset[int] | None = None


class RunGroups:
    """The tree. The root always exists and has no limits."""

    def __init__(self) -> None:
        self._groups: dict[str, RunGroup] = {ROOT: RunGroup(ROOT, ROOT, Share())}
        self._children: dict[str, list[str]] = {ROOT: []}
        self._paths: dict[str, tuple[RunGroup, ...]] = {ROOT: (self._groups[ROOT],)}

    def create(self, group: RunGroup) -> RunGroup:
        """Adds a group.

        Raises `NotFound` `RUN_GROUP_UNKNOWN` (parent), `AlreadyExists` `RUN_GROUP_EXISTS`, or `ResourceExhausted`
        `TOO_MANY_RUN_GROUPS`.
        """
        self.get(group.parent)
        if group.name in self._groups:
            raise AlreadyExists(
                f"The run group {group.name} exists.",
                reason="RUN_GROUP_EXISTS",
                next_step="Choose another name, or use that one.",
            )
        if len(self._groups) > MAX_GROUPS:
            raise ResourceExhausted(
                f"This host has {MAX_GROUPS} run groups.",
                reason="TOO_MANY_RUN_GROUPS",
                next_step="Delete those that nothing runs in.",
            )
        if len(self._paths[group.parent]) >= MAX_DEPTH:
            raise ResourceExhausted(
                f"The run group {group.parent} is {MAX_DEPTH} groups deep.",
                reason="TOO_MANY_RUN_GROUPS",
                next_step="Put the group further up.",
            )
        self._groups[group.name] = group
        self._children[group.name] = []
        self._children[group.parent].append(group.name)
        self._paths[group.name] = (group, *self._paths[group.parent])
        return group

    def get(self, name: str) -> RunGroup:
        """Returns a group. Raises `NotFound` `RUN_GROUP_UNKNOWN`."""
        group = self._groups.get(name)
        if group is None:
            raise NotFound(
                f"There is no run group {name}.", reason="RUN_GROUP_UNKNOWN", next_step="List the run groups."
            )
        return group

    def delete(self, name: str) -> None:
        """Removes an empty group. Raises `NotFound`, or `FailedPrecondition` `RUN_GROUP_IN_USE`."""
        group = self.get(name)
        if group.contexts or self._children[name] or name == ROOT:
            held = f"{group.contexts} contexts and {len(self._children[name])} groups"
            raise FailedPrecondition(
                f"The run group {name or '(root)'} has {held}.",
                reason="RUN_GROUP_IN_USE",
                next_step="Delete what is in it first.",
            )
        del self._groups[name], self._children[name], self._paths[name]
        self._children[group.parent].remove(name)

    def update(self, name: str, change: Change, now: int) -> RunGroup:
        """Changes a group. Raises `NotFound`, or `FailedPrecondition` `RUN_GROUP_IS_ROOT`."""
        group = self.get(name)
        if name == ROOT:
            raise FailedPrecondition(
                "The root run group has the whole machine.",
                reason="RUN_GROUP_IS_ROOT",
                next_step="Change a group below it.",
            )
        group.roll(now)
        if change.weight is not None:
            group.share.weight = change.weight
        if change.cores is not None:
            group.cores = change.cores
        if change.period_ns is not None or change.quota_ns is not None:
            self._set_quota(group, change, now)
        return group

    def _set_quota(self, group: RunGroup, change: Change, now: int) -> None:
        """Gives a group another quota or period; what was used of this period counts on, and a throttle may end."""
        quota = group.quota_ns if change.quota_ns is None else change.quota_ns
        period = group.period_ns if change.period_ns is None else change.period_ns
        if (quota, period) == (group.quota_ns, group.period_ns):
            return
        if not group.quota_ns:
            group.window_start, group.window_used, group.window_active = now, 0, False
        group.quota_ns, group.period_ns = quota, period
        if group.throttled_since is not None and (not quota or group.window_used < quota):
            group.throttled_ns += now - group.throttled_since
            group.throttled_since = None

    def moved(self, name: str, ready: int, running: int, now: int) -> None:
        """Notes that contexts of a group began or ended to wait, or to run. While none waits there is no pressure."""
        for group in self._paths[name]:
            waited = group.ready
            group.ready = waiting = waited + ready
            group.running += running
            if waited or waiting:
                group.pressure.note(now, waiting, group.running)

    def entries(self) -> list[RunGroup]:
        """Returns all groups but the root, in the order of their names."""
        return [self._groups[name] for name in sorted(self._groups) if name != ROOT]

    def children(self, name: str) -> list[RunGroup]:
        """Returns the groups directly under one, in the order of their creation."""
        return [self._groups[child] for child in self._children[name]]

    def path(self, name: str) -> tuple[RunGroup, ...]:
        """Returns a group and its ancestors, the root last."""
        return self._paths[name]

    def activate(self, name: str) -> None:
        """Notes that a context of a group wants to run; a share that slept starts where its siblings are."""
        first = self._groups[name]
        self._wake(first.own, first)
        for group in self.path(name):
            if group.name != ROOT:
                self._wake(group.share, self._groups[group.parent])

    def deactivate(self, name: str) -> None:
        """Notes that a context of a group no longer wants to run."""
        self._groups[name].own.active -= 1
        for group in self.path(name):
            group.share.active -= group.name != ROOT

    def charge(self, name: str, ns: int, now: int, instructions: int = 0) -> list[RunGroup]:
        """Adds CPU time and instructions of a context to its group and all above; returns those that it throttled."""
        self._groups[name].own.charge(ns)
        throttled = []
        for group in self._paths[name]:
            group.instructions += instructions
            if group.charge(ns, now):
                throttled.append(group)
        return throttled

    def is_free(self, name: str) -> bool:
        """Returns whether no group on the path limits CPU time or cores."""
        for group in self._paths[name]:  # noqa: SIM110 (at every exit)
            if group.quota_ns or group.cores:
                return False
        return True

    def ran_alone(self, name: str, ns: int, instructions: int) -> None:
        """Notes at once that a context of a group without limits woke, ran, and sleeps, while none waited.

        The same as `activate`, `note_alone`, `charge` and `deactivate` in this order.
        """
        share = self._groups[name].own
        for group in self._paths[name]:  # `share` competes among the children of `group`
            if share.virtual_ns > group.floor_ns:
                group.floor_ns = share.virtual_ns
            elif not share.active:
                share.virtual_ns = group.floor_ns
            share.virtual_ns += ns * _SCALE // share.weight  # `charge`, at every exit and for every level
            group.used_ns += ns
            group.instructions += instructions
            share = group.share
        share.charge(ns)

    def throttled(self, name: str, now: int) -> RunGroup | None:
        """Returns the group on the path to the root whose quota is used up, if there is one."""
        for group in self._paths[name]:
            if group.quota_ns and group.is_throttled(now):
                return group
        return None

    def allows(self, name: str, core: int) -> bool:
        """Returns whether every group on the path lets a context run on this core."""
        for group in self._paths[name]:  # noqa: SIM110 (at every exit: a generator costs more than its turns)
            if group.cores and core not in group.cores:
                return False
        return True

    def next_of(self, ready: dict[str, int]) -> str:
        """Returns the group whose contexts run next, of those in `ready` (group → how many): furthest behind first."""
        at = self._groups[ROOT]
        while True:
            choices: list[tuple[int, str, Share, RunGroup | None]] = []
            if at.name in ready:
                choices.append((at.own.virtual_ns, "", at.own, None))
            for child in self.children(at.name):
                if any(child.name == group.name for name in ready for group in self.path(name)):
                    choices.append((child.share.virtual_ns, child.name, child.share, child))
            virtual_ns, _, _, chosen = min(choices, key=lambda choice: choice[:2])
            at.floor_ns = max(at.floor_ns, virtual_ns)
            if chosen is None:
                return at.name
            at = chosen

    def note_alone(self, name: str) -> None:
        """Notes that a group runs without competition: what `next_of` would note on its way to the only choice."""
        path = self._paths[name]
        path[0].floor_ns = max(path[0].floor_ns, path[0].own.virtual_ns)
        for group, parent in pairwise(path):
            parent.floor_ns = max(parent.floor_ns, group.share.virtual_ns)

    def _wake(self, share: Share, parent: RunGroup) -> None:
        if not share.active:
            share.virtual_ns = max(share.virtual_ns, parent.floor_ns)
        share.active += 1
