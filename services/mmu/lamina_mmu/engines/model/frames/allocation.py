"""Whole frames for layers that build tables of their own: never moved, never reclaimed."""

from __future__ import annotations

from collections.abc import Sequence

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.session import Session
from lamina_mmu.engines.model.machine.state import Machine, Short
from lamina_mmu.engines.model.reclaim.victims import make_room, no_free_frame


def allocate_frames(m: Machine, count: int, owner: str, group: Group, session: Session) -> Step[tuple[int, ...]]:
    """Returns `count` zeroed frames, ascending; all or none."""
    group.members += 1  # keeps the group while this waits
    try:
        while True:
            taken: list[int] = []
            try:
                for _ in range(count):
                    taken.append(m.take(Use.ALLOCATED, group.id))
                    m.keep(taken[-1])
                return _hand_out(m, sorted(taken), owner, group, session)
            except Short as short:
                for frame in taken:
                    m.drop(frame)
                if not (yield from make_room(m, short.group, owner)):
                    short.group.oom_events += 1
                    raise no_free_frame(short.group) from None
    finally:
        group.members -= 1


def _hand_out(m: Machine, frames: list[int], owner: str, group: Group, session: Session) -> tuple[int, ...]:
    allocation = m.add_allocation(owner, session, len(frames))
    for frame in frames:
        m.frames.owner[frame] = allocation
        m.ram.zero(frame)
    m.record(m.names.frame(frames[0]), "frames.allocated", owner=owner, count=len(frames), group=group.name)
    return tuple(frames)


def free_frames(m: Machine, frames: Sequence[int], owner: str) -> None:
    """Frees frames that `allocate_frames` gave to `owner`; all or none."""
    seen: set[int] = set()
    for frame in frames:
        allocation = m.allocation_of(frame)
        if allocation is None or allocation.extent or frame in seen or allocation.owner != owner:
            raise _not_allocated(frame, owner)
        seen.add(frame)
    for frame in frames:
        m.drop_allocated(frame)
    m.record(m.names.frame(min(frames)), "frames.freed", owner=owner, count=len(frames))


def _not_allocated(frame: int, owner: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"Frame {frame} is not allocated to {owner}, or is named twice; nothing was freed.",
        reason="FRAME_NOT_ALLOCATED",
        next_step="Free each frame once, under the owner given at its allocation.",
        frame=frame,
    )
