"""What must agree in a machine at rest: every count with what can be counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.spaces.vma import LOCKED
from lamina_mmu.domain.swap.areas import LOST
from lamina_mmu.domain.tables.entry import HELD, frame_of, in_ram


def check_books(m: Any) -> None:
    """Checks that every count of a machine at rest agrees with what can be counted."""
    named: dict[int, list[tuple[int, int]]] = {}
    slots: dict[int, int] = {}
    tables: set[int] = set()
    for space in m.spaces:
        counted = _read_entries(space.table, space.id, named, slots)
        assert (space.resident, space.swapped) == counted, f"space {space.number} counts otherwise than its table"
        if space.root_address:
            mine = space.table.table_frames()
            assert len(set(mine)) == len(mine) and not tables & set(mine), "a table frame is owned twice"
            tables |= set(mine)
    homes: dict[int, list[tuple[int, int]]] = {}
    for entity in m.objects:
        counted = _read_entries(entity.table, entity.id, homes, slots)
        assert (entity.resident, entity.swapped) == counted, f"object {entity.id} counts otherwise than its table"
    assert all(len(places) == 1 for places in homes.values()), "an object's frame has two homes"
    _check_frames(m, named, homes, tables)
    _check_slots(m, slots)
    _check_locks(m)
    _check_extents(m)
    assert not m.faulting


def _read_entries(
    table: Any, owner: int, named: dict[int, list[tuple[int, int]]], slots: dict[int, int]
) -> tuple[int, int]:
    """Notes which frames and slots the entries of a table name; returns how many name frames and slots."""
    resident = swapped = 0
    for number, live in table.leaves(0, 1 << 36):
        for offset, entry in enumerate(live.tolist()):
            if entry & 1 or entry & 0xF == 4:
                named.setdefault(entry >> 12 & 0xFF_FFFF_FFFF, []).append((owner, number * 512 + offset))
                resident += 1
            elif entry & 2:
                slots[entry >> 12] = slots.get(entry >> 12, 0) + 1
                swapped += 1
            else:
                assert not entry, hex(entry)
    return resident, swapped


def _check_frames(m: Any, named: dict[int, Any], homes: dict[int, Any], tables: set[int]) -> None:
    """Checks uses, references, reverse map and charges of all frames.

    Most frames are idle; what holds for all of those is asked at once, since a seed of the simulation asks often.
    """
    usage = {group.id: 0 for group in m.groups.ordered()}
    idle = np.isin(m.frames.uses, [Use.FREE, Use.RESERVED, Use.OFFLINE])
    for frame in [*named, *homes, *tables]:
        assert not idle[frame], f"frame {frame} is named, and used as {m.frames.use[frame]}"
    for frame in np.flatnonzero(~idle).tolist():
        use = m.frames.use[frame]
        if use in (Use.ANONYMOUS, Use.OBJECT):
            assert sorted(m.rmap.of(frame)) == sorted(named.get(frame, [])), f"reverse map of frame {frame}"
            home = int(frame in homes)
            assert m.frames.refs[frame] == m.rmap.count(frame) + home, f"refs of frame {frame}"
            assert m.frames.refs[frame] or m.frames.slot[frame], f"frame {frame} is of no use to anybody"
            assert (use == Use.OBJECT) == bool(home)
            assert not m.frames.flags[frame] & 2, "a frame at rest is busy"
        else:
            assert frame not in named and frame not in homes, f"frame {frame} is named, and used as {use}"
            assert (use == Use.TABLE) == (frame in tables), frame
        usage[m.frames.group[frame]] += 1
    for frame in np.flatnonzero(m.frames.slot_array).tolist():
        assert m.swap.frame[m.frames.slot[frame] - 1] == frame
    by_use = np.bincount(m.frames.uses, minlength=len(Use)).tolist()
    assert by_use == m.frames.by_use, f"{by_use} frames of each use are counted as {m.frames.by_use}"
    for group in m.groups.ordered():
        assert group.usage == sum(usage[below.id] for below in group.subtree()), group.name


def _check_extents(m: Any) -> None:
    """Checks that the pages of each extent that a holder has lie in a row, are held, and are pinned if it is."""
    for hold in m.holds.values():
        table = m.spaces.slot(hold.space).table
        for one in hold.extents.values():
            found = [table.load((one.address >> 12) + page) for page in range(one.pages)]
            assert [frame_of(entry) for entry in found] == list(range(one.frame, one.frame + one.pages))
            assert all(entry & HELD and entry & 1 for entry in found), f"extent {one} is not held whole"
            assert not one.pinned or all(m.ram.pins(one.frame + page) for page in range(one.pages))


def _check_locks(m: Any) -> None:
    """Checks that just the pages of locked mappings and pinned extents are locked, in no policy's order, and sizes."""
    locked: dict[int, int] = {}
    for one in [one for hold in m.holds.values() for one in hold.extents.values() if one.pinned]:
        for frame in range(one.frame, one.frame + one.pages):
            locked[frame] = locked.get(frame, 0) + 1
    for space in m.spaces:
        assert space.vmas.mapped_bytes == sum(vma.size for vma in space.vmas)
        assert space.vmas.locked_bytes == sum(vma.size for vma in space.vmas if vma.flags & LOCKED)
        for vma in space.vmas:
            for vpn in vma.pages if vma.flags & LOCKED else ():
                entry = space.table.load(vpn)
                if in_ram(entry):
                    locked[frame_of(entry)] = locked.get(frame_of(entry), 0) + 1
    assert locked == m.locked
    assert not locked.keys() & set(m.policy.candidates([group.id for group in m.groups.ordered()]))


def _check_slots(m: Any, slots: dict[int, int]) -> None:
    """Checks references, cached frames and the number of free slots."""
    used = 0
    assert m.swap.refs[LOST] == slots.pop(LOST, 0)
    for area in m.swap.areas:
        here = 0
        for slot in range(area.base, area.base + area.count):
            assert m.swap.refs[slot] == slots.pop(slot, 0), f"refs of slot {slot}"
            cached = m.swap.frame[slot]
            assert not cached or m.frames.slot[cached] == slot + 1
            here += bool(m.swap.refs[slot] or cached)
        assert area.used == here, area.name
        used += here
    assert not slots, "entries name slots of no area"
    assert m.swap.free == m.swap.count - used
    assert m.groups.root.swap_usage == used
