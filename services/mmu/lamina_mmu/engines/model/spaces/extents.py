"""Extents that a holder has: granted whole for a second stage with large pages, revoked whole, or split into pages.

    want extent ──▶ an empty block: frames in a row, zeroed          ─┐
                    a block whose pages are in a row already          ├─▶ grant of the extent, its pages HELD
                    neither, or no such frames to be had ─▶ the page ─┘   alone, as any other want
    a page of it goes ──▶ split: A and D of the whole ──▶ the page is revoked as any other
    all of it goes    ──▶ revoked whole

To the MMU an extent stays so many pages in so many frames, each with its own place in the policy's order; what is one
is the holder's entry, with one A and one D bit. So an extent that is reclaimed is split first, as a huge page is on
Linux. One that is pinned is out of the policy's order and in its frames until it is given up, or the hold ends.
Source: Intel SDM vol. 3, 30.3.2 (EPT entries that map 2 MiB and 1 GiB pages).
"""

from __future__ import annotations

import numpy as np

from lamina_kit.effects import Sleep, Step
from lamina_kit.errors import LaminaError
from lamina_kit.paging import ADDR_MASK, COW, NX, PAGE_SHIFT, PRESENT, RW
from lamina_mmu.domain.frames.table import BUSY, HUGE_FRAMES, Use
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.hold import GrantExtent, HeldExtent, Hold
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED, Vma
from lamina_mmu.domain.tables.entry import HELD, frame_of, leaf, permits, rights_allow
from lamina_mmu.domain.tables.sparse import SparseTable
from lamina_mmu.engines.model.faults.huge import is_within, note_block
from lamina_mmu.engines.model.frames.compaction import compact
from lamina_mmu.engines.model.machine.accounting import note_fault
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.ranges.mapping import check_locked
from lamina_mmu.engines.model.withdrawal.holders import extent_gone

ZEROED_AT_ONCE = 4096
"""Frames that are zeroed before others get their turn (16 MiB, some milliseconds)."""


def grant_extent(m: Machine, hold: Hold, sequence: int, address: int, access: int, size: int, pin: bool) -> Step[bool]:
    """Grants the extent of `size` bytes around an address; False when there is none, and the page alone is to do.

    Nothing is reclaimed for it; pages are moved together for it once, when enough frames are free.
    """
    if _grant_held(m, hold, sequence, address, access, pin):
        return True
    pages = size >> PAGE_SHIFT
    first = (address >> PAGE_SHIFT) // pages * pages
    block = range(first, first + pages)
    found = _mapping(m, hold, block, access)
    if found is None:
        return False
    space, vma = found
    if not _may_pin(m, space, pages) if pin else _has_pinned(hold, block):
        return False
    frame = _in_a_row(m, space, vma, block)
    if not frame and _is_empty(space, block):
        frame = yield from _fill(m, hold, block, access)
        if hold.closing or (found := _mapping(m, hold, block, access)) is None:
            return hold.closing
        space, vma = found
        frame = frame and _in_a_row(m, space, vma, block)
    if not frame or (not _may_pin(m, space, pages) if pin else _has_pinned(hold, block)):
        return False
    _hold_whole(m, hold, space, block)
    extent = HeldExtent(first << PAGE_SHIFT, frame, pages, pin)
    hold.extents[extent.address] = extent
    if pin:
        _pin(m, extent)
    _post(m, hold, sequence, space.table.load(first), extent)
    m.record(m.names.space(space.number), "extent.granted", address=f"{extent.address:#x}", size_bytes=size, pinned=pin)
    return True


def _grant_held(m: Machine, hold: Hold, sequence: int, address: int, access: int, pin: bool) -> bool:
    """Grants an extent again that the holder has already: two of its cores wanted it at once."""
    extent = hold.extent_of(address)
    if extent is None or (pin and not extent.pinned):
        return False
    space = m.spaces.slot(hold.space)
    entry = space.table.load(address >> PAGE_SHIFT)
    if not permits(entry, access):
        return False
    _post(m, hold, sequence, entry, extent)
    return True


def _post(m: Machine, hold: Hold, sequence: int, entry: int, extent: HeldExtent) -> None:
    writable, executable = bool(entry & RW), not entry & NX
    grant = GrantExtent(sequence, extent.address, extent.frame, extent.size, writable, executable, extent.pinned)
    m.post(hold, grant)


def _mapping(m: Machine, hold: Hold, block: range, access: int) -> tuple[Space, Vma] | None:
    """Returns the space and the one mapping of anonymous memory that covers a block and allows an access."""
    space = m.spaces.slot(hold.space)
    vma = space.vmas.at(block.start << PAGE_SHIFT)
    if vma is None or vma.object or not is_within(vma, block) or not rights_allow(vma.rights, access):
        return None
    return space, vma


def _is_empty(space: Space, block: range) -> bool:
    return not any(live.any() for _, live in space.table.leaves(block.start, block.stop))


