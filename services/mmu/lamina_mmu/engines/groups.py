"""The part of an MMU engine that knows memory groups and replacement policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError
from lamina_mmu.domain.groups.events import GroupEvent, Watch
from lamina_mmu.domain.groups.views import PolicyView, ProtectionView, StatisticsView
from lamina_mmu.domain.policies.decisions import Candidate, Eviction
from lamina_mmu.domain.policies.plugged import Plug
from lamina_mmu.domain.policy import Choice
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import GroupView


class GroupEngine(Protocol):
    """Groups, their events, and the policies that choose their victims. Groups are named by their last name part."""

    def create_group(
        self, name: str, parent: str, limits: Mapping[str, int | None], session: Session, request: str
    ) -> Step[GroupView]:
        """Makes a group; `limits` may have `max_bytes` and `swap_max_bytes`, None meaning no limit."""

    def update_group(self, name: str, limits: Mapping[str, int | None]) -> Step[GroupView]:
        """Changes limits, and reclaims what lies above."""

    def delete_group(self, name: str) -> None:
        """Deletes an empty group."""

    def group(self, name: str) -> GroupView:
        """Returns one group."""

    def group_name(self, number: int) -> str:
        """Returns the last name part of the group whose number a plugged policy was told; empty when it is gone."""

    def groups(self, after: int, count: int) -> list[GroupView]:
        """Returns up to `count` groups with numbers above `after`, by number."""

    def protection(self, name: str) -> ProtectionView:
        """Returns what protects a group and slows it down."""

    def protect_group(self, name: str, changes: Mapping[str, Any]) -> Step[ProtectionView]:
        """Changes that, and reclaims what lies above `high`. `changes` are attributes of `ProtectionView` by name, and
        `policy_parameters`, texts by name.
        """

    def group_statistics(self, name: str) -> StatisticsView:
        """Returns what a group uses and what was done to it."""

    def watch_groups(self, names: Sequence[str], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Begins to watch groups with all below them (none: all groups)."""

    def group_events(self, watch: Watch, most: int) -> list[GroupEvent]:
        """Returns up to `most` events that the watch has not seen. `group_events.NEWS` is woken for new ones."""

    def pressure_due(self, watch: Watch) -> int | None:
        """Tells PRESSURE if it is due. Returns in how many nanoseconds it may be, if things go on so; None if not."""

    def is_watching(self, watch: Watch) -> bool:
        """Returns whether one of the watched groups is still there."""

    def end_group_watch(self, watch: Watch) -> None:
        """Ends a watch."""

    def policies(self) -> list[PolicyView]:
        """Returns all policies by name."""

    def candidates(self, group: str, after: int, count: int) -> tuple[str, list[Candidate]]:
        """Returns the policy of a group, and its pages in order, `after` of them passed."""

    def evictions(self, group: str, space: str, before: int, count: int) -> list[Eviction]:
        """Returns evictions below position `before` (0: all), newest first; of a group and space, empty meaning all."""

    def open_plug(self, name: str, summary: str, source: str, owner: str) -> Plug:
        """Plugs a policy in; what is said to it is in its outbox, `effects.plug_key` is woken for more."""

    def take_answer(self, plug: Plug, sequence: int, victims: Sequence[Choice]) -> None:
        """Takes an answer of a plugged policy."""

    def close_plug(self, plug: Plug, error: LaminaError | None) -> None:
        """Unplugs a policy. Idempotent."""
