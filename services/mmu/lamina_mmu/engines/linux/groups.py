"""Memory groups of the `linux` engine: refused for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamina_kit.effects import Step
from lamina_kit.errors import LaminaError, NotFound
from lamina_mmu.domain.decisions import Candidate, Eviction
from lamina_mmu.domain.group_events import GroupEvent, Watch
from lamina_mmu.domain.group_views import PolicyView, ProtectionView, StatisticsView
from lamina_mmu.domain.plugged import Plug
from lamina_mmu.domain.policy import Choice
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.views import GroupView
from lamina_mmu.engines.linux.refusing import refuse
from lamina_mmu.engines.linux.state import ROOT_GROUP, State


class GroupCalls:
    """Implements `engines.group_interface.GroupEngine`, and what spaces need of groups."""

    state: State

    # ── what spaces need ─────────────────────────────────────────────────────────────────────────────────────────

    def group_of(self, name: str) -> str:
        """Returns the name of a group that there is, the root for an empty one; GROUP_UNKNOWN."""
        if name in ("", ROOT_GROUP):
            return ROOT_GROUP
        raise NotFound(f"There is no group {name}.", reason="GROUP_UNKNOWN", next_step="List what there is.")

    def enter_group(self, pid: int, name: str) -> None:
        """Moves a process into a group, which is one that `group_of` returned."""

    def reclaim_group(self, name: str, pages: int) -> Step[tuple[int, int]]:
        """Pushes pages of a group out of RAM; returns (pages, of them written)."""
        yield from ()
        raise refuse("group", "reclaim from a group")

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────

    def create_group(
        self, name: str, parent: str, limits: Mapping[str, int | None], session: Session, request: str
    ) -> Step[GroupView]:
        """Refuses."""
        yield from ()
        raise refuse("group", "keep memory groups")

    def update_group(self, name: str, limits: Mapping[str, int | None]) -> Step[GroupView]:
        """Refuses."""
        yield from ()
        raise refuse("group", "keep memory groups")

    def delete_group(self, name: str) -> None:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def group(self, name: str) -> GroupView:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def group_name(self, number: int) -> str:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def groups(self, after: int, count: int) -> list[GroupView]:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def protection(self, name: str) -> ProtectionView:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def protect_group(self, name: str, changes: Mapping[str, Any]) -> Step[ProtectionView]:
        """Refuses."""
        yield from ()
        raise refuse("group", "keep memory groups")

    def group_statistics(self, name: str) -> StatisticsView:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def watch_groups(self, names: Sequence[str], kinds: Sequence[int], ppm: int, after: int | None) -> Watch:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def group_events(self, watch: Watch, most: int) -> list[GroupEvent]:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def pressure_due(self, watch: Watch) -> int | None:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def is_watching(self, watch: Watch) -> bool:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def end_group_watch(self, watch: Watch) -> None:
        """Refuses."""
        raise refuse("group", "keep memory groups")

    def policies(self) -> list[PolicyView]:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")

    def candidates(self, group: str, after: int, count: int) -> tuple[str, list[Candidate]]:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")

    def evictions(self, group: str, space: str, before: int, count: int) -> list[Eviction]:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")

    def open_plug(self, name: str, summary: str, source: str, owner: str) -> Plug:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")

    def take_answer(self, plug: Plug, sequence: int, victims: Sequence[Choice]) -> None:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")

    def close_plug(self, plug: Plug, error: LaminaError | None) -> None:
        """Refuses."""
        raise refuse("policy", "choose victims by policies of its own")
