"""Pushing chosen pages out of RAM.

While a victim is in transit each entry that named it says TRANSIT, so its spaces cannot lose it, whoever faults on it
waits, and an end in the middle (a cancelled call, a layer below that fails) puts everything back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.effects import Step
from lamina_kit.paging import DIRTY, PAGE_SHIFT, PRESENT
from lamina_mmu.domain.entry import HELD, swapped, transit
from lamina_mmu.domain.frames import Use
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.table import exchange
from lamina_mmu.engines.model.machine import Machine
from lamina_mmu.engines.model.swapping import is_dirty, swap_out
from lamina_mmu.engines.model.withdraw import Taken, withdraw


@dataclass(slots=True)
class _Victim:
    """A frame on its way out, with the entries that named it and what it is a page of."""

    frame: int
    age: int
    taken: list[Taken] = field(default_factory=list)
    entity: MemoryObject | None = None
    page: int = 0


def evict(m: Machine, frames: list[int], population: int, cause: str) -> Step[ReclaimResult]:
    """Pushes `frames` (evictable now) out, as far as they stay so; `population` and `cause` go into the record."""
    victims = [_take_away(m, frame) for frame in frames]
    open_victims = list(victims)
    gone = written = 0
    try:
        yield from withdraw(m, [page for victim in victims for page in victim.taken])
        for victim in victims:
            before = m.swap.written
            out = not m.ram.pins(victim.frame) and _push_out(m, victim, population, cause)
            if not out:
                _put_back(m, victim, held=False)
            open_victims.pop(0)
            _finish(m, victim)
            gone += out
            written += m.swap.written - before
    finally:
        for victim in open_victims:
            _put_back(m, victim, held=True)
            _finish(m, victim)
    return ReclaimResult(gone, written, len(frames) - gone)


def _take_away(m: Machine, frame: int) -> _Victim:
    """Makes every entry of a frame say TRANSIT."""
    victim = _Victim(frame, m.policy.age(frame))
    m.set_busy(frame, True)
    for space_id, vpn in list(m.rmap.of(frame)):
        table = m.spaces.slot(space_id).table
        entry = exchange(table, vpn, transit(frame << PAGE_SHIFT))
        victim.taken.append(Taken(space_id, vpn, entry))
        if entry & DIRTY:
            m.soil(frame)
    if m.frames.use[frame] == Use.OBJECT:
        victim.entity = m.objects.slot(m.frames.owner[frame])
        victim.page = m.frames.index[frame]
        victim.entity.mappings += 1  # keeps a deleted object until the end of this
        victim.entity.table.cas(victim.page, frame << PAGE_SHIFT | PRESENT, transit(frame << PAGE_SHIFT))
    return victim


def _push_out(m: Machine, victim: _Victim, population: int, cause: str) -> bool:
    """Writes a dirty victim to swap and replaces its entries; False when swap has no room for it."""
    frame = victim.frame
    dirty = is_dirty(m, frame)
    slot = swap_out(m, frame) if dirty else m.frames.slot[frame] - 1
    if dirty and slot < 0:
        m.record(
            m.names.frame(frame), "page.kept", cause=cause, rule="a dirty page needs a swap slot", free=m.swap.free
        )
        return False
    for page in victim.taken:
        space = m.spaces.slot(page.space)
        to_slot = slot >= 0 and victim.entity is None
        exchange(space.table, page.vpn, swapped(slot) if to_slot else 0)
        m.note_unmapped(space, page.vpn, frame, 0)
        if to_slot:
            m.swap.refs[slot] += 1
            space.swapped += 1
    if victim.entity is not None:
        _store_object_entry(m, victim, slot)
    _record(m, victim, dirty, slot, population, cause)
    m.groups.get(m.frames.group[frame]).reclaimed += 1
    m.dropped += not dirty
    m.frames.refs[frame] = 0
    m.release(frame)
    return True


def _store_object_entry(m: Machine, victim: _Victim, slot: int) -> None:
    entity = victim.entity
    assert entity is not None
    entity.table.cas(victim.page, transit(victim.frame << PAGE_SHIFT), swapped(slot) if slot >= 0 else 0)
    entity.resident -= 1
    if slot >= 0:
        m.swap.refs[slot] += 1
        entity.swapped += 1


def _put_back(m: Machine, victim: _Victim, held: bool) -> None:
    """Restores the entries; `held` says whether a holder may still have the page."""
    for page in victim.taken:
        entry = page.entry if held else page.entry & ~HELD
        exchange(m.spaces.slot(page.space).table, page.vpn, entry)
    if victim.entity is not None:
        old = victim.frame << PAGE_SHIFT
        victim.entity.table.cas(victim.page, transit(old), old | PRESENT)


def _finish(m: Machine, victim: _Victim) -> None:
    m.set_busy(victim.frame, False)
    if victim.entity is not None:
        m.unlink_object(victim.entity.id, 1)


def _record(m: Machine, victim: _Victim, dirty: bool, slot: int, population: int, cause: str) -> None:
    """Records the decision, once for the frame and once for each page that was in it."""
    names = m.names
    subjects = [names.frame(victim.frame)]
    subjects += [names.page(m.spaces.slot(page.space).number, page.vpn) for page in victim.taken]
    for subject in subjects:
        m.record(
            subject,
            "page.evicted",
            cause=cause,
            rule=f"{m.policy.name}: the oldest sampled access of {population} pages",
            frame=victim.frame,
            age=victim.age,
            state="dirty" if dirty else "clean",
            action=f"written to slot {slot}"
            if dirty
            else f"dropped, slot {slot} has it"
            if slot >= 0
            else "dropped, zeros",
            group=m.groups.get(m.frames.group[victim.frame]).name,
        )
