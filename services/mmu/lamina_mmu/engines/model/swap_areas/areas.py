"""Swap areas while the host runs: made, shown, checked."""

from __future__ import annotations

from collections.abc import Iterator

from lamina_kit.effects import Step
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from lamina_kit.paging import PAGE_SHIFT, SWAPPED
from lamina_mmu.domain.effects import OpenSwapDisk
from lamina_mmu.domain.swap.areas import MOST_AREAS, SwapArea, SwapStore
from lamina_mmu.domain.swap.transfers import DiskStore
from lamina_mmu.domain.tables.entry import is_swap, slot_of
from lamina_mmu.domain.tables.table import PageTable, entries
from lamina_mmu.domain.views import SlotView, SwapAreaView, SwapCheck
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.swap.disks import check_places

CHECKED_AT_ONCE = 64
"""Slots read without a yield."""
ALL_PAGES = 1 << 40
User = tuple[bool, int, int]
"""Who names a slot: whether an object, its id, the page."""


def area_named(m: Machine, name: str) -> SwapArea:
    """Returns an area; SWAP_AREA_UNKNOWN when there is none of that name."""
    area = m.swap.named(name)
    if area is None:
        raise NotFound(
            f"There is no swap area {name}.", reason="SWAP_AREA_UNKNOWN", next_step="List the areas (ListSwapAreas)."
        )
    return area


def create_area(m: Machine, name: str, slots: int, priority: int, disk: str) -> Step[SwapArea]:
    """Makes an area, in a file or on a disk of the machine, and takes it into use."""
    _check_new(m, name, disk)
    store: SwapStore | DiskStore | None = None
    if disk:
        store = yield OpenSwapDisk(disk, slots)
        _check_new(m, name, disk)  # others may have made one meanwhile
    assert m.ports.media is not None
    area = m.swap.add(m.ports.media.open(name, slots, store), name, priority)
    m.record(m.names.swap_area(name), "swap_area.created", slots=slots, priority=priority, disk=disk)
    return area


def _check_new(m: Machine, name: str, disk: str) -> None:
    if m.swap.named(name) is not None:
        raise AlreadyExists(
            f"The swap area {name} exists.", reason="SWAP_AREA_EXISTS", next_step="Take another name, or delete it."
        )
    if len(m.swap.areas) >= MOST_AREAS:
        raise ResourceExhausted(
            f"There are {MOST_AREAS} swap areas already.",
            reason="TOO_MANY_SWAP_AREAS",
            next_step="Delete one, or make them larger.",
        )
    if m.ports.media is None:
        raise FailedPrecondition(
            "This MMU has no medium for further swap areas.",
            reason="SWAP_MEDIUM_MISSING",
            next_step="Run it with a state directory.",
        )
    other = next((area for area in m.swap.areas if disk and area.disk is not None and area.disk.disk == disk), None)
    if other is not None:
        raise FailedPrecondition(
            f"The disk {disk} holds the swap area {other.name}.",
            reason="SWAP_DISK_IN_USE",
            next_step="Take another disk, or that area out of use first.",
        )


def remove_area(m: Machine, area: SwapArea) -> None:
    """Removes an area that has no slot in use."""
    m.swap.remove(area)
    if m.ports.media is not None:
        m.ports.media.remove(area.name)
    m.record(m.names.swap_area(area.name), "swap_area.deleted")


def show_area(area: SwapArea) -> SwapAreaView:
    """Returns an area's view."""
    return SwapAreaView(
        area.name,
        area.count,
        area.priority,
        area.used,
        area.cached,
        area.state,
        area.written,
        area.read_back,
        len(area.corrupt),
        area.disk.disk if area.disk is not None else "",
    )


def users(m: Machine, area: SwapArea, chosen: frozenset[int] | None = None) -> dict[int, list[User]]:
    """Returns who names slots of an area: slot in the area → (whether an object, its id, page), spaces first.

    One pass over all tables, as swapoff(2) makes it; of `chosen` slots only, when they are given.
    """
    found: dict[int, list[User]] = {}
    low, high = area.base, area.base + area.count
    for is_object, owner, table in _tables(m):
        for vpns, some in entries(table, 0, ALL_PAGES):
            named = (some & 3) == SWAPPED
            for vpn, entry in zip(vpns[named].tolist(), some[named].tolist(), strict=True):
                slot = slot_of(entry)
                if low <= slot < high and (chosen is None or slot - low in chosen):
                    found.setdefault(slot - low, []).append((is_object, owner, vpn))
    return found


def table_of(m: Machine, user: User) -> PageTable:
    """Returns the table that a user's page is in."""
    is_object, owner, _ = user
    return m.objects.slot(owner).table if is_object else m.spaces.slot(owner).table


def _tables(m: Machine) -> Iterator[tuple[bool, int, PageTable]]:
    for space in m.spaces.everything():
        yield False, space.id, space.table
    for entity in m.objects.everything():
        yield True, entity.id, entity.table


def names_slot(m: Machine, user: User, slot: int) -> bool:
    """Returns whether a page still names a slot (of all areas)."""
    is_object, owner, page = user
    holder = m.objects.find(owner) if is_object else m.spaces.find(owner)
    if holder is None:
        return False
    entry = holder.table.load(page)
    return is_swap(entry) and slot_of(entry) == slot


def show_slots(m: Machine, area: SwapArea, slots: list[int]) -> list[SlotView]:
    """Returns views of slots in use."""
    named = users(m, area, frozenset(slots)) if slots else {}
    return [_show_slot(m, area, slot, named.get(slot, [])) for slot in slots]


def _show_slot(m: Machine, area: SwapArea, slot: int, named: list[User]) -> SlotView:
    cached = area.frame[slot]
    user, address = "", 0
    if named:
        is_object, owner, page = named[0]
        address = page << PAGE_SHIFT
        user = m.names.object(m.objects.slot(owner).number) if is_object else ""
        user = user or m.names.space(m.spaces.slot(owner).number)
    elif cached:
        place = next(iter(m.rmap.of(cached)), None)
        if place is not None:
            user, address = m.names.space(m.spaces.slot(place[0]).number), place[1] << PAGE_SHIFT
    group = m.groups.get(area.group[slot]).name
    return SlotView(slot, area.refs[slot], user, address, group, cached, area.sum[slot])


def list_slots(m: Machine, area: SwapArea, after: int, count: int) -> list[SlotView]:
    """Returns up to `count` slots in use with numbers above `after`."""
    return show_slots(m, area, area.in_use(after, count))


def check_slots(m: Machine, name: str, after: int) -> Step[SwapCheck]:
    """Reads the next slots in use behind `after` and compares them with their checksums.

    When not one slot can be read because the medium fails, its error is raised.
    """
    area = area_named(m, name)
    slots = area.in_use(after, CHECKED_AT_ONCE)
    if area.disk is not None:
        wrong = yield from check_places(m, area, slots)
    else:
        found = {slot: m.swap.readable(area.base + slot) for slot in slots}
        wrong = {slot: error for slot, error in found.items() if error is not None}
    bad = list(wrong)
    failures = [error for error in wrong.values() if error.reason != "SWAP_CORRUPT"]
    if failures and len(failures) == len(slots):
        raise failures[0]
    last = slots[-1] if slots else after
    left = len(area.in_use(last, area.count))
    return SwapCheck(last, len(slots), tuple(show_slots(m, area, bad)), left)
