"""Changing memory groups, and pushing pages out on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition
from lamina_mmu.domain.groups.events import NEWS
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.session import Session
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.victims import BATCH, reclaim_group, reclaim_space

CHUNK = 256
"""Most pages pushed out without a yield, so that others are not kept waiting."""


def create_group(m: Machine, name: str, parent: Group, limits: Mapping[str, int | None], session: Session) -> Group:
    """Makes a group under `parent`."""
    group = m.groups.create(name, parent, limits.get("max_bytes"), limits.get("swap_max_bytes"))
    group.session = session
    m.record(m.names.group(name), "group.created", owner=session.owner, parent=parent.name, **dict[str, Any](limits))
    return group


def delete_group(m: Machine, group: Group) -> None:
    """Removes an empty group."""
    m.groups.delete(group)
    m.policy.forget_group(group.id)
    m.ports.wake(NEWS, None)
    m.record(m.names.group(group.name), "group.deleted")


def update_group(m: Machine, group: Group, limits: Mapping[str, int | None]) -> Step[None]:
    """Sets limits (`max_bytes`, `swap_max_bytes`; None: no limit) and reclaims what lies above a lower one."""
    if group.parent is None:
        raise FailedPrecondition(
            "The root group has no limits of its own.",
            reason="GROUP_IS_ROOT",
            next_step="Limit a group below it.",
        )
    for name, value in limits.items():
        setattr(group, name, value)
    for level in group.subtree():
        m.policy.resize(level.id, m.capacity(level.id))
    m.record(m.names.group(group.name), "group.updated", **dict[str, Any](limits))
    while group.limit is not None and group.usage > group.limit:
        pages = min(group.usage - group.limit, CHUNK)
        result = yield from reclaim_group(m, group, pages, "limit lowered")
        if not result.pages and not result.busy:
            break


def reclaim_on_demand(m: Machine, space: Space | None, group: Group, pages: int) -> Step[ReclaimResult]:
    """Pushes up to `pages` out of a space, or of a group and all under it."""
    gone = written = 0
    while gone < pages:
        chunk = min(pages - gone, CHUNK)
        if space is None:
            result = yield from reclaim_group(m, group, chunk, "asked for")
        else:
            result = yield from reclaim_space(m, space, chunk, "asked for")
        gone += result.pages
        written += result.written
        if not result.pages and not result.busy:
            break
    return ReclaimResult(gone, written)


def reclaim_ahead(m: Machine) -> Step[None]:
    """Brings the free frames back over the high watermark, so that faults find one at once."""
    while m.frames.free < m.high:
        pages = max(BATCH, min(m.high - m.frames.free, CHUNK))
        pages = max(1, min(pages, m.policy.population([group.id for group in m.groups.ordered()]) // 4))
        result = yield from reclaim_group(m, m.groups.root, pages, "free frames below the watermark")
        if not result.pages and not result.busy:
            return
