"""Huge pages of 2 MiB: private anonymous memory that one entry of level 2 maps.

To everybody else a huge page is 512 pages in 512 frames, each with its references, its place in the reverse map and in
the policy's order; only the translation is one. So it is split whenever one of its pages is changed: unmapped,
protected, swapped, moved, copied (`four_level.py`). The frame of the table for that is taken with the huge page, so
that a split never fails for want of memory.
Source: Linux, Documentation/admin-guide/mm/transhuge.rst; mm/huge_memory.c (pgtable_trans_huge_deposit).
"""

from __future__ import annotations

import numpy as np

from lamina_kit.effects import Step
from lamina_kit.paging import ACCESSED, COW, DIRTY, NX, PAGE_SHIFT, PRESENT, RW
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.frames.buddy import HUGE_ORDER
from lamina_mmu.domain.frames.table import BUSY, HUGE_FRAMES, Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.settings import HugePages
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import DONT_FORK, HUGE, LOCKED, NO_HUGE, WIPE_ON_FORK, Vma
from lamina_mmu.domain.tables.entry import WRITE, frame_of, leaf
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.engines.model.machine.state import Machine, Short
from lamina_mmu.engines.model.withdrawal.users import Taken, ranges_of

_NEVER, _ADVISED = HugePages.NEVER, HugePages.ADVISED
"""At hand for the path of each fault."""


def block_of(vpn: int) -> range:
    """Returns the pages of the 2 MiB that a page lies in."""
    first = vpn // HUGE_FRAMES * HUGE_FRAMES
    return range(first, first + HUGE_FRAMES)


def is_within(vma: Vma, block: range) -> bool:
    """Returns whether a mapping covers a block whole."""
    return vma.pages.start <= block.start and block.stop <= vma.pages.stop


def wants_huge(space: Space, vma: Vma, vpn: int) -> bool:
    """Returns whether the first touch of a page is to make a huge page: its block is one mapping's, and empty."""
    mode = space.settings.huge_pages
    if mode == _NEVER or vma.flags & NO_HUGE or vma.object or vma.grows_down:
        return False
    if mode == _ADVISED and not vma.flags & HUGE:
        return False
    return is_within(vma, block_of(vpn)) and isinstance(space.table, FourLevelTable) and space.table.missing(vpn) > 0


