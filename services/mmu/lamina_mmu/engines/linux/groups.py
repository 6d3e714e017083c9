"""Memory groups of the `linux` engine: the calls on them. What is done with cgroups is in `cgroups.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.groups.events import GroupEvent, GroupEventKind, Watch
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.groups.views import PolicyView, ProtectionView, StatisticsView
from lamina_mmu.domain.kernel.cgroups import number
from lamina_mmu.domain.policies.decisions import Candidate, Eviction
from lamina_mmu.domain.policies.plugged import Plug
from lamina_mmu.domain.policy import Choice
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import GroupView
from lamina_mmu.engines.linux.cgroups import KernelGroups
from lamina_mmu.engines.linux.refusals import refuse
from lamina_mmu.engines.linux.state import ROOT_GROUP, State

_PROTECTION = ("min_bytes", "low_bytes", "high_bytes", "swap_high_bytes", "oom_group", "swappiness")
_OWN_POLICY = "choose victims by policies of its own"


class GroupCalls:
    """Implements `engines.groups.GroupEngine`, and what spaces need of groups."""

    state: State
    kernel_groups: KernelGroups

    # ── what spaces need ─────────────────────────────────────────────────────────────────────────────────────────

    def group_of(self, name: str) -> str:
        """Returns the name of a group that there is, the root for an empty one; GROUP_UNKNOWN."""
        if name in ("", ROOT_GROUP):
            return ROOT_GROUP
        return self.kernel_groups.named(name).name

    def enter_group(self, pid: int, name: str) -> None:
        """Moves a process into a group, which is one that `group_of` returned.

        Where the kernel lets nobody make groups there is the root alone, and a process stays where it is.
        """
        if name != ROOT_GROUP or self.kernel_groups.cgroups.version:
            self.kernel_groups.enter(pid, self.kernel_groups.named(name))

    def leave_group(self, space: int, name: str) -> bool:
        """Says that a space of a group ended, so that those who watch hear of a kill, and of a group without spaces.

        Returns whether the kernel has ended it because memory ran out.
        """
        others = [one.group for one in self.state.spaces if one.number != space]
        return self.kernel_groups.space_ended(space, name, others)

    def reclaim_group(self, name: str, pages: int) -> Step[tuple[int, int]]:
        """Pushes pages of a group out of RAM; returns (pages, of them written)."""
        return (yield from self.kernel_groups.reclaim(self.kernel_groups.named(name), pages))

    def owned_groups(self, owner: str) -> int:
        """Returns how many groups belong to an owner."""
        return sum(1 for group in self.kernel_groups.tree.ordered() if group.session.owner == owner)

    def expire_groups(self, owner: str, epoch: int) -> None:
        """Removes the groups of expired sessions; those that are in use stay, and belong to nobody."""
        for group in self.kernel_groups.expire(owner, epoch):
            try:
                self.kernel_groups.delete(group, self._is_used(group))
            except FailedPrecondition:
                group.session = Session("", 0)

    def _is_used(self, group: Group) -> bool:
        return any(one.group == group.name for one in (*self.state.spaces, *self.state.objects))

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────

    def create_group(
        self, name: str, parent: str, limits: Mapping[str, int | None], session: Session, request: str
    ) -> Step[GroupView]:
        """Makes a group."""
        above = self.kernel_groups.named(parent)

        def make() -> Step[str]:
            yield from ()
            return self.kernel_groups.create(name, above, limits, session).name

        meaning = ("group", name, parent, *sorted(limits.items()))
        return self.group((yield from self.state.once(request, meaning, make)))

    def update_group(self, name: str, limits: Mapping[str, int | None]) -> Step[GroupView]:
        """Changes limits; what lies above a lower one is reclaimed first, as far as it can be."""
        kernel, group = self.kernel_groups, self._no_root(name)
        for field, value in limits.items():
            if field == "max_bytes" and value is not None:
                beyond = kernel.usage(group) - value
                if beyond > 0:
                    yield from kernel.reclaim(group, -(-beyond // PAGE_SIZE))
            kernel.put(group, field, value)
        return self.group(name)

    def delete_group(self, name: str) -> None:
        """Deletes an empty group."""
        group = self.kernel_groups.named(name)
        self.kernel_groups.delete(group, self._is_used(group))

    def group(self, name: str) -> GroupView:
        """Returns one group."""
        group = self.kernel_groups.named(name)
        self.kernel_groups.look()
        return self._view(group)

    def group_name(self, number: int) -> str:
        """Returns the last name part of a group by its number; empty when it is gone."""
        ordered = self.kernel_groups.tree.ordered()
        return next((group.name for group in ordered if group.number == number), "")

    def groups(self, after: int, count: int) -> list[GroupView]:
        """Returns groups by number."""
        self.kernel_groups.named("")
        self.kernel_groups.look()
        chosen = [group for group in self.kernel_groups.tree.ordered() if group.number > after]
        return [self._view(group) for group in chosen[:count]]

    def _view(self, group: Group) -> GroupView:
        kernel = self.kernel_groups
        read = self._reader(group)
        usage = kernel.files.usage(read)
        taken = kernel.files.pages(read).reclaimed if kernel.files.counts_reclaim else group.reclaimed
        return GroupView(
            number=group.number,
            name=group.name,
            parent=group.parent.name if group.parent else "",
            max_bytes=kernel.setting(group, "max_bytes"),
            swap_max_bytes=kernel.setting(group, "swap_max_bytes"),
            usage=usage.ram // PAGE_SIZE,
            swap_usage=usage.swap // PAGE_SIZE,
            peak=usage.peak // PAGE_SIZE,
            max_events=group.events.get(GroupEventKind.MAX, 0),
            oom_events=group.events.get(GroupEventKind.OOM, 0),
            reclaimed=taken,
        )

    def _reader(self, group: Group) -> Any:
        return lambda file: self.kernel_groups.text(group, file)

    def _no_root(self, name: str) -> Group:
        group = self.kernel_groups.named(name)
        if group.parent is None:
            raise FailedPrecondition(
                "The root group has no limits of its own.",
                reason="GROUP_IS_ROOT",
                next_step="Limit a group below it.",
            )
        return group

    # ── protection, statistics ───────────────────────────────────────────────────────────────────────────────────

    def protection(self, name: str) -> ProtectionView:
        """Returns what protects a group and slows it down. Its policy is the kernel's, which has no name here."""
        kernel, group = self.kernel_groups, self.kernel_groups.named(name)
        swappiness = kernel.setting(group, "swappiness")
        if swappiness is None:
            swappiness = number(self.state.kernel.memory.text("sys/vm/swappiness")) or 0
        return ProtectionView(
            min_bytes=kernel.setting(group, "min_bytes") or 0,
            low_bytes=kernel.setting(group, "low_bytes") or 0,
            high_bytes=kernel.setting(group, "high_bytes"),
            swap_high_bytes=kernel.setting(group, "swap_high_bytes"),
            oom_group=bool(kernel.setting(group, "oom_group")),
            policy="",
            parameters={},
            swappiness=swappiness,
        )

    def protect_group(self, name: str, changes: Mapping[str, Any]) -> Step[ProtectionView]:
        """Changes that; the kernel reclaims what lies above `high` as the group goes on."""
        yield from ()
        group = self._no_root(name)
        for field in ("policy", "policy_parameters"):
            if changes.get(field):
                raise refuse("policy", _OWN_POLICY)
        missing = [field for field in _PROTECTION if field in changes and field not in self.kernel_groups.files.files]
        for field in (*missing, *(field for field in _PROTECTION if field in changes)):
            self.kernel_groups.put(group, field, changes[field])
        return self.protection(name)

    def group_statistics(self, name: str) -> StatisticsView:
        """Returns what a group uses and what was done to it."""
        kernel, group = self.kernel_groups, self.kernel_groups.named(name)
        kernel.look()
        read = self._reader(group)
        pages = kernel.files.pages(read)
        return StatisticsView(
            name=group.name,
            time_ns=self.state.ports.now_ns(),
            anonymous=pages.anonymous,
            objects=pages.objects,
            tables=pages.tables,
            allocated=0,
            locked=pages.locked,
            huge=pages.huge,
            dirty=0,
            swapped=kernel.files.usage(read).swap // PAGE_SIZE,
            minor_faults=pages.minor_faults,
            major_faults=pages.major_faults,
            scanned=pages.scanned,
            reclaimed=pages.reclaimed if kernel.files.counts_reclaim else group.reclaimed,
            refaulted=pages.refaulted,
            events=dict(sorted(group.events.items())),
            pressure=kernel.files.pressure(read),
        )

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch_groups(self, names: Sequence[str], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Begins to watch groups."""
        return self.kernel_groups.watch(names, kinds, ppm, after)

    def group_events(self, watch: Watch, most: int) -> list[GroupEvent]:
        """Returns events that a watch has not seen."""
        return self.kernel_groups.feed.take(watch, most)

    def pressure_due(self, watch: Watch) -> int | None:
        """Looks what happened, and says when to look again."""
        return self.kernel_groups.due(watch)

    def is_watching(self, watch: Watch) -> bool:
        """Returns whether one of the watched groups is still there."""
        return not watch.groups or any(self.kernel_groups.tree.exists(group) for group in watch.groups)

    def end_group_watch(self, watch: Watch) -> None:
        """Ends a watch."""
        self.kernel_groups.feed.watches.pop(watch, None)

    # ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────

    def policies(self) -> list[PolicyView]:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)

    def candidates(self, group: str, after: int, count: int) -> tuple[str, list[Candidate]]:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)

    def evictions(self, group: str, space: str, before: int, count: int) -> list[Eviction]:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)

    def open_plug(self, name: str, summary: str, source: str, owner: str) -> Plug:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)

    def take_answer(self, plug: Plug, sequence: int, victims: Sequence[Choice]) -> None:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)

    def close_plug(self, plug: Plug, error: LaminaError | None) -> None:
        """Refuses."""
        raise refuse("policy", _OWN_POLICY)
