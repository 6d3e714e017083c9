"""What protects a group and slows it down: its settings, and what goes beyond `high`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import FailedPrecondition
from lamina_kit.paging import PAGE_SIZE, USER_END
from lamina_mmu.domain.groups.events import GroupEventKind
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.policy import checked
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import in_ram
from lamina_mmu.engines.model.machine.accounting import tell, waiting
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.victims import reclaim_group

LIMITS = ("min_bytes", "low_bytes", "high_bytes", "swap_high_bytes")
"""Settings that the root group cannot have."""
CHUNK = 256
"""Most pages pushed out without a yield."""
CHARGE_BATCH = 64
"""Pages for which Linux's penalty is meant (MEMCG_CHARGE_BATCH)."""
SHORTEST_NS, LONGEST_NS = 10_000_000, 2_000_000_000
"""Penalties below are not worth a sleep; none is longer (MEMCG_MAX_HIGH_DELAY_JIFFIES, 2 s)."""


def protect_group(m: Machine, group: Group, changes: Mapping[str, Any]) -> Step[None]:
    """Changes settings by name, all or none, and reclaims what is above `high`.

    `policy_parameters` are texts by name; the others are attributes of `Group`.
    """
    if group.parent is None and any(name in changes for name in LIMITS):
        raise FailedPrecondition(
            "The root group has no limits of its own.",
            reason="GROUP_IS_ROOT",
            next_step="Protect or slow down a group below it; policy, swappiness and oom_group can be set here.",
        )
    settings = {name: value for name, value in changes.items() if name != "policy_parameters"}
    if "policy" in changes or "policy_parameters" in changes:
        settings |= _policy(m, group, changes)
    for name, value in settings.items():
        setattr(group, name, value)
    m.watch_limits()
    if "policy" in settings:
        for level in group.subtree():
            m.policy.change(level.id)
    shown = {name: value for name, value in changes.items() if name != "policy_parameters"}
    m.record(m.names.group(group.name), "group.protected", **shown)
    while group.high_bytes is not None and group.usage > group.high_bytes // PAGE_SIZE:
        pages = min(group.usage - group.high_bytes // PAGE_SIZE, CHUNK)
        result = yield from reclaim_group(m, group, pages, "high lowered")
        if not result.pages and not result.busy:
            break


def _policy(m: Machine, group: Group, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the policy and the values of its parameters, checked; a new policy forgets the old one's parameters."""
    name = changes.get("policy", group.policy)
    texts = changes.get("policy_parameters", {})
    if not name and texts:
        name = m.policy_of(group.parent or group)[0].name
    if not name:
        return {"policy": "", "policy_values": {}}
    policy = m.live_policy(name)
    keeps = "policy_parameters" not in changes and name == group.policy
    return {"policy": name, "policy_values": group.policy_values if keeps else checked(policy, texts)}


def slow_down(m: Machine, space: Space, vpn: int) -> Step[None]:
    """Reclaims from groups of a space that are beyond `high` and lets a fault on a page that is not in RAM wait.

    That is before the fault is resolved: what it finds must not change between that and its answer.
    Source: Linux mm/memcontrol.c (mem_cgroup_handle_over_high, calculate_high_delay): the penalty grows with the square
    of the overage.
    """
    if vpn * PAGE_SIZE >= USER_END or in_ram(space.table.load(vpn)):
        return
    penalty = 0
    cause = m.names.page(space.number, vpn)
    for level in m.groups.path(space.group):
        for name in ("high_bytes", "swap_high_bytes"):
            high = getattr(level, name)
            if high is None or _used(level, name) <= high // PAGE_SIZE:
                continue
            tell(m, level, GroupEventKind.HIGH, limit=high)
            if name == "high_bytes":
                with waiting(m, space):
                    pages = min(level.usage - high // PAGE_SIZE, CHUNK)
                    yield from reclaim_group(m, level, pages, cause)
            penalty = max(penalty, penalty_ns(_used(level, name), high // PAGE_SIZE))
    if penalty >= SHORTEST_NS:
        with waiting(m, space):
            yield Sleep(penalty)


def _used(group: Group, name: str) -> int:
    return group.usage if name == "high_bytes" else group.swap_usage


def penalty_ns(usage: int, high: int, pages: int = 1) -> int:
    """Returns for how long a charge of `pages` waits in a group that uses `usage` pages beyond `high`."""
    if usage <= high:
        return 0
    overage = ((usage - high) << 20) // max(1, high)
    return min(LONGEST_NS, (overage * overage * 1_000_000_000 >> 34) * pages // CHARGE_BATCH)
