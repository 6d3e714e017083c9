"""What groups are told of themselves: faults, refaults, waiting, events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lamina_kit.errors import DataLoss
from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.groups.events import MILLION, MOST_SPACES, NEWS, WINDOW_NS, GroupEvent, GroupEventKind
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.engines.model.machine.state import Machine


def note_fault(m: Machine, space: Space, vma: Vma, vpn: int, outcome: Outcome, major: bool) -> None:
    """Counts a fault for the group of its space and all above it; `major` ones read bytes from somewhere."""
    path = m.groups.path(space.group)
    for level in path:
        if major:
            level.major_faults += 1
        else:
            level.minor_faults += 1
    if not m.shadows.pages or outcome == Outcome.COPIED:
        return
    if m.shadows.came_back(m.page_of(space, vma, vpn), path[0]):
        for level in path:
            level.refaulted += 1


def note_scanned(m: Machine, frames: list[int]) -> None:
    """Counts pages that reclaim looked at for their groups and all above them."""
    for group_id, pages in Counter(m.frames.group[frame] for frame in frames).items():
        for level in m.groups.path(group_id):
            level.scanned += pages


def note_taken(m: Machine, page: int, group_id: int) -> None:
    """Counts a page that reclaim took from a group and all above it."""
    path = m.groups.path(group_id)
    path[0].reclaimed += 1
    for level in path:
        level.taken += 1
    if page:
        m.shadows.left(page, path[0])


def tell(
    m: Machine,
    group: Group,
    kind: GroupEventKind,
    limit: int | None = None,
    spaces: tuple[int, ...] = (),
    reason: str = "",
    address: int = 0,
    ppm: int = 0,
) -> None:
    """Tells an event of a group to those who watch, and counts it for the group and all above it."""
    for level in group.path:
        level.events[kind] = level.events.get(kind, 0) + 1
    path = tuple(level.id for level in group.path)
    for first in range(0, max(1, len(spaces)), MOST_SPACES):
        event = GroupEvent(
            m.group_events.last + 1,
            m.ports.now_ns(),
            group.name,
            path,
            kind,
            group.usage * PAGE_SIZE,
            limit or 0,
            spaces[first : first + MOST_SPACES],
            reason,
            address,
            ppm,
            m.ports.trace(),
        )
        m.group_events.add(event)
    m.ports.wake(NEWS, None)


def note_space_gone(m: Machine, group: Group) -> None:
    """Tells the nearest groups whose last space went."""
    for level in group.path:
        members = {below.id for below in level.subtree()}
        if level.parent is None or any(space.group in members for space in m.spaces):
            return
        tell(m, level, GroupEventKind.EMPTY)


@contextmanager
def waiting(m: Machine, space: Space) -> Iterator[None]:
    """Counts the time within as time in which a space waited for memory."""
    path, number = m.groups.path(space.group), space.id
    for level in path:
        level.waiting[number] = level.waiting.get(number, 0) + 1
        _turn(m, level)
    try:
        yield
    finally:
        for level in path:
            left = level.waiting[number] - 1
            if left:
                level.waiting[number] = left
            else:
                del level.waiting[number]
            _turn(m, level)
        check_pressure(m, path)


def _turn(m: Machine, group: Group) -> None:
    """Tells a group's pressure how many of its spaces wait and how many could go on."""
    members = {below.id for below in group.subtree()} if group.children else {group.id}
    going = sum(1 for space in m.spaces if space.group in members and space.id not in group.waiting)
    group.pressure.note(m.ports.now_ns(), len(group.waiting), going)
    if group.waiting and m.group_events.watches:
        m.ports.wake(NEWS, None)


def check_pressure(m: Machine, groups: list[Group]) -> None:
    """Tells PRESSURE of groups that were under as much within the last second as somebody wants to know."""
    if not m.group_events.watches:
        return
    now = m.ports.now_ns()
    for group in groups:
        least = m.group_events.least_ppm(group)
        ppm = group.pressure.waited(now, WINDOW_NS) * MILLION // WINDOW_NS
        if least and ppm >= least and now >= group.pressure_told_ns + WINDOW_NS:
            group.pressure_told_ns = now
            tell(m, group, GroupEventKind.PRESSURE, ppm=ppm)


def lost(m: Machine, space: Space, address: int, error: DataLoss) -> None:
    """Tells that a page of a space is lost, when that is what an error says."""
    if error.reason == "SWAP_CORRUPT":
        group = m.groups.get(space.group)
        tell(m, group, GroupEventKind.PAGE_LOST, spaces=(space.number,), reason=error.message, address=address)
