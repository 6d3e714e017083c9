"""Resizing and moving mappings with their pages (mremap).

Pages move by their entries: the new entry names the frame before the old translations are dropped. While they are
dropped the frames have one more reference, so none is evicted or handed to somebody else under a core that still finds
it at the old place.
"""

from __future__ import annotations

from dataclasses import replace

from lamina_kit.checks import Checks
from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists, LaminaError, NotFound
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, USER_END
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.spaces.remap_spec import Move
from lamina_mmu.domain.spaces.space import Kind, Space
from lamina_mmu.domain.spaces.vma import LOCKED, ON_FAULT, Vma
from lamina_mmu.domain.tables.entry import HELD, frame_of, is_swap
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import entries, exchange
from lamina_mmu.engines.model.faults.populate import fill
from lamina_mmu.engines.model.machine.state import Machine, Short
from lamina_mmu.engines.model.ranges.mapping import check_locked, check_mapped, settled, unlock_pages, unmap_range
from lamina_mmu.engines.model.reclaim.victims import make_room, no_free_frame
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw


def remap_range(m: Machine, handle: Handle, move: Move) -> Step[int]:
    """Resizes or moves a mapping; returns its first address."""
    start, end = move.address, move.address + move.old_size
    space = yield from settled(m, handle, start, max(end, start + PAGE_SIZE))
    vma = _find(space, move)
    if move.target is not None:
        _check_target(space, move)
    _check_limits(space, vma, move)
    if move.target is None and move.old_size and move.new_size <= move.old_size:
        if move.new_size < move.old_size:
            yield from unmap_range(m, handle, start + move.new_size, end)
        return start
    if move.target is None and move.old_size and _grow_in_place(m, space, vma, move):
        yield from _fill_locked(m, handle, vma, end, start + move.new_size)
        return start
    if not move.may_move:
        raise AlreadyExists(
            f"The mapping at {start:#x} cannot grow to {move.new_size} bytes where it is.",
            reason="RANGE_IN_USE",
            next_step="Let it move (may_move), or unmap what is behind it.",
        )
    return (yield from _move(m, handle, move))


def _find(space: Space, move: Move) -> Vma:
    """Returns the one mapping that the old range lies in."""
    start, end = move.address, move.address + move.old_size
    vma = space.vmas.at(start)
    if vma is None or end > vma.end:
        raise NotFound(
            f"{start:#x}-{end:#x} does not lie within one mapping.",
            reason="RANGE_NOT_MAPPED",
            next_step="Name a range of one mapping (ListMappings).",
        )
    with Checks() as check:
        again = bool(move.old_size) or vma.shared
        check.that(again, "old_size_bytes", "is 0, and the mapping is private: only a shared one can be mapped again")
    return vma


def _check_target(space: Space, move: Move) -> None:
    target = move.target or 0
    lowest = 0 if space.kind == Kind.GUEST_RAM else PAGE_SIZE
    overlaps = target < move.address + move.old_size and move.address < target + move.new_size
    with Checks() as check:
        check.that(move.may_move, "new_address", "needs may_move")
        check.range("new_address", target, lowest, USER_END - move.new_size)
        check.that(not overlaps, "new_address", f"is {target:#x}, where the range would overlap the one that moves")


def _check_limits(space: Space, vma: Vma, move: Move) -> None:
    more = move.new_size - move.old_size
    check_mapped(space, more)
    if vma.flags & LOCKED:
        check_locked(space, more)
    space.vmas.check_room(2)


def _grow_in_place(m: Machine, space: Space, vma: Vma, move: Move) -> bool:
    """Lengthens a mapping where it is; returns whether the range ends with it and what is behind it is free."""
    end = move.address + move.old_size
    new_end = move.address + move.new_size
    if end != vma.end or new_end > USER_END or space.vmas.within(end, new_end):
        return False
    offset = vma.offset + vma.size if vma.object else 0
    more = replace(vma, start=end, end=new_end, offset=offset, grows_down=False, floor=0)
    space.vmas.insert(more)
    if vma.object:
        m.objects.slot(vma.object).mappings += len(more.pages)
    return True


