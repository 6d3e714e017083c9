"""Moving a page between a frame and its swap slot. Each function is one change; the bytes move inside it."""

from __future__ import annotations

from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.frames import BUSY, Use
from lamina_mmu.engines.model.machine import Busy, Machine


def swap_in(
    m: Machine, slot: int, group: int, use: Use = Use.ANONYMOUS, owner: int = 0, index: int = 0
) -> tuple[int, bool]:
    """Returns a frame with the content of `slot`, and whether it had to be read; raises Short, Busy and SWAP_CORRUPT.

    The frame is clean and knows its slot. One that is new has no reference yet.
    """
    frame = m.swap.frame[slot]
    if frame:
        if m.frames.flags[frame] & BUSY:
            raise Busy(frame_key(frame))
        return frame, False
    frame = m.take(use, group, owner, index)
    try:
        m.ram.write(frame << PAGE_SHIFT, m.swap.read(slot))
    except BaseException:
        m.release(frame)
        raise
    m.remember_copy(frame, slot)
    m.policy.add(frame, group)
    return frame, True


def swap_out(m: Machine, frame: int) -> int:
    """Returns the slot that holds the content of `frame`, written now if the frame is dirty; -1 when there is no room.

    A dirty page goes to its own slot again when no other entry counts on what is there.
    """
    slot: int = m.frames.slot[frame] - 1
    if slot >= 0 and not is_dirty(m, frame):
        return slot
    if slot >= 0 and m.swap.refs[slot]:
        m.forget_copy(frame)
        slot = -1
    if slot < 0:
        slot = m.take_slot(m.frames.group[frame])
        if slot < 0:
            return -1
        m.remember_copy(frame, slot)
        m.soil(frame)
    m.swap.write(slot, m.ram.view(frame << PAGE_SHIFT, PAGE_SIZE))
    m.remember_copy(frame, slot)
    return slot


def is_dirty(m: Machine, frame: int) -> bool:
    """Returns whether the DIRTY flag of a frame is set; D bits of entries are collected into it first."""
    return bool(m.frames.flags[frame] & 1)
