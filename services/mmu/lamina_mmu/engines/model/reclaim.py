"""Making room: choosing victims by their A bits, and pushing them out (the document's swap mechanism).

    candidates, oldest first ──▶ sample A ──▶ seen accessed: to the young end ──▶ the oldest that remain are victims
    victims ──▶ entries TRANSIT ──▶ shootdowns, revocations (A, D come back) ──▶ still unpinned?
          dirty ──▶ written to swap, entry SWAP     clean ──▶ dropped, entry SWAP (its slot) or 0     pinned ──▶ back

A small population (up to 64 pages) is sampled as a whole, so the choice is exact LRU over what the A bits can tell; a
large one from its old end, in windows. A is cleared by compare-and-swap, and the translations are shot down so that
the next access sets it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from lamina_kit.effects import Step, WaitFor
from lamina_kit.paging import ACCESSED, DIRTY, PAGE_SHIFT, RW
from lamina_mmu.domain.effects import Shootdown, frame_key
from lamina_mmu.domain.entry import HELD
from lamina_mmu.domain.four_level import FourLevelTable
from lamina_mmu.domain.frames import BUSY, Use
from lamina_mmu.domain.frames import DIRTY as DIRTY_FLAG
from lamina_mmu.domain.group import Group
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.table import update
from lamina_mmu.engines.model.evict import evict
from lamina_mmu.engines.model.holding import sample
from lamina_mmu.engines.model.machine import Machine
from lamina_mmu.engines.model.withdraw import ranges_of

EXACT = 64
"""Populations up to this many pages are sampled as a whole."""
ROUNDS = 4
"""Most windows that are sampled before the oldest pages go although they were accessed."""
BATCH = 32
"""Pages that a reclaim for one fault asks for, when there are enough."""


def make_room(m: Machine, group: Group, cause: str) -> Step[bool]:
    """Reclaims from a group at its limit (the root: from the host); returns whether it is worth trying again."""
    group.max_events += 1
    population = m.policy.population([level.id for level in group.subtree()])
    share = population // (4 if group.parent is None else 16)
    pages = max(1, min(BATCH, share))
    result = yield from reclaim_group(m, group, pages, cause)
    return bool(result.pages or result.busy)


def reclaim_group(m: Machine, group: Group, pages: int, cause: str) -> Step[ReclaimResult]:
    """Pushes up to `pages` out of a group and all under it."""
    ids = [level.id for level in group.subtree()]
    for level in ids:
        m.trim_swap(level, pages)
    return (yield from reclaim(m, lambda: m.policy.candidates(ids), m.policy.population(ids), pages, cause))


def reclaim(
    m: Machine, candidates: Callable[[], Iterable[int]], population: int, pages: int, cause: str
) -> Step[ReclaimResult]:
    """Pushes up to `pages` of the candidates out, oldest first.

    With no victim but pages that others are pushing out, it waits for one of those and says `busy`.
    """
    window = population if population <= EXACT else max(8 * pages, EXACT)
    for _ in range(1 if window >= population else ROUNDS):
        seen = list(islice((frame for frame in candidates() if is_evictable(m, frame)), window))
        accessed = yield from sample_frames(m, seen)
        for frame in seen:
            if frame in accessed:
                m.policy.accessed(frame)
        if len(seen) - len(accessed) >= pages:
            break
    victims = list(islice((frame for frame in candidates() if is_evictable(m, frame)), pages))
    if victims:
        return (yield from evict(m, victims, population, cause))
    for frame in candidates():
        if m.frames.flags[frame] & BUSY:
            yield WaitFor(frame_key(frame))
            return ReclaimResult(busy=1)
    return ReclaimResult()


def is_evictable(m: Machine, frame: int) -> bool:
    """Returns whether a frame may leave RAM now: in nobody's hands, unpinned, and with somewhere to go."""
    frames = m.frames
    if frames.use[frame] not in (Use.ANONYMOUS, Use.OBJECT) or frames.flags[frame] & BUSY or m.ram.pins(frame):
        return False
    home = 1 if frames.use[frame] == Use.OBJECT else 0
    if frames.refs[frame] != m.rmap.count(frame) + home:
        return False
    if m.swap_room(frames.group[frame]):
        return True
    slot = frames.slot[frame] - 1
    return (slot >= 0 and not m.swap.refs[slot]) or not may_be_dirty(m, frame)


def may_be_dirty(m: Machine, frame: int) -> bool:
    """Returns whether a frame is dirty as far as can be known without asking its holders."""
    if m.frames.flags[frame] & DIRTY_FLAG:
        return True
    for space_id, vpn in m.rmap.of(frame):
        entry = m.spaces.slot(space_id).table.load(vpn)
        if entry & DIRTY or (entry & HELD and entry & RW):
            return True
    return False


def sample_frames(m: Machine, frames: list[int]) -> Step[set[int]]:
    """Returns which frames were accessed since they were last sampled, and clears their A bits."""
    accessed: set[int] = set()
    roots: dict[int, list[int]] = {}
    holds: dict[int, dict[int, int]] = {}
    for frame in frames:
        for space_id, vpn in m.rmap.of(frame):
            space = m.spaces.slot(space_id)
            entry = space.table.load(vpn)
            if entry & HELD and space.holder:
                holds.setdefault(space.holder, {})[vpn << PAGE_SHIFT] = frame
            if entry & ACCESSED:
                update(space.table, vpn, ACCESSED, 0)
                accessed.add(frame)
                if isinstance(space.table, FourLevelTable):
                    roots.setdefault(space.root_address, []).append(vpn)
    for root, vpns in roots.items():
        yield Shootdown(root, ranges_of(sorted(vpns)))
    for hold_id, pages in holds.items():
        hold = m.holds.get(hold_id)
        if hold is not None:
            addresses = yield from sample(m, hold, sorted(pages.items()))
            accessed.update(pages[address] for address in sorted(addresses))
    return accessed


def oom_victim(m: Machine, group: Group, cause: str) -> int:
    """Returns the number of the space under `group` that holds most memory, the eldest of equals; 0 without one."""
    group.oom_events += 1
    members = {level.id for level in group.subtree()}
    under = [space for space in m.spaces if space.group in members]
    heaviest = max(under, key=lambda space: space.weight, default=None)
    m.record(
        m.names.group(group.name),
        "group.out_of_memory",
        cause=cause,
        rule="the space that holds most memory under the group at its limit",
        victim=m.names.space(heaviest.number) if heaviest else "none",
        weight_pages=heaviest.weight if heaviest else 0,
        usage_pages=group.usage,
        limit_bytes="none" if group.max_bytes is None else group.max_bytes,
    )
    return heaviest.number if heaviest else 0