def _move(m: Machine, handle: Handle, move: Move) -> Step[int]:
    """Moves the pages to another place, which is free by then; what is behind the new size is unmapped first."""
    start = move.address
    if move.target is not None:
        yield from unmap_range(m, handle, move.target, move.target + move.new_size)
    kept = min(move.old_size, move.new_size)
    if kept < move.old_size:
        yield from unmap_range(m, handle, start + kept, start + move.old_size)
    while True:
        space = yield from settled(m, handle, start, max(start + kept, start + PAGE_SIZE))
        vma = _find(space, replace(move, old_size=kept) if kept else move)
        target = space.vmas.choose(move.new_size) if move.target is None else move.target
        if space.vmas.within(target, target + move.new_size):
            raise AlreadyExists(
                f"Something was mapped at {target:#x} meanwhile.", reason="RANGE_IN_USE", next_step="Try again."
            )
        try:
            _build_tables(m, space, start, target, kept)
            break
        except Short as short:
            for frame in space.table.prune(target >> PAGE_SHIFT, target + move.new_size >> PAGE_SHIFT):
                m.drop(frame)
            if not (yield from make_room(m, short.group, m.names.space(space.number))):
                raise no_free_frame(short.group) from None
    flags = vma.flags
    yield from _carry(m, space, vma, move, target, kept)
    yield from _fill_locked(m, handle, replace(vma, flags=flags), target + kept, target + move.new_size)
    return target


def _build_tables(m: Machine, space: Space, start: int, target: int, size: int) -> None:
    """Attaches the tables that the moved entries need; raises Short."""
    table = space.table
    if not isinstance(table, FourLevelTable):
        return
    shift = target - start >> PAGE_SHIFT
    for vpns, _ in entries(table, start >> PAGE_SHIFT, start + size >> PAGE_SHIFT):
        for vpn in (int(vpns[0]) + shift, int(vpns[-1]) + shift):
            while table.missing(vpn):
                frame = m.take(Use.TABLE, space.group, space.id)
                m.ram.zero(frame)
                m.keep(frame)
                table.attach(vpn, frame)


def _carry(m: Machine, space: Space, vma: Vma, move: Move, target: int, size: int) -> Step[None]:
    """Maps the new place, takes every entry there, unmaps the old one, and drops the old translations."""
    start = move.address
    unlock_pages(m, space, start, start + size)
    part = vma.cut(start, start + size) if size else vma.cut(start, start + PAGE_SIZE)
    # A stack that was moved has no room reserved below it: it grows no further.
    made = replace(part, start=target, end=target + move.new_size, grows_down=False, floor=0)
    if size:
        space.vmas.remove(start, start + size)
    space.vmas.insert(made)
    if vma.object:
        m.objects.slot(vma.object).mappings += (move.new_size - size) >> PAGE_SHIFT
    taken = _take_entries(m, space, start, target, size)
    tables = space.table.prune(start >> PAGE_SHIFT, start + size >> PAGE_SHIFT)
    try:
        yield from withdraw(m, taken)
    except LaminaError as error:
        m.record(m.names.space(space.number), "frames.lost", count=len(taken) + len(tables), reason=error.reason)
        raise
    for page in taken:
        m.drop(frame_of(page.entry))
    for frame in tables:
        m.drop(frame)


def _take_entries(m: Machine, space: Space, start: int, target: int, size: int) -> list[Taken]:
    """Moves the entries of a range; returns those of pages in RAM, each with a reference to its frame."""
    taken: list[Taken] = []
    shift = target - start >> PAGE_SHIFT
    for vpns, _ in list(entries(space.table, start >> PAGE_SHIFT, start + size >> PAGE_SHIFT)):
        for vpn in vpns.tolist():
            entry = exchange(space.table, vpn, 0)
            space.table.cas(vpn + shift, 0, entry & ~HELD)
            if is_swap(entry):
                continue
            frame = frame_of(entry)
            m.keep(frame)
            m.note_unmapped(space, vpn, frame, entry)
            m.frames.refs[frame] -= 1
            m.note_mapped(space, vpn + shift, frame)
            taken.append(Taken(space.id, vpn, entry))
    return taken


def _fill_locked(m: Machine, handle: Handle, vma: Vma, start: int, end: int) -> Step[None]:
    """Faults in what a locked mapping gained."""
    if vma.flags & LOCKED and not vma.flags & ON_FAULT and start < end:
        yield from fill(m, handle, start, end)
