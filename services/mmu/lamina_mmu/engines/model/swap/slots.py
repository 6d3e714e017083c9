"""The slot of a page that is to leave RAM, whatever its area lies on."""

from __future__ import annotations

from lamina_mmu.engines.model.machine.state import Machine


def assign_slot(m: Machine, frame: int, avoid: int = -1) -> int:
    """Returns the slot that a dirty frame is to be written to, not of the area with index `avoid`; -1 without room.

    It is its own one again when no other entry counts on what is there, and no write to it is under way.
    """
    slot: int = m.frames.slot[frame] - 1
    if slot >= 0:
        area = m.swap.area_of(slot)
        if m.swap.refs[slot] or not area.writable or area.index == avoid or slot - area.base in area.writing:
            m.forget_copy(frame)
            slot = -1
    if slot < 0:
        slot = m.take_slot(m.frames.group[frame], avoid)
        if slot < 0:
            return -1
        m.remember_copy(frame, slot)
        m.soil(frame)
    return slot


def is_dirty(m: Machine, frame: int) -> bool:
    """Returns whether the DIRTY flag of a frame is set; D bits of entries are collected into it first."""
    return bool(m.frames.flags[frame] & 1)