def map_huge(m: Machine, space: Space, vma: Vma, vpn: int) -> bool:
    """Maps a huge page of zeros at an empty block; False when no aligned 2 MiB, or no table, can be had at once.

    Nothing is reclaimed for it: a small page will do.
    """
    table = space.table
    assert isinstance(table, FourLevelTable)
    try:
        first = m.take_huge(Use.ANONYMOUS, space.group)
    except Short:
        return False
    if not first:
        return False
    try:
        spare = _build_tables(m, space, table, vpn)
    except Short:
        m.groups.charge(space.group, -HUGE_FRAMES)
        m.frames.give_back_block(first, HUGE_ORDER)
        return False
    block = block_of(vpn)
    for frame in range(first, first + HUGE_FRAMES):
        m.ram.zero(frame)
        m.policy.add(frame, space.group)
    table.map_huge(block.start // HUGE_FRAMES, leaf(first, vma.rights, False), spare)
    note_block(m, space, block, first)
    if vma.flags & LOCKED:
        for frame in range(first, first + HUGE_FRAMES):
            m.lock_frame(frame)
    return True


def _build_tables(m: Machine, space: Space, table: FourLevelTable, vpn: int) -> int:
    """Attaches the tables above a huge page; returns the frame for its own. What is attached by a Short stays."""
    while True:
        frame = m.take(Use.TABLE, space.group, space.id)
        m.ram.zero(frame)
        m.keep(frame)
        if table.missing(vpn) == 1:
            return frame
        table.attach(vpn, frame)


def note_block(m: Machine, space: Space, block: range, first: int) -> None:
    """Accounts for the pages of a block, which name the frames from `first` on from now on."""
    frames = np.arange(first, first + len(block), dtype=np.int64)
    m.rmap.add_many(frames, space.id, np.arange(block.start, block.stop, dtype=np.int64))
    m.frames.refs_array[first : first + len(block)] += 1
    space.resident += len(block)
    space.peak = max(space.peak, space.resident)


def take_over(m: Machine, space: Space, vma: Vma, vpn: int) -> bool:
    """Gives a huge page that was shared copy-on-write to its last user, whole; False when parts have other users."""
    table = space.table
    if not isinstance(table, FourLevelTable) or not table.is_huge(vpn) or not is_within(vma, block_of(vpn)):
        return False
    first = frame_of(table.load(block_of(vpn).start))
    part = slice(first, first + HUGE_FRAMES)
    frames = m.frames
    if (
        np.any(frames.refs_array[part] != 1)
        or np.any(frames.slot_array[part])
        or np.any(frames.flags_array[part] & BUSY)
    ):
        return False
    table.change_huge(vpn // HUGE_FRAMES, COW, RW if vma.rights & WRITE else 0)
    return True


def share(m: Machine, parent: Space, child: Space, number: int, spare: int) -> int:
    """Maps a huge page of the parent in the child too, copy-on-write; returns how many pages lost a right by that."""
    assert isinstance(parent.table, FourLevelTable) and isinstance(child.table, FourLevelTable)
    old = parent.table.change_huge(number, RW, COW)
    m.frames.owner[spare] = child.id
    child.table.map_huge(number, old & ~(RW | ACCESSED | DIRTY) | COW, spare)
    note_block(m, child, block_of(number * HUGE_FRAMES), frame_of(old))
    return HUGE_FRAMES if old & RW else 0


def split_for_fork(m: Machine, parent: Space) -> None:
    """Splits the huge pages that a child cannot share whole: of several mappings, left out by advice, or pinned."""
    table = parent.table
    assert isinstance(table, FourLevelTable)
    for number in table.huge_numbers(0, 1 << 35):
        block = block_of(number * HUGE_FRAMES)
        vma = parent.vmas.at(block.start << PAGE_SHIFT)
        whole = vma is not None and is_within(vma, block) and not vma.flags & (DONT_FORK | WIPE_ON_FORK)
        if not whole or m.ram.pinned_frames(frame_of(table.load(block.start)), HUGE_FRAMES):
            table.split(number)


def protect(space: Space, part: Vma, rights: int, taken: list[Taken]) -> list[int]:
    """Changes the rights of the huge pages that lie wholly in a part; returns their numbers, the others are split.

    Pages of those whose rights shrink are added to `taken`.
    """
    table = space.table
    if not isinstance(table, FourLevelTable) or not rights or not table.huge_pages:
        return []
    done: list[int] = []
    for number in table.huge_numbers(part.pages.start, part.pages.stop):
        block = block_of(number * HUGE_FRAMES)
        if not is_within(part, block):
            continue
        old = table.load(block.start)
        new = leaf(0, rights, bool(old & COW))
        old = table.change_huge(number, RW | NX, new & (RW | NX))
        if old & RW & ~new or new & NX & ~old:
            taken += [Taken(space.id, vpn, old | PRESENT) for vpn in block]
        done.append(number)
    return done


def split_range(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Splits the huge pages that a range touches; returns how many. No core has a huge translation of them then."""
    space = m.spaces.get(handle)
    table = space.table
    if not isinstance(table, FourLevelTable):
        return 0
    numbers = table.huge_numbers(start >> PAGE_SHIFT, -(-end >> PAGE_SHIFT))
    for number in numbers:
        table.split(number)
    if numbers:
        name = m.names.space(space.number)
        m.record(name, "pages.split", address=f"{start:#x}", size_bytes=end - start, huge_pages=len(numbers))
        yield Shootdown(space.root_address, ranges_of(vpn for number in numbers for vpn in block_of(number << 9)))
    return len(numbers)
