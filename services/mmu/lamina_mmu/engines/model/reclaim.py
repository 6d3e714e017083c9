"""Making room: having the policies choose victims, and pushing them out (the document's swap mechanism).

    candidates, first to go first ──▶ look at A bits ──▶ the policy is told which were accessed ──▶ it chooses victims
    victims ──▶ entries TRANSIT ──▶ shootdowns, revocations (A, D come back) ──▶ still unpinned?
          dirty ──▶ written to swap, entry SWAP     clean ──▶ dropped, entry SWAP (its slot) or 0     pinned ──▶ back

A small population (up to 64 pages) is looked at as a whole, so the choice is exact over what the A bits can tell; a
large one from the end that goes first, in windows. A is cleared by compare-and-swap, and the translations are shot down
so that the next access sets it again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from lamina_kit.effects import Step, WaitFor
from lamina_kit.paging import ACCESSED, PAGE_SHIFT, USER_END
from lamina_mmu.domain.decisions import OTHERS
from lamina_mmu.domain.effects import Shootdown, frame_key
from lamina_mmu.domain.entry import HELD, frame_of, in_ram
from lamina_mmu.domain.four_level import FourLevelTable
from lamina_mmu.domain.frames import BUSY, Use
from lamina_mmu.domain.group import Group
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.policy import MayGo
from lamina_mmu.domain.replacement import Chosen
from lamina_mmu.domain.space import Space
from lamina_mmu.domain.table import entries, update
from lamina_mmu.engines.model.evict import evict, may_be_dirty
from lamina_mmu.engines.model.holding import sample
from lamina_mmu.engines.model.keeping import write_back
from lamina_mmu.engines.model.machine import Machine
from lamina_mmu.engines.model.withdraw import ranges_of

EXACT = 64
"""Populations up to this many pages are looked at as a whole."""
ROUNDS = 4
"""Most windows that are looked at before pages go although they were accessed."""
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
    """Pushes up to `pages` out of a group and all under it, as their policies choose.

    With no victim but pages that others are pushing out, it waits for one of those and says `busy`.
    """
    ids = [level.id for level in group.subtree()]
    for level in ids:
        m.trim_swap(level, pages)
    if any(m.policy.policy(level).samples for level in ids):
        yield from look(m, lambda: m.policy.candidates(ids), m.policy.population(ids), pages)
    victims = choose(m, ids, pages)
    if victims:
        following = [frame for frame in islice(m.policy.candidates(ids), OTHERS) if is_evictable(m, frame)]
        return (yield from evict(m, victims, following, group.name, cause))
    if (yield from write_back(m, ids, pages, cause)):
        return ReclaimResult(busy=1)
    busy = [frame for frame, level in m.policy.leaving.items() if level in ids]
    for frame in (*busy, *m.policy.candidates(ids)):
        if m.frames.flags[frame] & BUSY:
            yield WaitFor(frame_key(frame))
            return ReclaimResult(busy=1)
    return ReclaimResult()


def choose(m: Machine, groups: list[int], pages: int) -> list[Chosen]:
    """Has the policies of groups choose up to `pages` victims; of several the one with the oldest page at its head."""
    may_go = partial(is_evictable, m)
    held = [group for group in groups if m.policy.population((group,))]
    if len(held) == 1:
        return _choose_of(m, held[0], pages, may_go)
    heads: list[tuple[int, int]] = []
    for group in held:
        _push_head(m, heads, group, may_go)
    victims: list[Chosen] = []
    while heads and len(victims) < pages:
        _, group = heapq.heappop(heads)
        victims += _choose_of(m, group, 1, may_go)
        _push_head(m, heads, group, may_go)
    return victims


def _choose_of(m: Machine, group: int, pages: int, may_go: MayGo) -> list[Chosen]:
    victims: list[Chosen] = []
    while len(victims) < pages and (chosen := m.policy.evict(group, may_go)) is not None:
        victims.append(chosen)
    return victims


def _push_head(m: Machine, heads: list[tuple[int, int]], group: int, may_go: MayGo) -> None:
    """Adds a group by the age of the page that would go first; one without such a page is left out."""
    frame = next(filter(may_go, m.policy.order(group)), 0)
    if frame:
        heapq.heappush(heads, (-m.policy.age(frame), group))


def reclaim_space(m: Machine, space: Space, pages: int, cause: str) -> Step[ReclaimResult]:
    """Pushes up to `pages` of a space out, the oldest access first, whatever the policies of its pages' groups."""
    m.trim_swap(space.group, pages)
    population = len(_pages_of(m, space))
    yield from look(m, lambda: _pages_of(m, space), population, pages)
    frames = list(islice((frame for frame in _pages_of(m, space) if is_evictable(m, frame)), pages + OTHERS))
    reason = f"the oldest sampled access of {population} pages"
    victims = [m.policy.take(frame, reason) for frame in frames[:pages]]
    if not victims:
        return ReclaimResult()
    return (yield from evict(m, victims, frames[pages:], m.groups.get(space.group).name, cause))


def _pages_of(m: Machine, space: Space) -> list[int]:
    """Returns the frames that a space maps and that a policy orders, the oldest access first."""
    found: list[int] = []
    for _, some in entries(space.table, 0, USER_END >> PAGE_SHIFT):
        found += [frame_of(entry) for entry in some.tolist() if in_ram(entry)]
    return sorted(filter(m.policy.knows, dict.fromkeys(found)), key=m.policy.age, reverse=True)


def look(m: Machine, candidates: Callable[[], Iterable[int]], population: int, pages: int) -> Step[None]:
    """Tells the policies which of the first candidates were accessed, until enough were not for `pages` victims."""
    window = population if population <= EXACT else max(8 * pages, EXACT)
    for _ in range(1 if window >= population else ROUNDS):
        seen = list(islice((frame for frame in candidates() if is_evictable(m, frame)), window))
        accessed = yield from sample_frames(m, seen)
        for frame in seen:
            if frame in accessed:
                m.policy.accessed(frame)
        if len(seen) - len(accessed) >= pages:
            break


def is_evictable(m: Machine, frame: int) -> bool:
    """Returns whether a frame may leave RAM now: in nobody's hands, unpinned, and with somewhere to go."""
    frames = m.frames
    if frames.use[frame] not in (Use.ANONYMOUS, Use.OBJECT) or frames.flags[frame] & BUSY or m.ram.pins(frame):
        return False
    if frame in m.locked:
        return False
    home = 1 if frames.use[frame] == Use.OBJECT else 0
    if frames.refs[frame] != m.rmap.count(frame) + home:
        return False
    if home:
        entity = m.objects.slot(frames.owner[frame])
        if entity.supplier and entity.keeps_writes and may_be_dirty(m, frame):
            return False  # its supplier keeps it first (`keeping.write_back`)
    if m.swap_room(frames.group[frame]):
        return True
    slot = frames.slot[frame] - 1
    return (slot >= 0 and not m.swap.refs[slot]) or not may_be_dirty(m, frame)


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
    scores = [(score, space) for space in under if (score := space.badness(m.frames.count)) is not None]
    heaviest = max(scores, key=lambda scored: scored[0], default=(0, None))[1]
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
