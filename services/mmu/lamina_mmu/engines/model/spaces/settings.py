"""Changing what a space does: its settings, its label, and the group that is charged."""

from __future__ import annotations

from dataclasses import replace

from lamina_kit.errors import ResourceExhausted
from lamina_kit.paging import PAGE_SIZE, USER_END
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import frame_of, in_ram, is_swap, slot_of
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import entries
from lamina_mmu.domain.views import SettingsChange, SettingsView
from lamina_mmu.engines.model.machine.state import Machine


def show_settings(m: Machine, space: Space) -> SettingsView:
    """Returns the settings of a space."""
    return SettingsView(m.groups.get(space.group).name, space.label, space.settings)


def update_settings(m: Machine, space: Space, change: SettingsChange) -> SettingsView:
    """Changes what is given; all or nothing."""
    if change.group is not None:
        _move_charges(m, space, m.groups.named(change.group))
    if change.label is not None:
        space.label = change.label
    if change.fields:
        space.settings = replace(space.settings, **change.fields)
        space.vmas.set_guard_gap(space.settings.stack_guard_pages * PAGE_SIZE)
    m.record(m.names.space(space.number), "space.updated", fields=" ".join(change.named))
    return show_settings(m, space)


def _move_charges(m: Machine, space: Space, group: Group) -> None:
    """Moves the charges of a space's private pages, slots and tables to another group; GROUP_LIMIT if they do not fit.

    What it shares with others stays where it was charged first, as in cgroups.
    """
    if group.id == space.group:
        return
    frames, slots = _private(m, space)
    _check_fit(m, m.groups.get(space.group), group, len(frames), len(slots))
    tables = [frame for frame in frames if m.frames.use[frame] == Use.TABLE]
    pages = [frame for frame in frames if m.frames.use[frame] == Use.ANONYMOUS]
    for frame in (*tables, *sorted(pages, key=m.policy.age, reverse=True)):
        m.groups.charge(m.frames.group[frame], -1)
        m.groups.charge(group.id, 1)
        m.frames.group[frame] = group.id
        if m.frames.use[frame] == Use.ANONYMOUS and frame not in m.locked:
            m.policy.remove(frame)
            m.policy.add(frame, group.id)
    for slot in slots:
        m.groups.charge_swap(m.swap.group[slot], -1)
        m.groups.charge_swap(group.id, 1)
        m.swap.group[slot] = group.id
    m.groups.get(space.group).members -= 1
    group.members += 1
    space.group = group.id


def _private(m: Machine, space: Space) -> tuple[list[int], list[int]]:
    """Returns the frames and the slots that are charged to the space's group for nobody but it."""
    frames: list[int] = []
    slots: list[int] = []
    for _, found in entries(space.table, 0, USER_END >> 12):
        for entry in found.tolist():
            if is_swap(entry):
                slots += [slot_of(entry)] if m.swap.refs[slot_of(entry)] == 1 else []
            elif in_ram(entry):
                frame = frame_of(entry)
                if m.frames.use[frame] == Use.ANONYMOUS and m.frames.refs[frame] == 1:
                    frames.append(frame)
                    slots += [m.frames.slot[frame] - 1] if m.frames.slot[frame] else []
    if isinstance(space.table, FourLevelTable):
        frames += space.table.table_frames()
    of_group = space.group
    return (
        [frame for frame in frames if m.frames.group[frame] == of_group],
        [slot for slot in dict.fromkeys(slots) if m.swap.group[slot] == of_group],
    )


def _check_fit(m: Machine, old: Group, new: Group, pages: int, slots: int) -> None:
    """Refuses when the groups that gain have no room; those above both neither gain nor lose."""
    common = [level.id for level in old.path]
    for level in new.path:
        if level.id in common:
            return
        ram, swap = level.max_bytes, level.swap_max_bytes
        over = ram is not None and (level.usage + pages) * PAGE_SIZE > ram
        if over or (swap is not None and (level.swap_usage + slots) * PAGE_SIZE > swap):
            raise ResourceExhausted(
                f"{pages} pages in RAM and {slots} in swap do not fit into the group {level.name}.",
                reason="GROUP_LIMIT",
                next_step="Raise its limits, or reclaim from the space first.",
                group=m.names.group(level.name),
            )
