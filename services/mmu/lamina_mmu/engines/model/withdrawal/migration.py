"""Moving pages from their frames to others, for compaction and for frames whose memory fails.

While a page moves each entry that named its frame says TRANSIT, as when it is evicted: whoever faults on it waits, and
an end in the middle puts everything back. What moves keeps its group, its copy in swap and its users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lamina_kit.effects import Step
from lamina_kit.paging import ADDR_MASK, DIRTY, PAGE_SHIFT, PRESENT
from lamina_mmu.domain.effects import isolation_key
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.tables.entry import HELD, frame_of, in_ram, transit
from lamina_mmu.domain.tables.table import exchange
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw


@dataclass(slots=True)
class Lifted:
    """A page that was taken away from its users: its frame, the entries that named it, what it is a page of."""

    frame: int
    taken: list[Taken] = field(default_factory=list)
    entity: MemoryObject | None = None
    page: int = 0


@contextmanager
def isolated(m: Machine, first: int, count: int) -> Iterator[None]:
    """Keeps the free frames of a range out of circulation, and wakes whoever waits for the end of that."""
    m.frames.isolate(first, count)
    try:
        yield
    finally:
        if m.frames.is_isolated(first):
            m.frames.rejoin(first)
        m.ports.wake(isolation_key(first), None)


def is_movable(m: Machine, frame: int) -> bool:
    """Returns whether the page in a frame may move now: in nobody's hands, unpinned, named by plain entries alone."""
    frames = m.frames
    if frames.use[frame] not in (Use.ANONYMOUS, Use.OBJECT) or frames.flags[frame] & BUSY or m.ram.pins(frame):
        return False
    places = list(m.rmap.of(frame))
    if frames.refs[frame] != len(places) + (frames.use[frame] == Use.OBJECT):
        return False
    found = (m.spaces.slot(space).table.load(vpn) for space, vpn in places)
    return all(in_ram(entry) and frame_of(entry) == frame for entry in found)


def lift(m: Machine, frame: int) -> Lifted:
    """Makes every entry of a movable frame say TRANSIT; the caller withdraws what was taken."""
    lifted = Lifted(frame)
    m.set_busy(frame, True)
    for space_id, vpn in list(m.rmap.of(frame)):
        entry = exchange(m.spaces.slot(space_id).table, vpn, transit(frame << PAGE_SHIFT))
        lifted.taken.append(Taken(space_id, vpn, entry))
        if entry & DIRTY:
            m.soil(frame)
    if m.frames.use[frame] == Use.OBJECT:
        lifted.entity = m.objects.slot(m.frames.owner[frame])
        lifted.page = m.frames.index[frame]
        lifted.entity.mappings += 1  # keeps a deleted object until the end of this
        lifted.entity.table.cas(lifted.page, frame << PAGE_SHIFT | PRESENT, transit(frame << PAGE_SHIFT))
    return lifted


def put_down(m: Machine, lifted: Lifted, held: bool) -> None:
    """Restores the entries of a page that stays; `held` says whether a holder may still have it."""
    for page in lifted.taken:
        entry = page.entry if held else page.entry & ~HELD
        exchange(m.spaces.slot(page.space).table, page.vpn, entry)
    if lifted.entity is not None:
        old = lifted.frame << PAGE_SHIFT
        lifted.entity.table.cas(lifted.page, transit(old), old | PRESENT)
    let_go(m, lifted)


def let_go(m: Machine, lifted: Lifted) -> None:
    """Wakes who waits for the frame, and lets a deleted object go."""
    m.set_busy(lifted.frame, False)
    if lifted.entity is not None:
        m.unlink_object(lifted.entity.id, 1)


def move(m: Machine, frames: Sequence[int], spare: Callable[[int], int], cause: str) -> Step[int]:
    """Moves the pages of those of `frames` that are movable; returns how many moved.

    `spare` takes a free frame with the use, group, owner and index of the frame given; 0 ends the search for more.
    """
    lifted: list[tuple[Lifted, int]] = []
    moved = 0
    try:
        for frame in frames:
            if is_movable(m, frame):
                target = spare(frame)
                if not target:
                    break
                m.set_busy(target, True)  # nobody's page yet
                lifted.append((lift(m, frame), target))
        yield from withdraw(m, [page for one, _ in lifted for page in one.taken])
        while lifted:
            one, target = lifted.pop(0)
            if m.ram.pins(one.frame):
                put_down(m, one, held=False)
                _unused(m, target)
            else:
                _land(m, one, target, cause)
                moved += 1
    finally:
        for one, target in lifted:
            put_down(m, one, held=True)
            _unused(m, target)
    return moved


def _unused(m: Machine, target: int) -> None:
    """Frees a frame that a page was to move to."""
    m.set_busy(target, False)
    m.frames.give_back(target, m.ram.pins(target) > 0)


def _land(m: Machine, lifted: Lifted, target: int, cause: str) -> None:
    """Copies a lifted page to `target`, makes all that named its frame name that, and frees its frame."""
    frames, frame = m.frames, lifted.frame
    m.ram.copy_frame(frame, target)
    for page in reversed(lifted.taken):
        entry = page.entry & ~(ADDR_MASK | HELD) | target << PAGE_SHIFT
        exchange(m.spaces.slot(page.space).table, page.vpn, entry)
        m.rmap.remove(frame, page.space, page.vpn)
        m.rmap.add(target, page.space, page.vpn)
    if lifted.entity is not None:
        lifted.entity.table.cas(lifted.page, transit(frame << PAGE_SHIFT), target << PAGE_SHIFT | PRESENT)
    frames.refs[target] = frames.refs[frame]
    frames.flags[target] = frames.flags[frame]
    m.set_busy(target, False)
    slot = frames.slot[frame]
    if slot:
        frames.slot[frame], frames.slot[target] = 0, slot
        m.swap.frame[slot - 1] = target
    m.policy.moved(frame, target)
    if frame in m.locked:
        m.locked[target] = m.locked.pop(frame)
    m.record(m.names.frame(frame), "page.moved", cause=cause, to=target)
    let_go(m, lifted)
    frames.give_back(frame, m.ram.pins(frame) > 0)


def spare_like(m: Machine, frame: int) -> int:
    """Takes a free frame with the use, group, owner and index of `frame`; 0 when there is none.

    The group is not charged: its page moves.
    """
    frames = m.frames
    return frames.take(Use(frames.use[frame]), frames.group[frame], frames.owner[frame], frames.index[frame])
