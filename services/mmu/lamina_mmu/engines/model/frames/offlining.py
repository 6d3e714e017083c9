"""Taking frames out of use whose memory fails (ADR 0012, who learns of physical faults).

free ─▶ out of use          its bytes are still good: the page moves to another frame
a page ─┬─ lost, clean ─▶ dropped: swap, or its object's supplier, has the same bytes
        └─ lost, dirty ─▶ gone: its entries name the slot LOST, whose reader gets a bus error, PAGE_LOST
a table, allocated, pinned ─▶ stays in use
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from lamina_kit.effects import Step, WaitFor
from lamina_kit.paging import PAGE_SHIFT
from lamina_mmu.domain.effects import frame_key, isolation_key
from lamina_mmu.domain.frames.table import BUSY, DIRTY, Use
from lamina_mmu.domain.groups.events import GroupEventKind
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.swap.areas import LOST
from lamina_mmu.domain.tables.entry import swapped
from lamina_mmu.domain.tables.table import exchange
from lamina_mmu.engines.model.machine.accounting import tell
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.victims import make_room
from lamina_mmu.engines.model.withdrawal.migration import (
    Lifted,
    is_movable,
    isolated,
    let_go,
    lift,
    move,
    put_down,
    spare_like,
)
from lamina_mmu.engines.model.withdrawal.users import withdraw


class Fate(IntEnum):
    """What became of a frame; the numbers are those of the contract's `OfflineFramesResponse.Result`."""

    OFFLINE = 1
    DROPPED = 2
    LOST = 3
    IN_USE = 4


def offline_frames(m: Machine, frames: Sequence[int], lost: bool) -> Step[list[Fate]]:
    """Takes frames out of use, one after the other; returns what became of each. FRAME_OUTSIDE_RAM before any."""
    for frame in frames:
        m.frames.check(frame)
    fates: list[Fate] = []
    for frame in frames:
        fate = yield from _offline(m, frame, lost)
        m.record(m.names.frame(frame), "frame.offlined", rule="its memory fails", lost=lost, fate=fate.name)
        fates.append(fate)
    return fates


def _offline(m: Machine, frame: int, lost: bool) -> Step[Fate]:
    while True:
        use = m.frames.use[frame]
        if use == Use.OFFLINE:
            return Fate.OFFLINE
        first = m.frames.isolation_of(frame)
        if first >= 0:
            yield WaitFor(isolation_key(first))
        elif m.frames.flags[frame] & BUSY:
            yield WaitFor(frame_key(frame))
        elif use == Use.FREE or is_movable(m, frame):
            break
        else:
            return Fate.IN_USE
    with isolated(m, frame, 1):
        fate = Fate.OFFLINE
        if use != Use.FREE:
            fate = yield from _give_up(m, frame) if lost else _move_away(m, frame)
        return fate if fate != Fate.IN_USE and m.frames.retire(frame) else Fate.IN_USE


def _move_away(m: Machine, frame: int) -> Step[Fate]:
    """Moves a page to another frame, making room for it if it must."""
    name = m.names.frame(frame)
    while is_movable(m, frame):
        free = m.frames.free
        if free and (yield from move(m, [frame], lambda old: spare_like(m, old), name)):
            return Fate.OFFLINE
        if free or not (yield from make_room(m, m.groups.root, name)):
            break
    return Fate.OFFLINE if m.frames.use[frame] == Use.RESERVED else Fate.IN_USE


def _give_up(m: Machine, frame: int) -> Step[Fate]:
    """Takes a page from all that use it: it is elsewhere, too, or it is lost."""
    lifted = lift(m, frame)
    done = False
    try:
        yield from withdraw(m, lifted.taken)
        done = True
    finally:
        if not done:
            put_down(m, lifted, held=True)
    if m.ram.pins(frame):
        put_down(m, lifted, held=False)
        return Fate.IN_USE
    dirty = bool(m.frames.flags[frame] & DIRTY)
    slot = LOST if dirty else m.frames.slot[frame] - 1
    for page in lifted.taken:
        _store(m, lifted, page.space, page.vpn, slot)
    if lifted.entity is not None:
        exchange(lifted.entity.table, lifted.page, swapped(slot) if slot >= 0 else 0)
        lifted.entity.resident -= 1
        if slot >= 0:
            m.swap.refs[slot] += 1
            lifted.entity.swapped += 1
    let_go(m, lifted)
    m.frames.refs[frame] = 0
    payer = m.groups.get(m.frames.group[frame])
    m.release(frame)
    if dirty:
        _tell_lost(m, payer, lifted, frame)
    return Fate.LOST if dirty else Fate.DROPPED


def _tell_lost(m: Machine, payer: Group, lifted: Lifted, frame: int) -> None:
    """Tells those who watch the group that paid for a page that its content is gone."""
    spaces = tuple(dict.fromkeys(m.spaces.slot(page.space).number for page in lifted.taken))
    address = lifted.taken[0].vpn << PAGE_SHIFT if lifted.taken else 0
    tell(m, payer, GroupEventKind.PAGE_LOST, spaces=spaces, reason=f"memory of frame {frame} failed", address=address)


def _store(m: Machine, lifted: Lifted, space_id: int, vpn: int, slot: int) -> None:
    """Makes an entry of a space name a slot, or, for an object's page, nothing: its object knows."""
    space = m.spaces.slot(space_id)
    to_slot = slot >= 0 and lifted.entity is None
    exchange(space.table, vpn, swapped(slot) if to_slot else 0)
    m.note_unmapped(space, vpn, lifted.frame, 0)
    if to_slot:
        m.swap.refs[slot] += 1
        space.swapped += 1
