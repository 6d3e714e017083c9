"""Making huge pages of small ones (MADV_COLLAPSE).

The pages of 2 MiB are lifted (their entries say TRANSIT), copied into 512 frames in a row, and given one entry. Those
that are missing are faulted in first, so that each has an entry to wait for. A block with a page that others share,
that is pinned, or whose mapping changes in the middle stays as it is.
Source: Linux, mm/khugepaged.c.
"""

from __future__ import annotations

from lamina_kit.effects import Step
from lamina_kit.paging import COW, DIRTY, PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.domain.frames.buddy import HUGE_ORDER
from lamina_mmu.domain.frames.table import DIRTY as DIRTY_FLAG
from lamina_mmu.domain.frames.table import HUGE_FRAMES, Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.settings import HugePages
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED, NO_HUGE, Vma
from lamina_mmu.domain.tables.entry import READ, frame_of, in_ram, leaf
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.engines.model.faults.huge import block_of, is_within, note_block
from lamina_mmu.engines.model.faults.populate import populate
from lamina_mmu.engines.model.frames.compaction import compact
from lamina_mmu.engines.model.machine.state import Machine, Short
from lamina_mmu.engines.model.withdrawal.migration import Lifted, is_movable, let_go, lift, put_down
from lamina_mmu.engines.model.withdrawal.users import withdraw


def collapse(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Makes huge pages of the aligned blocks that lie wholly in a range and in one mapping; returns their pages."""
    done = 0
    first = -(-start // (HUGE_FRAMES * PAGE_SIZE)) * HUGE_FRAMES
    for base in range(first, (end >> PAGE_SHIFT) - HUGE_FRAMES + 1, HUGE_FRAMES):
        space = m.spaces.get(handle)
        if _mapping_of(space, block_of(base)) is None or space.table.is_huge(base):
            continue
        yield from populate(m, handle, base << PAGE_SHIFT, base + HUGE_FRAMES << PAGE_SHIFT, READ)
        made = m.spaces.get(handle).table.is_huge(base)  # by the fault, when the block was empty
        if made or (yield from _collapse_block(m, handle, block_of(base))):
            done += HUGE_FRAMES
    return done


def _mapping_of(space: Space, block: range) -> Vma | None:
    """Returns the private anonymous mapping that a block lies in whole, and that may have huge pages."""
    vma = space.vmas.at(block.start << PAGE_SHIFT)
    if vma is None or vma.object or not vma.rights or vma.flags & NO_HUGE or not is_within(vma, block):
        return None
    never = space.settings.huge_pages == HugePages.NEVER or not isinstance(space.table, FourLevelTable)
    return None if never else vma


def _collapse_block(m: Machine, handle: Handle, block: range) -> Step[bool]:
    """Collapses one block, if it can be; returns whether it was."""
    space = m.spaces.get(handle)
    target = yield from _take_block(m, space)
    if not target:
        return False
    done = False
    # A reference each says that they are in use, though nobody's page yet.
    m.frames.refs_array[target : target + HUGE_FRAMES] = 1
    try:
        space = m.spaces.get(handle)
        old = _frames_of(m, space, block)
        if old:
            done = yield from _move_in(m, space, block, old, target)
        return done
    finally:
        if not done:
            m.groups.charge(m.frames.group[target], -HUGE_FRAMES)
            m.frames.give_back_block(target, HUGE_ORDER)


def _take_block(m: Machine, space: Space) -> Step[int]:
    """Returns the first of 512 free frames in a row, after compaction if need be; 0 without them."""
    group = space.group
    try:
        first = m.take_huge(Use.ANONYMOUS, group)
        if not first:
            yield from compact(m, HUGE_ORDER, 1, f"huge pages of s-{space.number}")
            first = m.take_huge(Use.ANONYMOUS, group)
        return first
    except Short:
        return 0


def _frames_of(m: Machine, space: Space, block: range) -> list[int]:
    """Returns the frames of a block's pages; none when a page is not here, not movable, or not the space's alone."""
    frames: list[int] = []
    for vpn in block:
        entry = space.table.load(vpn)
        frame = frame_of(entry)
        alone = in_ram(entry) and not entry & COW and m.frames.refs[frame] == 1
        slot = m.frames.slot[frame] - 1
        if not alone or (slot >= 0 and m.swap.refs[slot]) or not is_movable(m, frame):
            return []
        frames.append(frame)
    return frames if _mapping_of(space, block) is not None else []


def _move_in(m: Machine, space: Space, block: range, old: list[int], target: int) -> Step[bool]:
    """Moves a block's pages into the frames from `target` on; False, with all as it was, when it changed meanwhile."""
    lifted = [lift(m, frame) for frame in old]
    done = False
    held = True
    try:
        yield from withdraw(m, [page for one in lifted for page in one.taken])
        held = False
        vma = None if space.closing else _mapping_of(space, block)
        if vma is not None and not any(m.ram.pins(frame) for frame in old):
            _land(m, space, vma, lifted, block, target)
            done = True
        return done
    finally:
        if not done:
            for one in lifted:
                put_down(m, one, held=held)


def _land(m: Machine, space: Space, vma: Vma, lifted: list[Lifted], block: range, target: int) -> None:
    """Copies the pages, and puts one entry in the place of 512."""
    table = space.table
    assert isinstance(table, FourLevelTable)
    for offset, one in enumerate(lifted):
        frame, page = one.frame, one.taken[0]
        m.ram.copy_frame(frame, target + offset)
        # The copy in swap stays behind: without it only zeros are clean.
        if page.entry & DIRTY or m.frames.flags[frame] & DIRTY_FLAG or m.frames.slot[frame]:
            m.soil(target + offset)
        m.note_unmapped(space, page.vpn, frame, 0)
        m.policy.add(target + offset, m.frames.group[target])
    table.join(block.start // HUGE_FRAMES, leaf(target, vma.rights, False))
    m.frames.refs_array[target : target + HUGE_FRAMES] = 0
    note_block(m, space, block, target)
    if vma.flags & LOCKED:
        for frame in range(target, target + HUGE_FRAMES):
            m.lock_frame(frame)
    for one in lifted:
        let_go(m, one)
        m.drop(one.frame)
    m.record(m.names.page(space.number, block.start), "pages.collapsed", frame=target)
