"""The calls of the model engine on groups and policies: routes to the modules that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError
from lamina_mmu.domain.groups.events import MILLION, WINDOW_NS, GroupEvent, Watch
from lamina_mmu.domain.groups.views import PolicyView, ProtectionView, StatisticsView
from lamina_mmu.domain.policies.decisions import Candidate, Eviction
from lamina_mmu.domain.policies.plugged import Plug
from lamina_mmu.domain.policy import Choice
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import GroupView
from lamina_mmu.engines.model.calls import ownership
from lamina_mmu.engines.model.groups import limits as grouping
from lamina_mmu.engines.model.groups import protection as protecting
from lamina_mmu.engines.model.groups import views
from lamina_mmu.engines.model.machine import accounting
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim import plugged_policies
from lamina_mmu.engines.model.views import resources


class GroupCalls:
    """Implements `engines.groups.GroupEngine` on a machine."""

    machine: Machine

    def create_group(
        self, name: str, parent: str, limits: Mapping[str, int | None], session: Session, request: str
    ) -> Step[GroupView]:
        """Makes a group."""
        m, above = self.machine, self.machine.groups.named(parent)

        def make() -> Step[str]:
            yield from ()
            return grouping.create_group(m, name, above, limits, session).name

        made = yield from ownership.once(m, request, ("group", name, parent, *sorted(limits.items())), make)
        return self.group(made)

    def update_group(self, name: str, limits: Mapping[str, int | None]) -> Step[GroupView]:
        """Changes limits, and reclaims what lies above."""
        group = self.machine.groups.named(name)
        yield from grouping.update_group(self.machine, group, limits)
        return resources.show_group(group)

    def delete_group(self, name: str) -> None:
        """Deletes an empty group."""
        grouping.delete_group(self.machine, self.machine.groups.named(name))

    def group(self, name: str) -> GroupView:
        """Returns one group."""
        return resources.show_group(self.machine.groups.named(name))

    def group_name(self, number: int) -> str:
        """Returns the last name part of a group by the number that a plugged policy was told."""
        return next((group.name for group in self.machine.groups.ordered() if group.number == number), "")

    def groups(self, after: int, count: int) -> list[GroupView]:
        """Returns groups by number."""
        chosen = [group for group in self.machine.groups.ordered() if group.number > after]
        return [resources.show_group(group) for group in chosen[:count]]

    def protection(self, name: str) -> ProtectionView:
        """Returns what protects a group and slows it down."""
        return views.show_protection(self.machine.groups.named(name))

    def protect_group(self, name: str, changes: Mapping[str, Any]) -> Step[ProtectionView]:
        """Changes that, and reclaims what lies above `high`."""
        group = self.machine.groups.named(name)
        yield from protecting.protect_group(self.machine, group, changes)
        return views.show_protection(group)

    def group_statistics(self, name: str) -> StatisticsView:
        """Returns what a group uses and what was done to it."""
        return views.show_statistics(self.machine, self.machine.groups.named(name))

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch_groups(self, names: Sequence[str], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Begins to watch groups."""
        groups = tuple(self.machine.groups.named(name) for name in names)
        return self.machine.group_events.watch(groups, kinds, ppm, after)

    def group_events(self, watch: Watch, most: int) -> list[GroupEvent]:
        """Returns events that a watch has not seen."""
        return self.machine.group_events.take(watch, most)

    def pressure_due(self, watch: Watch) -> int | None:
        """Tells PRESSURE if it is due; returns in how many nanoseconds it may be."""
        m = self.machine
        if not watch.ppm:
            return None
        within: list[int] = []
        for group in m.groups.ordered():
            if group.waiting and m.group_events.least_ppm(group):
                accounting.check_pressure(m, [group])
                now = m.ports.now_ns()
                missing = watch.ppm * WINDOW_NS // MILLION - group.pressure.waited(now, WINDOW_NS)
                within.append(max(missing, group.pressure_told_ns + WINDOW_NS - now, 1))
        return min(within, default=None)

    def is_watching(self, watch: Watch) -> bool:
        """Returns whether one of the watched groups is still there."""
        return not watch.groups or any(self.machine.groups.exists(group) for group in watch.groups)

    def end_group_watch(self, watch: Watch) -> None:
        """Ends a watch."""
        self.machine.group_events.watches.pop(watch, None)

    # ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────

    def policies(self) -> list[PolicyView]:
        """Returns all policies by name."""
        return views.show_policies(self.machine)

    def candidates(self, group: str, after: int, count: int) -> tuple[str, list[Candidate]]:
        """Returns the policy of a group, and its pages in order."""
        found = self.machine.groups.named(group)
        policy = self.machine.policy_of(found)[0].name
        return policy, views.show_candidates(self.machine, found, after, count)

    def evictions(self, group: str, space: str, before: int, count: int) -> list[Eviction]:
        """Returns evictions, newest first."""
        m = self.machine
        charged = m.groups.named(group).name if group else ""
        number = m.spaces.named(space).number if space else 0
        chosen = (
            one
            for one in m.evictions.newest_first(before)
            if (not charged or charged in (one.charged, one.batch.group)) and (not number or number in one.spaces)
        )
        return list(islice(chosen, count))

    def open_plug(self, name: str, summary: str, source: str, owner: str) -> Plug:
        """Plugs a policy in."""
        return plugged_policies.open_plug(self.machine, name, summary, source, owner)

    def take_answer(self, plug: Plug, sequence: int, victims: Sequence[Choice]) -> None:
        """Takes an answer of a plugged policy."""
        plugged_policies.take_answer(self.machine, plug, sequence, victims)

    def close_plug(self, plug: Plug, error: LaminaError | None) -> None:
        """Unplugs a policy."""
        plugged_policies.close_plug(self.machine, plug, error)