def _in_a_row(m: Machine, space: Space, vma: Vma, block: range) -> int:
    """Returns the first frame of a block whose pages lie in aligned frames in a row, in nobody's hands; else 0."""
    assert isinstance(space.table, SparseTable)
    found = space.table.block(block)
    frame = frame_of(int(found[0]))
    if not found[0] or frame % len(block):
        return 0
    frames = np.arange(frame, frame + len(block), dtype=np.uint64) << np.uint64(PAGE_SHIFT)
    rights = leaf(0, vma.rights, False) & (PRESENT | RW | NX)
    wanted = frames | np.uint64(rights)
    if np.any((found & np.uint64(ADDR_MASK | PRESENT | RW | NX | COW)) != wanted):
        return 0
    return 0 if np.any(m.frames.flags_array[frame : frame + len(block)] & BUSY) else frame


def _fill(m: Machine, hold: Hold, block: range, access: int) -> Step[int]:
    """Maps zeroed frames in a row at an empty block; returns the first, 0 when they cannot be had.

    Moving pages and zeroing a large extent let others have their turn: what was found before is looked up again.
    """
    space = m.spaces.slot(hold.space)
    group, order = m.groups.get(space.group), len(block).bit_length() - 1
    if m.groups.over(group.id, len(block)) is not None or m.frames.free - len(block) < m.low:
        return 0
    group.members += 1  # keeps the group while this waits
    try:
        if not m.frames.buddy.of_order(order):
            yield from compact(m, order, 1, m.names.space(space.number), most=len(block) // 2)
        if m.groups.over(group.id, len(block)) is not None:
            return 0
        frame = m.frames.take_block(order, Use.ANONYMOUS, group.id)
        return (yield from _fill_from(m, hold, block, access, frame, group)) if frame else 0
    finally:
        group.members -= 1


def _fill_from(m: Machine, hold: Hold, block: range, access: int, frame: int, group: Group) -> Step[int]:
    """Zeroes frames from `frame` on and maps them at a block, if it is still empty; gives them back otherwise."""
    m.groups.charge(group.id, len(block))
    m.frames.refs_array[frame : frame + len(block)] = 1  # nobody may move them meanwhile
    done = False
    try:
        for one in range(frame, frame + len(block)):
            m.ram.zero(one)
            if one % ZEROED_AT_ONCE == ZEROED_AT_ONCE - 1 and len(block) > HUGE_FRAMES:
                yield Sleep(0)
        found = None if hold.closing else _mapping(m, hold, block, access)
        if found is None or not _is_empty(found[0], block) or found[0].group != group.id:
            return 0
        done = True
        _install(m, *found, block, frame)
        return frame
    finally:
        if not done:
            m.groups.charge(group.id, -len(block))
            m.frames.give_back_block(frame, len(block).bit_length() - 1)


def _install(m: Machine, space: Space, vma: Vma, block: range, frame: int) -> None:
    """Names the frames of a block from `frame` on by the entries of a space."""
    assert isinstance(space.table, SparseTable)
    entries = np.arange(frame, frame + len(block), dtype=np.uint64) << np.uint64(PAGE_SHIFT)
    space.table.put(block, entries | np.uint64(leaf(0, vma.rights, False)))
    m.frames.refs_array[frame : frame + len(block)] = 0
    for one in range(frame, frame + len(block)):
        m.policy.add(one, space.group)
    note_block(m, space, block, frame)
    if vma.flags & LOCKED:
        for one in range(frame, frame + len(block)):
            m.lock_frame(one)
    space.minor_faults += 1
    note_fault(m, space, vma, block.start, Outcome.ZERO_FILLED, False)


def _has_pinned(hold: Hold, block: range) -> bool:
    return any(one.pinned and block.start <= one.address >> PAGE_SHIFT < block.stop for one in hold.extents.values())


def _hold_whole(m: Machine, hold: Hold, space: Space, block: range) -> None:
    """Marks the pages of a block HELD as one. What the holder had of it before counts as written where it could be."""
    assert isinstance(space.table, SparseTable)
    found = space.table.block(block)
    for entry in found[(found & np.uint64(HELD)) != 0].tolist():
        if entry & RW:
            m.soil(frame_of(entry))
    for address in [one for one in hold.extents if block.start <= one >> PAGE_SHIFT < block.stop]:
        extent_gone(m, hold.extents.pop(address))
    space.table.put(block, found | np.uint64(HELD))


def _may_pin(m: Machine, space: Space, pages: int) -> bool:
    """Returns whether the limits of pins (half of RAM) and of locks leave room for an extent."""
    if m.pinned_frames + pages > m.frames.count // 2:
        return False
    try:
        check_locked(space, pages << PAGE_SHIFT)
    except LaminaError:
        return False
    return True


def _pin(m: Machine, extent: HeldExtent) -> None:
    for frame in range(extent.frame, extent.frame + extent.pages):
        m.ram.pin(frame)
        m.lock_frame(frame)
    m.pinned_frames += extent.pages
