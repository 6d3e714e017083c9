"""Taking advice on ranges (madvise)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from lamina_kit.effects import Sleep, Step, WaitFor
from lamina_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from lamina_kit.paging import COW, DIRTY, PAGE_SHIFT
from lamina_mmu.domain.frames.table import DIRTY as DIRTY_FLAG
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.spaces.advice import FLAGS, PRIVATE_ONLY, TAKES_AWAY, Advice
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import LOCKED, Vma
from lamina_mmu.domain.supply import NoContent, Refused
from lamina_mmu.domain.swap.areas import LOST, PageLost
from lamina_mmu.domain.tables.entry import HELD, READ, WRITE, frame_of, in_ram, is_swap, rights_allow, slot_of
from lamina_mmu.domain.tables.table import entries, exchange, update
from lamina_mmu.engines.model.faults.populate import CHUNK, populate
from lamina_mmu.engines.model.machine.state import Busy, Machine, Short
from lamina_mmu.engines.model.objects.objects import object_frame
from lamina_mmu.engines.model.ranges.collapse import collapse
from lamina_mmu.engines.model.ranges.mapping import drop_pages, frames_within, settled
from lamina_mmu.engines.model.reclaim.eviction import evict
from lamina_mmu.engines.model.reclaim.victims import is_evictable, make_room, no_free_frame, sample_frames
from lamina_mmu.engines.model.swap.pages import swap_in
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw


def advise(m: Machine, handle: Handle, start: int, end: int, advice: Advice) -> Step[int]:
    """Takes advice for what is mapped of a range; returns how many pages it dropped, moved or brought in at once.

    RANGE_NOT_MAPPED, for a hole, comes when the rest is done.
    """
    space = yield from settled(m, handle, start, end)
    hole = space.vmas.covers(start, end)
    for vma in space.vmas.within(start, end):
        _check(m, space, _part(vma, start, end), advice)
    if advice in FLAGS:
        put, clear = FLAGS[advice]
        space.vmas.change(start, end, lambda vma: vma.with_flags(put, clear))
        done = 0
    else:
        done = yield from _WORK[advice](m, handle, start, end)
    if hole < end:
        raise NotFound(
            f"Nothing is mapped at {hole:#x}; the advice was taken for what is mapped of the range.",
            reason="RANGE_NOT_MAPPED",
            next_step="Name mapped ranges only (ListMappings).",
            address=f"{hole:#x}",
        )
    return done


def _part(vma: Vma, start: int, end: int) -> Vma:
    return vma.cut(max(start, vma.start), min(end, vma.end))


def _check(m: Machine, space: Space, part: Vma, advice: Advice) -> None:
    """Refuses advice that a mapping cannot have, or that what is locked or pinned forbids."""
    wrong = ""
    if advice in PRIVATE_ONLY and (part.object or part.shared):
        wrong = "is for private anonymous memory"
    elif advice == Advice.POPULATE_READ and not rights_allow(part.rights, READ):
        wrong = "needs the right to read"
    elif advice == Advice.POPULATE_WRITE and not rights_allow(part.rights, WRITE):
        wrong = "needs the right to write"
    if wrong:
        raise InvalidArgument(
            f"{advice.name} {wrong}; the mapping {part.start:#x}-{part.end:#x} of s-{space.number} is not so.",
            reason="ADVICE_NOT_POSSIBLE",
            next_step="Look at the mappings of the range (ListMappings).",
        )
    if advice not in TAKES_AWAY:
        return
    pinned = next((frame for frame in frames_within(space, part) if m.ram.pins(frame)), 0) if m.pins else 0
    if part.flags & LOCKED or pinned:
        raise FailedPrecondition(
            f"The mapping {part.start:#x}-{part.end:#x} of s-{space.number} is {'pinned' if pinned else 'locked'}.",
            reason="RANGE_LOCKED",
            next_step="Unlock or unpin it first.",
        )


def _dont_need(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Drops pages: private ones are gone, those of objects stay with their object."""
    space = m.spaces.get(handle)
    parts = [_part(vma, start, end) for vma in space.vmas.within(start, end)]
    return (yield from drop_pages(m, space, parts))


