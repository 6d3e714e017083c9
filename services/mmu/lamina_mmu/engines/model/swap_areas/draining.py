"""Taking a swap area out of use (swapoff): its pages go into RAM while there is some, or into other areas.

    all tables ──▶ who names which slot ──▶ a slot with all its users known:
        bytes in a frame already (swap cache), or a free frame for them ──▶ users' entries name the frame, page dirty
        RAM is short, another area has a slot ──▶ bytes written there, users' entries name that slot
        neither ──▶ NO_FREE_FRAME; the area goes on as before

Each slot is one change: no page is ever in neither place. A slot whose users changed meanwhile is met by the next pass.
Source: Linux mm/swapfile.c (try_to_unuse).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.effects import Sleep, Step, WaitFor
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.paging import PAGE_SHIFT, PRESENT
from lamina_mmu.domain.effects import frame_key, swap_area_key
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.swap.areas import State, SwapArea
from lamina_mmu.domain.tables.entry import leaf, swapped
from lamina_mmu.domain.tables.table import exchange
from lamina_mmu.engines.model.machine.state import Busy, Machine, Short
from lamina_mmu.engines.model.reclaim.victims import make_room, no_free_frame
from lamina_mmu.engines.model.swap.pages import swap_in
from lamina_mmu.engines.model.swap_areas.areas import User, area_named, names_slot, remove_area, table_of, users

AT_ONCE = 64
"""Slots emptied without a yield."""


@dataclass(slots=True)
class Drain:
    """How far an area is drained; `waiting` has the slots of this pass with their users."""

    area: SwapArea
    returned: int = 0
    moved: int = 0
    done: bool = False
    waiting: list[tuple[int, list[User]]] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        """Returns how many slots are still in use."""
        return 0 if self.done else self.area.used


def begin(m: Machine, name: str) -> Drain:
    """Begins to drain an area: no page goes to it from here on."""
    area = area_named(m, name)
    if area.state == State.DRAINING:
        raise FailedPrecondition(
            f"The swap area {name} is being taken out of use already.",
            reason="SWAP_AREA_DRAINING",
            next_step="Follow it with GetSwapArea, or end the other call first.",
        )
    area.state = State.DRAINING
    m.record(m.names.swap_area(name), "swap_area.draining", used=area.used)
    return Drain(area)


def end(m: Machine, drain: Drain) -> None:
    """Ends a drain that did not come to its end: the area is used again, unless its medium failed."""
    if not drain.done and drain.area.state == State.DRAINING:
        drain.area.state = State.ACTIVE
        m.record(m.names.swap_area(drain.area.name), "swap_area.kept", used=drain.area.used)


def step(m: Machine, drain: Drain) -> Step[None]:
    """Empties some slots; when none is left the area is gone and `done` is set."""
    area = drain.area
    _uncache(m, area)
    if not drain.waiting:
        drain.waiting = sorted(users(m, area).items(), reverse=True)
        if not drain.waiting and area.used:
            yield from _wait(m, area)
    for _ in range(min(AT_ONCE, len(drain.waiting))):
        slot, named = drain.waiting.pop()
        try:
            yield from _empty(m, drain, slot, named)
        except LaminaError as error:
            if error.reason in ("SWAP_CORRUPT", "SWAP_IO_FAILED"):
                area.state = State.FAILED
            raise
    if not area.used:
        remove_area(m, area)
        drain.done = True
    yield Sleep(0)


def _uncache(m: Machine, area: SwapArea) -> None:
    """Frees slots that merely repeat a page in RAM; the page counts as dirty then."""
    for slot in area.cached_only(area.count):
        frame = area.frame[slot]
        if not m.frames.flags[frame] & BUSY:
            m.soil(frame)
            m.forget_copy(frame)


def _wait(m: Machine, area: SwapArea) -> Step[None]:
    """Waits for a page on its way out that holds a slot nobody names."""
    if area.writing:
        yield WaitFor(swap_area_key(area.index))
        return
    for slot in area.cached_only(1):
        if m.frames.flags[area.frame[slot]] & BUSY:
            yield WaitFor(frame_key(area.frame[slot]))


def _empty(m: Machine, drain: Drain, place: int, named: list[User]) -> Step[None]:
    """Brings the page of one slot elsewhere, if its users are still those."""
    area, slot = drain.area, drain.area.base + place
    while True:
        mine = [user for user in named if names_slot(m, user, slot)]
        if not mine or len(mine) != area.refs[place]:
            return  # some of them have it back, or a fork has more: the next pass sees them
        group = area.group[place]
        roomy = m.frames.free > m.high and m.groups.over(group) is None
        if not area.frame[place] and not roomy and _move(m, slot, mine):
            drain.moved += 1
            return
        try:
            _bring_home(m, slot, mine)
        except Busy as busy:
            yield WaitFor(busy.key)
            continue
        except Short as short:
            if not (yield from make_room(m, short.group, m.names.swap_area(area.name))):
                raise no_free_frame(short.group) from None
            continue
        drain.returned += 1
        return


def _move(m: Machine, slot: int, named: list[User]) -> bool:
    """Moves a page to a slot of another area; False when there is none.

    The bytes are checked on the way. From and to a disk a page goes by way of a frame instead.
    """
    old = m.swap.area_of(slot)
    group = m.swap.group[slot]
    target = m.swap.take(group) if old.disk is None else -1
    if target < 0:
        return False
    if m.swap.area_of(target).disk is not None:
        m.swap.give_back(target)
        return False
    try:
        m.swap.write(target, m.swap.read(slot))
    except BaseException:
        m.swap.give_back(target)
        raise
    for user in named:
        exchange(table_of(m, user), user[2], swapped(target))
    m.swap.refs[target] = len(named)
    m.swap.refs[slot] = 0
    old.give_back(slot - old.base)  # the charge goes along
    return True


def _bring_home(m: Machine, slot: int, named: list[User]) -> None:
    """Makes all users of a slot name a frame with its bytes; raises Short and Busy. The page is dirty then."""
    group = m.swap.group[slot]
    is_object, owner, page = named[0]
    frame, _ = swap_in(m, slot, group, Use.OBJECT if is_object else Use.ANONYMOUS, owner if is_object else 0, page)
    for user in named:
        m.swap.refs[slot] -= 1
        _name_frame(m, user, frame, m.swap.refs[slot] > 0 or m.frames.refs[frame] > 0)
    m.soil(frame)
    m.forget_copy(frame)


def _name_frame(m: Machine, user: User, frame: int, shared: bool) -> None:
    is_object, owner, page = user
    if is_object:
        entity = m.objects.slot(owner)
        exchange(entity.table, page, frame << PAGE_SHIFT | PRESENT)
        m.keep(frame)
        entity.resident += 1
        entity.swapped -= 1
        return
    space = m.spaces.slot(owner)
    vma = space.vmas.at(page << PAGE_SHIFT)
    exchange(space.table, page, leaf(frame, vma.rights if vma is not None else 0, shared))
    m.note_mapped(space, page, frame)
    space.swapped -= 1
