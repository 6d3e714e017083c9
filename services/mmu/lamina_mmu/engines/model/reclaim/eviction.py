"""Pushing chosen pages out of RAM.

While a victim is in transit each entry that named it says TRANSIT, so its spaces cannot lose it, whoever faults on it
waits, and an end in the middle (a cancelled call, a layer below that fails) puts everything back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_kit.effects import Step
from lamina_kit.paging import DIRTY, PAGE_SHIFT, PRESENT, RW
from lamina_mmu.domain.frames.table import DIRTY as DIRTY_FLAG
from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.object import MemoryObject
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.policies.decisions import OTHERS, Batch, Candidate, Eviction
from lamina_mmu.domain.policies.replacement import Chosen
from lamina_mmu.domain.tables.entry import HELD, swapped, transit
from lamina_mmu.domain.tables.table import exchange
from lamina_mmu.engines.model.machine.accounting import note_taken
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.swap.disks import Written, write_out
from lamina_mmu.engines.model.swap.pages import swap_out
from lamina_mmu.engines.model.swap.slots import is_dirty
from lamina_mmu.engines.model.withdrawal.users import Taken, withdraw


@dataclass(slots=True)
class _Victim:
    """A frame on its way out, with the entries that named it and what it is a page of."""

    frame: int
    chosen: Chosen
    number: int
    taken: list[Taken] = field(default_factory=list)
    entity: MemoryObject | None = None
    page: int = 0


def evict(m: Machine, chosen: list[Chosen], following: list[int], group: str, cause: str) -> Step[ReclaimResult]:
    """Pushes out frames that are leaving, as far as they may still go; the others are given back to their policy.

    `following` are the frames that would be next; they go into the record, as `group`, which is reclaimed, and `cause`.
    """
    batch = Batch(group, cause)
    batch.victims = [candidate(m, one.frame, one.age, one.reason) for one in chosen]
    batch.behind = [candidate(m, frame, m.policy.age(frame), m.policy.standing(frame)) for frame in following]
    told = _Told(m, batch)
    victims = [_take_away(m, one) for one in chosen]
    open_victims = list(victims)
    gone = written = 0
    try:
        yield from withdraw(m, [page for victim in victims for page in victim.taken])
        on_disk = (yield from write_out(m, [victim.frame for victim in victims])) if m.swap.has_disks else Written()
        written = len(on_disk.frames)
        for index, victim in enumerate(victims):
            before = m.swap.written
            out = not m.ram.pins(victim.frame) and _push_out(m, victim, index, told, on_disk)
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
    if on_disk.failures and not gone:
        raise next(iter(on_disk.failures.values()))
    return ReclaimResult(gone, written, len(chosen) - gone)


def candidate(m: Machine, frame: int, age: int, standing: str) -> Candidate:
    """Returns a page as it stands now."""
    place: tuple[str, int, int] | None = None
    if m.frames.use[frame] == Use.OBJECT:
        place = ("object", m.objects.slot(m.frames.owner[frame]).number, m.frames.index[frame] << PAGE_SHIFT)
    for space_id, vpn in m.rmap.of(frame):
        place = ("space", m.spaces.slot(space_id).number, vpn << PAGE_SHIFT)
        break
    return Candidate(frame, place, age, may_be_dirty(m, frame), standing)


def may_be_dirty(m: Machine, frame: int) -> bool:
    """Returns whether a frame is dirty as far as can be known without asking its holders."""
    if m.frames.flags[frame] & DIRTY_FLAG:
        return True
    for space_id, vpn in m.rmap.of(frame):
        entry = m.spaces.slot(space_id).table.load(vpn)
        if entry & DIRTY or (entry & HELD and entry & RW):
            return True
    return False


def _take_away(m: Machine, chosen: Chosen) -> _Victim:
    """Makes every entry of a frame say TRANSIT."""
    frame = chosen.frame
    victim = _Victim(frame, chosen, m.page_number(frame))
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


def _push_out(m: Machine, victim: _Victim, index: int, told: _Told, on_disk: Written) -> bool:
    """Writes a dirty victim to swap, unless that is done, and replaces its entries; False when it has no room there."""
    frame = victim.frame
    to_write = is_dirty(m, frame)
    slot = swap_out(m, frame) if to_write else m.frames.slot[frame] - 1
    dirty = to_write or frame in on_disk.frames
    if dirty and slot < 0:
        m.record(
            m.names.frame(frame),
            "page.kept",
            cause=told.batch.wanted_by,
            rule="a dirty page needs a swap slot",
            free=m.swap.free,
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
    told.record(victim, index, dirty, slot)
    note_taken(m, victim.number, m.frames.group[frame])
    m.dropped += not dirty
    m.feed.note_evicted(frame, told.batch.wanted_by)
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
    """Restores the entries; `held` says whether a holder may still have the page. The policy has it again."""
    m.policy.restored(victim.frame)
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


class _Told:
    """Tells the decisions of one batch: into the ring of evictions, and into the event log for `Explain`."""

    def __init__(self, m: Machine, batch: Batch) -> None:
        self.m, self.batch = m, batch
        self._labels = [self._label(one) for one in (*batch.victims, *batch.behind)]

    def _label(self, one: Candidate) -> str:
        if one.place is None:
            return f"frame {one.frame}"
        kind, number, address = one.place
        return f"{kind[0]}-{number} {address:#x}"

    def record(self, victim: _Victim, index: int, dirty: bool, slot: int) -> None:
        """Records one eviction: once for the frame, once for each page that was in it."""
        m, chosen, batch = self.m, victim.chosen, self.batch
        numbers = tuple(m.spaces.slot(page.space).number for page in victim.taken)
        charged = m.groups.get(m.frames.group[victim.frame]).name
        if dirty:
            action = f"written to slot {slot}"
        else:
            action = f"dropped, slot {slot} has it" if slot >= 0 else "dropped, zeros"
        sequence = m.evictions.next_sequence()
        inputs = {
            "frame": victim.frame,
            "age": chosen.age,
            "rank": index + 1,
            "policy": chosen.policy,
            "state": "dirty" if dirty else "clean",
            "action": action,
            "group": charged,
            "next": ", ".join(self._labels[index + 1 : index + 1 + OTHERS]),
            "eviction": sequence,
        }
        rule = f"{chosen.policy}: {chosen.reason}"
        m.record(m.names.frame(victim.frame), "page.evicted", cause=batch.wanted_by, rule=rule, **inputs)
        for number, page in zip(numbers, victim.taken, strict=True):
            m.record(m.names.page(number, page.vpn), "page.evicted", cause=batch.wanted_by, rule=rule, **inputs)
        m.evictions.add(
            Eviction(
                sequence,
                m.ports.now_ns(),
                batch,
                index,
                chosen.policy,
                chosen.reason,
                slot if dirty else -1,
                numbers,
                charged,
                m.ports.trace(),
            )
        )
