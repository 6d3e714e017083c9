"""Views of the model engine's objects."""

from __future__ import annotations

from itertools import islice

import numpy as np

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.views import FrameView, GroupView, MemoryView, ObjectView, SpaceView
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.eviction import may_be_dirty

MOST_FRAME_MAPPINGS = 1000
CHARGED = (Use.ANONYMOUS, Use.OBJECT, Use.TABLE, Use.ALLOCATED)
"""Uses that a memory group pays for."""
LOOK = 1 << 16
"""Frames that a list looks at in one piece."""


def show_space(m: Machine, space: Space) -> SpaceView:
    """Returns a space's view."""
    return SpaceView(
        space.number,
        space.handle,
        space.kind,
        m.groups.get(space.group).name,
        space.root_address,
        space.label,
        space.resident,
        space.swapped,
        space.table_frames,
        space.minor_faults,
        space.major_faults,
        space.cow_faults,
        space.refused_faults,
    )


def show_object(m: Machine, entity: MemoryObject) -> ObjectView:
    """Returns an object's view."""
    group = m.groups.get(entity.group).name
    return ObjectView(entity.number, entity.handle, entity.size, group, entity.label, entity.resident, entity.swapped)


def show_group(group: Group) -> GroupView:
    """Returns a group's view."""
    return GroupView(
        group.number,
        group.name,
        group.parent.name if group.parent else "",
        group.max_bytes,
        group.swap_max_bytes,
        group.usage,
        group.swap_usage,
        group.peak,
        group.max_events,
        group.oom_events,
        group.reclaimed,
    )


def show_memory(m: Machine) -> MemoryView:
    """Returns the state of the host's memory."""
    return MemoryView(
        m.frames.count,
        m.frames.free,
        tuple((use, m.frames.by_use[use]) for use in Use if m.frames.by_use[use]),
        m.swap.count,
        m.swap.free,
        m.swap.written,
        m.swap.read_back,
        m.dropped,
        m.default_policy.name,
    )


def show_frame(m: Machine, frame: int, mappings: int = MOST_FRAME_MAPPINGS) -> FrameView:
    """Returns a frame's view; FRAME_OUTSIDE_RAM when there is none such."""
    frames = m.frames
    frames.check(frame)
    use = Use(frames.use[frame])
    places = islice(m.rmap.of(frame), mappings)
    return FrameView(
        frame,
        use,
        tuple((m.spaces.slot(space).number, vpn) for space, vpn in places),
        m.rmap.count(frame),
        m.groups.get(frames.group[frame]).name if use in CHARGED else "",
        m.ram.pins(frame),
        _owner(m, frame, use),
        use in (Use.ANONYMOUS, Use.OBJECT) and may_be_dirty(m, frame),
        frames.slot[frame] - 1,
    )


def show_frames(m: Machine, use: Use | None, group: Group | None, after: int, count: int) -> list[FrameView]:
    """Returns up to `count` frames with numbers above `after`, by number, each with its newest mapping alone.

    Only those of one use (None: of any but FREE) and of one group (None: of all).
    """
    frames = m.frames
    end = frames.count if use == Use.FREE else frames.top
    found: list[FrameView] = []
    start = after + 1
    while start < end and len(found) < count:
        stop = min(start + LOOK, end)
        uses = frames.uses[start:stop]
        chosen = uses != Use.FREE if use is None else uses == use
        if group is not None:
            chosen &= (frames.group_array[start:stop] == group.id) & np.isin(uses, CHARGED)
        numbers = (np.flatnonzero(chosen) + start)[: count - len(found)].tolist()
        found += [show_frame(m, frame, 1) for frame in numbers]
        start = stop
    return found


def _owner(m: Machine, frame: int, use: Use) -> str:
    owner = m.frames.owner[frame]
    if use == Use.ALLOCATED:
        allocation = m.allocation_of(frame)
        return allocation.owner if allocation is not None else ""
    if use == Use.OBJECT:
        return m.names.object(m.objects.slot(owner).number)
    return m.names.space(m.spaces.slot(owner).number) if use == Use.TABLE and owner else ""