def _free(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Lets pages be dropped without a write: what was in swap is gone, what is in RAM counts as clean zeros.

    The next write sets D again, because the translations are gone, and so keeps the page. A page that others share
    (after a fork) is passed over, as Linux does.
    """
    space = m.spaces.get(handle)
    taken: list[Taken] = []
    freed = 0
    for vpns, found in entries(space.table, start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        for vpn, entry in zip(vpns.tolist(), found.tolist(), strict=True):
            if is_swap(entry):
                exchange(space.table, vpn, 0)
                m.drop_slot(slot_of(entry))
                space.swapped -= 1
                freed += 1
            elif in_ram(entry) and not entry & COW and m.frames.refs[frame_of(entry)] == 1:
                m.forget_copy(frame_of(entry))
                m.frames.flags[frame_of(entry)] &= ~DIRTY_FLAG & 0xFF
                taken.append(Taken(space.id, vpn, update(space.table, vpn, DIRTY | HELD, 0)))
                freed += 1
    yield from withdraw(m, taken)
    for page in taken:
        if page.entry & HELD and not space.closing:
            _clean_again(m, space, page)
    return freed


def _clean_again(m: Machine, space: Space, page: Taken) -> None:
    """Takes back what a holder's acknowledgement made of a page that may be dropped, unless it was granted anew."""
    frame, now = frame_of(page.entry), space.table.load(page.vpn)
    if in_ram(now) and frame_of(now) == frame and not now & (DIRTY | HELD) and m.frames.refs[frame] == 1:
        m.frames.flags[frame] &= ~DIRTY_FLAG & 0xFF


def _cold(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Moves pages that nobody else maps to the old end of their group's order."""
    moved = _movable(m, m.spaces.get(handle), start, end)
    yield from sample_frames(m, moved)
    space = m.spaces.get(handle)
    cooled = [frame for frame in reversed(moved) if _is_of(m, space, frame)]
    for frame in cooled:
        m.policy.cool(frame)
    return len(cooled)


def _page_out(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Pushes pages out that nobody else maps, as far as they can go."""
    gone = 0
    wanted = _movable(m, m.spaces.get(handle), start, end)
    for first in range(0, len(wanted), CHUNK):
        space = m.spaces.get(handle)
        m.trim_swap(space.group, CHUNK)
        mine = [frame for frame in wanted[first : first + CHUNK] if _is_of(m, space, frame) and m.policy.knows(frame)]
        victims = [m.policy.take(frame, "advice to page out") for frame in mine if is_evictable(m, frame)]
        if victims:
            cause = f"advice to page out of s-{space.number}"
            result = yield from evict(m, victims, [], m.groups.get(space.group).name, cause)
            gone += result.pages
    return gone


def _is_of(m: Machine, space: Space, frame: int) -> bool:
    """Returns whether a space, and nobody else, still maps a frame."""
    return [number for number, _ in m.rmap.of(frame)] == [space.id]


def _movable(m: Machine, space: Space, start: int, end: int) -> list[int]:
    """Returns the frames of a range that only this space maps, by address."""
    found: list[int] = []
    for _, some in entries(space.table, start >> PAGE_SHIFT, end >> PAGE_SHIFT):
        for entry in some.tolist():
            frame = frame_of(entry)
            if in_ram(entry) and m.frames.use[frame] in (Use.ANONYMOUS, Use.OBJECT) and m.rmap.count(frame) == 1:
                found.append(frame)
    return list(dict.fromkeys(found))


def _will_need(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    """Brings pages of swap and of objects into RAM; they are mapped when they are accessed.

    It ends where a supplier has no content, as a hint may: whoever needs that page is told.
    """
    space = m.spaces.get(handle)
    missing = sum(1 for _ in _absent(m, space, start, end))
    told: object = None
    while not isinstance(told, Refused):
        space = m.spaces.get(handle)
        try:
            for bring in islice(_absent(m, space, start, end), CHUNK):
                bring()
            if next(_absent(m, space, start, end), None) is None:
                break
            yield Sleep(0)
        except Busy as busy:
            told = yield WaitFor(busy.key)
        except (NoContent, PageLost):
            break
        except Short as short:
            if not (yield from make_room(m, short.group, m.names.space(space.number))):
                raise no_free_frame(short.group) from None
    space = m.spaces.get(handle)
    done = max(0, missing - sum(1 for _ in _absent(m, space, start, end)))
    space.read_ahead += done
    return done


def _absent(m: Machine, space: Space, start: int, end: int) -> Iterator[Callable[[], object]]:
    """Yields what brings each page of a range in that lies in swap, its object's or its own, or with a supplier."""
    for vma in space.vmas.within(start, end):
        part = _part(vma, start, end)
        for _, found in entries(space.table, part.pages.start, part.pages.stop):
            for entry in found.tolist():
                if is_swap(entry) and slot_of(entry) != LOST and not m.swap.frame[slot_of(entry)]:
                    yield partial(swap_in, m, slot_of(entry), space.group)
        if part.object:
            entity = m.objects.slot(part.object)
            first = part.object_page(part.pages.start)
            for page in _elsewhere(entity, first, min(first + len(part.pages), entity.pages)):
                yield partial(object_frame, m, entity, page)


def _elsewhere(entity: MemoryObject, first: int, end: int) -> Iterator[int]:
    """Yields the pages of an object that lie in swap or, of one that is supplied, nowhere."""
    if entity.supplied:
        yield from (page for page in range(first, end) if not entity.table.load(page))
    for numbers, found in entries(entity.table, first, end):
        for page, entry in zip(numbers.tolist(), found.tolist(), strict=True):
            if is_swap(entry) and slot_of(entry) != LOST:
                yield page


def _populate_read(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    return (yield from populate(m, handle, start, end, READ))


def _populate_write(m: Machine, handle: Handle, start: int, end: int) -> Step[int]:
    return (yield from populate(m, handle, start, end, WRITE))


_WORK: dict[Advice, Callable[[Machine, Handle, int, int], Step[int]]] = {
    Advice.WILL_NEED: _will_need,
    Advice.DONT_NEED: _dont_need,
    Advice.FREE: _free,
    Advice.COLD: _cold,
    Advice.PAGE_OUT: _page_out,
    Advice.COLLAPSE: collapse,
    Advice.POPULATE_READ: _populate_read,
    Advice.POPULATE_WRITE: _populate_write,
}
