"""Views of groups and policies of the model engine."""

from __future__ import annotations

from itertools import islice

import numpy as np

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.groups.views import Origin, PolicyView, ProtectionView, StatisticsView
from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policies.decisions import Candidate
from lamina_mmu.domain.policies.plugged import PluggedPolicy
from lamina_mmu.domain.tables.entry import in_ram
from lamina_mmu.domain.tables.table import entries
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.eviction import candidate
from lamina_mmu.engines.model.reclaim.victims import is_evictable
from lamina_mmu.engines.model.reclaim.writeback import is_changed
from lamina_mmu.engines.model.views.statistics import statistics

MOST_GROUPS = 1000


def show_protection(group: Group) -> ProtectionView:
    """Returns what protects a group."""
    return ProtectionView(
        group.min_bytes,
        group.low_bytes,
        group.high_bytes,
        group.swap_high_bytes,
        group.oom_group,
        group.policy,
        dict(sorted(group.policy_values.items())),
        group.swappiness,
    )


def show_statistics(m: Machine, group: Group) -> StatisticsView:
    """Returns what a group and all below it use, counted now, and what was done to them."""
    ids = np.array([level.id for level in group.subtree()], np.int32)
    members = np.isin(np.asarray(m.frames.group), ids)
    uses = np.bincount(np.asarray(m.frames.use)[members], minlength=len(Use))
    now = m.ports.now_ns()
    below = {level.id for level in group.subtree()}
    return StatisticsView(
        group.name,
        now,
        int(uses[Use.ANONYMOUS]),
        int(uses[Use.OBJECT]),
        int(uses[Use.TABLE]),
        int(uses[Use.ALLOCATED]),
        sum(1 for frame in m.locked if m.frames.group[frame] in below),
        sum(statistics(m, space).huge for space in m.spaces if space.group in below),
        _changed(m, below),
        group.swap_usage,
        group.minor_faults,
        group.major_faults,
        group.scanned,
        group.taken,
        group.refaulted,
        dict(sorted(group.events.items())),
        group.pressure.read(now),
    )


def _changed(m: Machine, groups: set[int]) -> int:
    """Returns how many pages in RAM of supplied objects of groups differ from what their supplier has."""
    found = 0
    for entity in m.objects:
        if entity.supplied and entity.group in groups:
            for _, some in entries(entity.table, 0, entity.pages):
                found += sum(1 for entry in some.tolist() if in_ram(entry) and is_changed(m, entry))
    return found


def show_policies(m: Machine) -> list[PolicyView]:
    """Returns all policies by name."""
    users: dict[str, list[str]] = {}
    for group in m.groups.ordered():
        users.setdefault(m.policy_of(group)[0].name, []).append(group.name)
    found = []
    for name in sorted(m.policies):
        policy = m.policies[name]
        origin = Origin.PLUGGED if issubclass(policy, PluggedPolicy) else Origin.INSTALLED
        origin = Origin.BUILT_IN if name in OWN else origin
        found.append(PolicyView(policy, origin, tuple(users.get(name, ())[:MOST_GROUPS])))
    return found


def show_candidates(m: Machine, group: Group, after: int, count: int) -> list[Candidate]:
    """Returns pages of a group and all below it that may leave RAM, the first to go first, `after` of them passed."""
    ids = [level.id for level in group.subtree()]
    order = (frame for frame in m.policy.candidates(ids) if is_evictable(m, frame))
    frames = list(islice(order, after, after + count))
    return [candidate(m, frame, m.policy.age(frame), m.policy.standing(frame)) for frame in frames]
