"""Moving a page between a frame and its swap slot. Each function is one change; the bytes move inside it.

A page that is read brings its neighbours along (readahead): slots are given out in the order in which pages leave, so
what lies around a slot left RAM at the same time and tends to be needed at the same time. A neighbour waits in a frame
that no entry names yet (the swap cache): whoever faults on it finds it there, and whoever needs room may take it.
Source: Linux mm/swap_state.c (swap_cluster_readahead).
"""

from __future__ import annotations

from lamina_kit.errors import DataLoss, LaminaError, ResourceExhausted
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.effects import frame_key
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.swap.areas import LOST, PageLost
from lamina_mmu.engines.model.machine.state import Busy, Machine
from lamina_mmu.engines.model.swap.disks import read_slot
from lamina_mmu.engines.model.swap.slots import assign_slot, is_dirty


def swap_in(
    m: Machine, slot: int, group: int, use: Use = Use.ANONYMOUS, owner: int = 0, index: int = 0
) -> tuple[int, bool]:
    """Returns a frame with the content of `slot`, and whether it had to be read.

    Raises Short, Busy, PageLost and SWAP_CORRUPT. The frame is clean and knows its slot. One that is new, or was read
    ahead, has no reference yet.
    """
    if slot == LOST:
        raise PageLost
    frame = m.swap.frame[slot]
    if frame:
        if m.frames.flags[frame] & BUSY:
            raise Busy(frame_key(frame))
        if use != m.frames.use[frame]:
            m.frames.convert(frame, use, owner, index)
        return frame, m.swap.was_fetched(slot)
    if m.swap.area_of(slot).disk is not None:
        raise read_slot(m, slot, group)
    frame = _read(m, slot, group, use, owner, index)
    if m.readahead > 1:
        _read_ahead(m, slot)
    return frame, True


def _read(m: Machine, slot: int, group: int, use: Use, owner: int = 0, index: int = 0) -> int:
    frame = m.take(use, group, owner, index)
    try:
        m.ram.write(frame << PAGE_SHIFT, m.swap.read(slot))
    except BaseException:
        m.release(frame)
        raise
    m.remember_copy(frame, slot)
    m.policy.add(frame, group)
    return frame


def _read_ahead(m: Machine, slot: int) -> None:
    """Reads the neighbours of a slot that entries name, as far as no frame must be made free for it.

    An error of a neighbour is nobody's yet: whoever needs that page meets it again, and is told.
    """
    area, pages = m.swap.area_of(slot), m.readahead
    first = (slot - area.base) & ~(pages - 1)
    for place in range(first, min(first + pages, area.count)):
        near = area.base + place
        if near == slot or not area.refs[place] or area.frame[place] or place in area.corrupt:
            continue
        group = area.group[place]
        if m.frames.free <= m.high or m.groups.over(group) is not None:
            return
        try:
            _read(m, near, group, Use.ANONYMOUS)
        except LaminaError:
            return


def swap_out(m: Machine, frame: int) -> int:
    """Returns the slot that holds the content of `frame`, written now if the frame is dirty; -1 when there is no room.

    A dirty page goes to its own slot again when no other entry counts on what is there. When the medium of an area
    fails, the page goes to another area, if there is one. Not for areas on disks, whose writes take time.
    """
    slot: int = m.frames.slot[frame] - 1
    if slot >= 0 and not is_dirty(m, frame):
        return slot
    slot = assign_slot(m, frame)
    if slot < 0:
        return -1
    if m.swap.area_of(slot).disk is not None:
        m.forget_copy(frame)  # what goes to a disk was written before (`disks.write_out`), or is not to go now
        return -1
    try:
        m.swap.write(slot, m.ram.view(frame << PAGE_SHIFT, PAGE_SIZE))
    except (DataLoss, ResourceExhausted) as failure:
        slot = _elsewhere(m, frame, slot, failure)
    m.remember_copy(frame, slot)
    return slot


def _elsewhere(m: Machine, frame: int, failed: int, failure: LaminaError) -> int:
    """Writes a page to an area that works; raises the error of the failed one when there is none."""
    area = m.swap.area_of(failed)
    m.record(m.names.swap_area(area.name), "swap_area.failed", rule="a write failed", reason=failure.reason)
    m.forget_copy(frame)
    slot = assign_slot(m, frame, avoid=area.index)
    if slot < 0 or m.swap.area_of(slot).disk is not None:
        m.forget_copy(frame)
        raise failure
    try:
        m.swap.write(slot, m.ram.view(frame << PAGE_SHIFT, PAGE_SIZE))
    except BaseException:
        m.forget_copy(frame)
        raise
    return slot
