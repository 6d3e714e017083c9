"""Where the pages of a range are, with their bits: mincore, pagemap and kpageflags in one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lamina_kit.effects import Step
from lamina_kit.paging import ACCESSED, COW, DIRTY, PAGE_SHIFT, RW
from lamina_mmu.domain.effects import Shootdown
from lamina_mmu.domain.frames.table import DIRTY as DIRTY_FLAG
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED
from lamina_mmu.domain.tables.entry import HELD, frame_of, in_ram, is_swap, is_transit, slot_of
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import entries, update
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.withdrawal.holders import sample
from lamina_mmu.engines.model.withdrawal.users import ranges_of

PIECE = 65_536
"""Pages of one piece."""
IS_ACCESSED, IS_DIRTY, IS_WRITABLE, IS_LOCKED = 1 << 52, 1 << 53, 1 << 54, 1 << 55
IS_SHARED, IS_HUGE, IS_COW, IS_PINNED = 1 << 56, 1 << 57, 1 << 58, 1 << 59
IN_SWAP, IN_RAM = 1 << 62, 2 << 62
"""Bits of a word; those of the contract's `ResidencyPiece`."""


def read_piece(m: Machine, space: Space, first: int, end: int, clear: bool) -> Step[bytes]:
    """Returns a word for each page `first` to `end` - 1, at most PIECE, as 8 bytes little endian.

    With `clear` the accessed bits are taken; the policy learns of them first, so that it does not take the pages for
    idle. A page in transit is told as in RAM.
    """
    yield from _ask_holder(m, space, first, end)
    words = np.zeros(end - first, "<u8")
    taken: dict[int, None] = {}
    for vpn, entry in _entries(space, first, end):
        words[vpn - first] = _word(m, space, vpn, entry)
        if clear and in_ram(entry) and entry & ACCESSED:
            taken.update(dict.fromkeys(space.table.clear_accessed(vpn)))
            m.policy.accessed(frame_of(entry))
    if taken and isinstance(space.table, FourLevelTable):
        yield Shootdown(space.root_address, ranges_of(sorted(taken)))
    return words.tobytes()


def _entries(space: Space, first: int, end: int) -> Iterator[tuple[int, int]]:
    for vpns, found in entries(space.table, first, end):
        yield from zip(vpns.tolist(), found.tolist(), strict=True)


def _ask_holder(m: Machine, space: Space, first: int, end: int) -> Step[None]:
    """Takes a holder's accessed bits into the space's own entries."""
    hold = m.holds.get(space.holder)
    if hold is None:
        return
    held = [(vpn << PAGE_SHIFT, frame_of(entry)) for vpn, entry in _entries(space, first, end) if entry & HELD]
    if not held:
        return
    frames = dict(held)
    for address in sorted((yield from sample(m, hold, held))):
        entry = space.table.load(address >> PAGE_SHIFT)
        same = frame_of(entry) == frames[address] if address in frames else bool(entry & HELD)  # else of an extent
        if not space.closing and in_ram(entry) and same:
            update(space.table, address >> PAGE_SHIFT, 0, ACCESSED)


def _word(m: Machine, space: Space, vpn: int, entry: int) -> int:
    vma = space.vmas.at(vpn << PAGE_SHIFT)
    locked = IS_LOCKED if vma is not None and vma.flags & LOCKED else 0
    if is_swap(entry):
        slot = slot_of(entry)
        return slot | IN_SWAP | (IS_COW if m.swap.refs[slot] > 1 else 0) | locked
    if not in_ram(entry) and not is_transit(entry):
        return 0
    frame = frame_of(entry)
    dirty = entry & DIRTY or m.frames.flags[frame] & DIRTY_FLAG
    sharers = m.frames.refs[frame] - (m.frames.use[frame] == Use.OBJECT)
    word: int = frame | IN_RAM | locked
    word |= IS_ACCESSED if entry & ACCESSED else 0
    word |= IS_DIRTY if dirty else 0
    word |= IS_WRITABLE if entry & RW else 0
    word |= IS_SHARED if sharers > 1 else 0
    word |= IS_COW if entry & COW else 0
    word |= IS_HUGE if space.table.is_huge(vpn) else 0
    return word | (IS_PINNED if m.ram.pins(frame) else 0)
