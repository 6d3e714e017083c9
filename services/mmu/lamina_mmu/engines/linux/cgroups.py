"""Memory groups as cgroups of the kernel: the tree of them, their settings, and what the kernel tells of them.

The tree lies in one subtree that belongs to the service; its top is the root group. The kernel charges, reclaims and
kills; here it is only asked. What happens to a group is found by its counters, which are compared whenever somebody
looks: on each call about groups, when the kernel says that something changed, and a few times a second while somebody
watches. Several events of a kind between two looks are told as one; the counts in statistics are exact.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, ResourceExhausted
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.groups.events import (
    MILLION,
    MOST_SPACES,
    NEWS,
    WINDOW_NS,
    GroupEvent,
    GroupEventKind,
    GroupEvents,
    Watch,
)
from lamina_mmu.domain.groups.group import Group, GroupTree
from lamina_mmu.domain.kernel.cgroups import Cgroups, number
from lamina_mmu.domain.ports import Ports
from lamina_mmu.domain.session import Session
from lamina_mmu.engines.linux.cgroup_files import Version, Version2, files_of
from lamina_mmu.engines.linux.refusals import refuse

LOOK_NS = 250_000_000
"""How often counters are compared while somebody watches (250 ms)."""
NAMED_WITHIN_NS = 500_000_000
"""How long a kill waits to be told for the space whose process it ended (500 ms): the kernel counts it before."""
CHUNK = 4096
"""Most pages that one write reclaims (16 MiB), so that others are not kept waiting."""
Kind = GroupEventKind
_LIMITS = {Kind.HIGH: "high_bytes", Kind.MAX: "max_bytes", Kind.LOW: "low_bytes", Kind.SWAP_MAX: "swap_max_bytes"}


class KernelGroups:
    """The groups. `tree` has their names, owners and order; limits and usage are the kernel's."""

    def __init__(self, ports: Ports, cgroups: Cgroups) -> None:
        self.ports, self.cgroups = ports, cgroups
        self.files: Version = files_of(cgroups.version)
        self.tree = GroupTree()
        self.feed = GroupEvents()
        self._seen: dict[int, dict[GroupEventKind, int]] = {}
        self._waited: dict[int, list[tuple[int, int]]] = {}
        self._unnamed: dict[int, list[int]] = {}
        """When the kernel counted kills of a group whose spaces did not end yet."""
        if cgroups.version:
            self._seen[0] = self._counted(self.tree.root)
            cgroups.watch("", self.look)
            if self.files.inner:
                cgroups.make(self.files.inner)

    # ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────

    def named(self, name: str) -> Group:
        """Returns a group by its last name part, empty meaning the root; GROUP_UNKNOWN."""
        self._need()
        return self.tree.named(name)

    def path(self, group: Group) -> str:
        """Returns the path of a group below the top of the subtree."""
        return "/".join(level.name for level in reversed(group.path[:-1]))

    def process_path(self, group: Group) -> str:
        """Returns where the processes of a group are."""
        return "/".join(part for part in (self.path(group), self.files.inner) if part)

    def create(self, name: str, parent: Group, limits: Mapping[str, int | None], session: Session) -> Group:
        """Makes a group; what was made is removed again when a limit is refused."""
        group = self.tree.create(name, parent, None, None)
        group.session = session
        path = self.path(group)
        try:
            self._check(self.cgroups.make(path), f"make the group {name}")
            if self.files.inner:
                self._check(self.cgroups.make(self.process_path(group)), f"make the group {name}")
            for field, value in limits.items():
                if value is not None:
                    self.put(group, field, value)
        except BaseException:
            self._unmake(group)
            raise
        self._seen[group.id] = self._counted(group)
        self.cgroups.watch(path, self.look)
        self._record(group, "group.created", owner=session.owner, parent=parent.name, **dict[str, Any](limits))
        return group

    def delete(self, group: Group, is_used: bool) -> None:
        """Removes an empty group; GROUP_IN_USE while anything belongs to it, or a process is in it."""
        self.look()
        group.members = int(is_used or bool(self.processes(group)))
        path = self.path(group)
        self.tree.delete(group)
        self.cgroups.unwatch(path)
        self._remove(group, path)
        self._seen.pop(group.id, None)
        self._waited.pop(group.id, None)
        self._unnamed.pop(group.id, None)
        self.ports.wake(NEWS, None)
        self._record(group, "group.deleted")

    def processes(self, group: Group) -> list[int]:
        """Returns the processes that are in a group itself."""
        text = self.cgroups.read(self.process_path(group), "cgroup.procs")
        return [int(word) for word in text.split()] if isinstance(text, str) else []

    def enter(self, pid: int, group: Group) -> None:
        """Moves a process into a group; from then on what it touches is charged there."""
        error = self.cgroups.put(self.process_path(group), "cgroup.procs", str(pid))
        if error == -errno.ESRCH:
            raise NotFound(f"There is no process {pid}.", reason="PROCESS_UNKNOWN", next_step="List the processes.")
        self._check(error, f"move process {pid} into {group.name}")

    def expire(self, owner: str, epoch: int) -> Iterable[Group]:
        """Returns the groups of expired sessions, those below others first."""
        mine = [one for one in self.tree.ordered() if one.session.owner == owner and one.session.epoch <= epoch]
        return reversed(mine)

    def close(self) -> None:
        """Removes all groups of the kernel that were made."""
        error = self.cgroups.close()
        if error < 0:
            self._record(self.tree.root, "group.left_behind", message=os.strerror(-error))

    # ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────

    def text(self, group: Group, file: str) -> str:
        """Returns the content of a group's file; empty when the kernel has none."""
        found = self.cgroups.read(self.path(group), file)
        return found if isinstance(found, str) else ""

    def setting(self, group: Group, field: str) -> int | None:
        """Returns a setting; None without a limit, or when this version has none such."""
        file = self.files.files.get(field)
        return number(self.text(group, file)) if file else None

    def put(self, group: Group, field: str, value: int | None) -> None:
        """Changes a setting; None means no limit."""
        file = self.files.files.get(field)
        if file is None:
            raise refuse(
                "group", f"set {field}: cgroups of version {self.cgroups.version} have no such setting", "Leave it out."
            )
        error = self.cgroups.put(self.path(group), file, self.files.no_limit if value is None else str(int(value)))
        if error == -errno.ENOENT:
            raise refuse("group", f"set {field}: this kernel has no {file}", "Leave it out.")
        if error == -errno.EBUSY:
            used = self.usage(group)
            raise ResourceExhausted(
                f"{field} of {group.name} cannot become {value}: {used} bytes are in use and cannot be reclaimed.",
                reason="GROUP_NOT_RECLAIMABLE",
                next_step="Give the host swap, end a space of the group, or set a higher limit.",
            )
        self._check(error, f"set {field} of {group.name}")

    def usage(self, group: Group) -> int:
        """Returns the bytes of RAM that a group uses."""
        return self.files.usage(lambda file: self.text(group, file)).ram

    # ── reclaim ──────────────────────────────────────────────────────────────────────────────────────────────────

    def reclaim(self, group: Group, pages: int) -> Step[tuple[int, int]]:
        """Has the kernel push up to `pages` out of a group; returns (pages that went, of them to swap)."""
        before = self.files.usage(lambda file: self.text(group, file))
        wanted = pages * PAGE_SIZE
        gone = 0
        while gone < wanted:
            goes_on = self._push(group, min(wanted - gone, CHUNK * PAGE_SIZE))
            now = self.files.usage(lambda file: self.text(group, file))
            gone, had = max(0, before.ram - now.ram), gone
            if not goes_on or gone <= had:
                break
            yield Sleep(0)
        swapped = max(0, self.files.usage(lambda file: self.text(group, file)).swap - before.swap)
        taken = min(gone, wanted) // PAGE_SIZE
        group.reclaimed += taken
        return taken, min(taken, swapped // PAGE_SIZE)

    def _push(self, group: Group, size: int) -> bool:
        """Has `size` bytes reclaimed, or what there is; returns whether all of it could be.

        Version 1 reclaims nothing but what is beyond a limit: the limit is lowered for a moment.
        """
        path = self.path(group)
        if self.files is Version2:
            return self.cgroups.put(path, "memory.reclaim", str(size)) == 0
        file = self.files.files["max_bytes"]
        limit = self.text(group, file).strip()
        target = max(0, self.usage(group) - size)
        try:
            return self.cgroups.put(path, file, str(target)) == 0
        finally:
            self._check(self.cgroups.put(path, file, "-1" if number(limit) is None else limit), "restore the limit")

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Compares the counters of all groups with those seen last, and tells what happened between."""
        groups = self.tree.ordered()
        news: dict[int, dict[GroupEventKind, int]] = {}
        for group in groups:
            counted, seen = self._counted(group), self._seen.get(group.id, {})
            news[group.id] = {kind: count - seen.get(kind, 0) for kind, count in counted.items()}
            self._seen[group.id] = counted
        for group in groups:
            for kind, count in news[group.id].items():
                if kind in self.files.nested:
                    count -= sum(news[child.id].get(kind, 0) for child in group.children)
                if count > 0:
                    self._tell_counted(group, kind, count)
        now = self.ports.now_ns()
        for group in groups:
            unnamed = self._unnamed.get(group.id, [])
            if unnamed and unnamed[-1] <= now - NAMED_WITHIN_NS:
                del self._unnamed[group.id]
                self.tell(group, Kind.OOM_KILL, count=0)

    def space_ended(self, number_of_space: int, name: str, others: Sequence[str]) -> bool:
        """Says that a space of group `name` ended; `others` are the names of the groups of those that are left.

        Returns whether the kernel has ended it because memory ran out, as far as its counters tell.
        """
        if not self.cgroups.version:
            return False
        group = self.tree.named(name)
        self.look()
        unnamed = self._unnamed.get(group.id)
        was_killed = bool(unnamed)
        if unnamed:
            unnamed.pop()
            self.tell(group, Kind.OOM_KILL, count=0, spaces=(number_of_space,))
        for level in group.path:
            below = {one.name for one in level.subtree()}
            if level.parent is None or any(other in below for other in others):
                break
            self.tell(level, Kind.EMPTY)
        return was_killed

    def tell(
        self, group: Group, kind: GroupEventKind, ppm: int = 0, count: int = 1, spaces: tuple[int, ...] = ()
    ) -> None:
        """Tells an event to those who watch, and counts it `count` times for the group and all above it."""
        for level in group.path if count else ():
            level.events[kind] = level.events.get(kind, 0) + count
        self.feed.add(
            GroupEvent(
                self.feed.last + 1,
                self.ports.now_ns(),
                group.name,
                tuple(level.id for level in group.path),
                kind,
                self.usage(group),
                self.setting(group, _LIMITS[kind]) or 0 if kind in _LIMITS else 0,
                spaces,
                "the kernel chose it (oom_score)" if kind is Kind.OOM_KILL else "",
                0,
                ppm,
                self.ports.trace(),
            )
        )
        self.ports.wake(NEWS, None)

    def _tell_counted(self, group: Group, kind: GroupEventKind, count: int) -> None:
        if kind is not Kind.OOM_KILL:
            self.tell(group, kind, count=count)
        else:
            for level in group.path:
                level.events[kind] = level.events.get(kind, 0) + count
            unnamed = self._unnamed.setdefault(group.id, [])
            unnamed += [self.ports.now_ns()] * min(count, MOST_SPACES - len(unnamed))
            rule, usage = "the kernel kills the process with the highest oom_score", self.usage(group)
            self._record(group, "group.oom_killed", rule=rule, kills=count, usage_bytes=usage)

    def _counted(self, group: Group) -> dict[GroupEventKind, int]:
        """Returns the counters of a group itself."""
        found = self.files.events(lambda file: self.text(group, file))
        if self.files.inner:
            inner = self.process_path(group)

            def read(file: str) -> str:
                text = self.cgroups.read(inner, file)
                return text if isinstance(text, str) and file != "memory.swap.events" else ""

            for kind, count in self.files.events(read).items():
                found[kind] = found.get(kind, 0) + count
        return found

    # ── pressure ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, names: Sequence[str], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Begins to watch groups; pressure only where the kernel keeps it."""
        groups = tuple(self.named(name) for name in names)
        if ppm and self.files.pressure(lambda file: self.text(self.tree.root, file)) is None:
            raise refuse("pressure", f"tell pressure: cgroups of version {self.cgroups.version} here keep none")
        self.look()
        return self.feed.watch(groups, kinds, ppm, after)

    def due(self, watch: Watch) -> int:
        """Looks, tells PRESSURE if it is due, and returns when to look again, in nanoseconds."""
        self.look()
        if watch.ppm:
            for group in self.tree.ordered():
                self._check_pressure(group, self.ports.now_ns())
        return LOOK_NS

    def _check_pressure(self, group: Group, now: int) -> None:
        least, reading = self.feed.least_ppm(group), self.files.pressure(lambda file: self.text(group, file))
        if not least or reading is None:
            return
        samples = self._waited.setdefault(group.id, [])
        samples.append((now, reading.some_ns))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_NS:
            samples.pop(0)
        ppm = min(MILLION, (reading.some_ns - samples[0][1]) * MILLION // WINDOW_NS)
        if ppm >= least and now >= group.pressure_told_ns + WINDOW_NS:
            group.pressure_told_ns = now
            self.tell(group, Kind.PRESSURE, ppm)

    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _need(self) -> None:
        if not self.cgroups.version:
            raise refuse("group", f"keep memory groups: {self.cgroups.why}")

    def _check(self, error: int, what: str) -> None:
        if error < 0:
            raise _failed(error, what)

    def _unmake(self, group: Group) -> None:
        path = self.path(group)
        self.tree.delete(group)
        self._remove(group, path)

    def _remove(self, group: Group, path: str) -> None:
        """Removes the cgroup of a group that is no longer in the tree. One that is gone is as wished."""
        inner = [f"{path}/{self.files.inner}"] if self.files.inner else []
        for each in (*inner, path):
            error = self.cgroups.remove(each)
            if error < 0 and error != -errno.ENOENT:
                self._record(group, "group.left_behind", message=os.strerror(-error))

    def _record(self, group: Group, event: str, *, rule: str = "", **inputs: Any) -> None:
        name = f"hosts/{self.ports.host}/memoryGroups/{group.name}"
        self.ports.record(name, event, rule=rule, **inputs)


def _failed(error: int, what: str) -> LaminaError:
    return FailedPrecondition(
        f"The kernel does not {what}: {os.strerror(-error)}.",
        reason="CGROUP_REFUSED",
        next_step="Run the MMU with the right to write the memory cgroups, or use the engine model.",
    )
