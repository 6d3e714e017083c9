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
from lamina_kit.errors import ResourceExhausted
from lamina_kit.paging import ACCESSED, PAGE_SHIFT, USER_END
from lamina_mmu.domain.effects import Shootdown, frame_key
from lamina_mmu.domain.frames.table import BUSY, Use
from lamina_mmu.domain.groups.events import GroupEventKind
from lamina_mmu.domain.groups.group import Group
from lamina_mmu.domain.groups.protection import Allowance, effective
from lamina_mmu.domain.hold import Hold
from lamina_mmu.domain.outcome import ReclaimResult
from lamina_mmu.domain.policies.decisions import OTHERS
from lamina_mmu.domain.policies.replacement import Chosen
from lamina_mmu.domain.policy import MayGo
from lamina_mmu.domain.spaces.space import Space
from lamina_mmu.domain.tables.entry import HELD, frame_of, in_ram
from lamina_mmu.domain.tables.four_level import FourLevelTable
from lamina_mmu.domain.tables.table import entries
from lamina_mmu.engines.model.machine.accounting import note_scanned, tell
from lamina_mmu.engines.model.machine.state import Machine
from lamina_mmu.engines.model.reclaim.eviction import evict, may_be_dirty
from lamina_mmu.engines.model.reclaim.plugged_policies import ask
from lamina_mmu.engines.model.reclaim.writeback import write_back
from lamina_mmu.engines.model.withdrawal.holders import sample
from lamina_mmu.engines.model.withdrawal.users import ranges_of

EXACT = 64
"""Populations up to this many pages are looked at as a whole."""
ROUNDS = 4
"""Most windows that are looked at before pages go although they were accessed."""
TURNS = 200
"""Evictions of a group that `swappiness` divides between anonymous pages and pages of objects."""
BATCH = 32
"""Pages that a reclaim for one fault asks for, when there are enough."""


def make_room(m: Machine, group: Group, cause: str, incoming: int = 0) -> Step[bool]:
    """Reclaims from a group at its limit (the root: from the host); returns whether it is worth trying again.

    `incoming` is the number of the page that room is made for; 0 for none.
    """
    group.max_events += 1
    if group.parent is not None:
        tell(m, group, GroupEventKind.MAX, limit=group.max_bytes)
    population = m.policy.population([level.id for level in group.subtree()])
    share = population // (4 if group.parent is None else 16)
    pages = max(1, min(BATCH, share))
    result = yield from reclaim_group(m, group, pages, cause, incoming)
    return bool(result.pages or result.busy)


def reclaim_group(m: Machine, group: Group, pages: int, cause: str, incoming: int = 0) -> Step[ReclaimResult]:
    """Pushes up to `pages` out of a group and all under it, as their policies choose.

    Groups below it are taken from as far as they are not protected: `low` first; when nothing else is left, `min`. With
    no victim but pages that others are pushing out, it waits for one of those and says `busy`.
    """
    for level in group.subtree():
        m.trim_swap(level.id, pages)
    for low in (True, False) if m.protects else (False,):
        result = yield from _reclaim_unprotected(m, group, pages, cause, incoming, low)
        if result.pages or result.busy:
            return result
    if m.groups.swap_over(group.id) is not None and m.policy.population([level.id for level in group.subtree()]):
        over = m.groups.swap_over(group.id) or group
        tell(m, over, GroupEventKind.SWAP_MAX, limit=over.swap_max_bytes)
    return ReclaimResult()


def _reclaim_unprotected(
    m: Machine, group: Group, pages: int, cause: str, incoming: int, low: bool
) -> Step[ReclaimResult]:
    allowance = Allowance(group, low) if m.protects else None
    ids = [level.id for level in group.subtree() if allowance is None or allowance.allows(level.id)]
    if any(m.policy.policy(level).samples for level in ids):
        yield from look(m, lambda: m.policy.candidates(ids), m.policy.population(ids), pages)
    yield from ask(m, ids, pages, incoming)
    if allowance is not None:
        allowance = Allowance(group, low)  # others may have reclaimed while cores were asked
    victims = choose(m, ids, pages, incoming, allowance)
    if victims:
        if m.protects and not low:
            _tell_low(m, group, victims)
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


def _tell_low(m: Machine, target: Group, victims: list[Chosen]) -> None:
    """Tells of groups below `target` that are reclaimed although they are below `low`."""
    floors = effective(target, low=True)
    for group_id in dict.fromkeys(m.policy.leaving[one.frame] for one in victims):
        for level in m.groups.path(group_id):
            if floors.get(level.id) and level.usage <= floors[level.id]:
                tell(m, level, GroupEventKind.LOW, limit=level.low_bytes)
                break


def choose(
    m: Machine, groups: list[int], pages: int, incoming: int = 0, allowance: Allowance | None = None
) -> list[Chosen]:
    """Has the policies of groups choose up to `pages` victims; of several the one with the oldest page at its head.

    With protection it is the one that is farthest above what is protected of it.
    """
    may_go = partial(is_evictable, m)
    held = [group for group in groups if m.policy.population((group,))]
    victims: list[Chosen] = []
    if len(held) == 1 and allowance is None:
        while len(victims) < pages and (chosen := choose_one(m, held[0], may_go, incoming)) is not None:
            victims.append(chosen)
        return victims
    heads: list[tuple[int, int]] = []
    for group in held:
        _push_head(m, heads, group, may_go, allowance)
    while heads and len(victims) < pages:
        _, group = heapq.heappop(heads)
        if allowance is not None and not allowance.allows(group):
            continue
        chosen = choose_one(m, group, may_go, incoming)
        if chosen is not None:
            victims.append(chosen)
            if allowance is not None:
                allowance.took(group)
            _push_head(m, heads, group, may_go, allowance)
    return victims


def choose_one(m: Machine, group_id: int, may_go: MayGo, incoming: int = 0) -> Chosen | None:
    """Has the policy of a group choose a victim, of the kind of page whose turn it is when the group has both kinds.

    Of 200 turns `swappiness` are of anonymous pages. A turn is given up when no page of its kind is among the first 64.
    """
    if not m.policy.is_mixed(group_id):
        return m.policy.evict(group_id, may_go, incoming)
    group, uses = m.groups.get(group_id), m.frames.use
    group.balance += group.swappiness
    kind = Use.ANONYMOUS if group.balance >= TURNS else Use.OBJECT
    if kind == Use.ANONYMOUS:
        group.balance -= TURNS

    def is_kind(frame: int) -> bool:
        return bool(uses[frame] == kind) and may_go(frame)

    if not group.swappiness or any(map(is_kind, islice(m.policy.order(group_id), EXACT))):
        return m.policy.evict(group_id, is_kind, incoming)
    return m.policy.evict(group_id, may_go, incoming)


def _push_head(
    m: Machine, heads: list[tuple[int, int]], group: int, may_go: MayGo, allowance: Allowance | None
) -> None:
    """Adds a group by the age of the page that would go first, or by how far it is above what is protected.

    One without a page that may go is left out.
    """
    frame = next(filter(may_go, m.policy.order(group)), 0)
    if frame:
        first = m.policy.age(frame) if allowance is None else allowance.excess(group)
        heapq.heappush(heads, (-first, group))


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
    return m.policy.oldest_first(dict.fromkeys(found))


def look(m: Machine, candidates: Callable[[], Iterable[int]], population: int, pages: int) -> Step[None]:
    """Tells the policies which of the first candidates were accessed, until enough were not for `pages` victims."""
    window = population if population <= EXACT else max(8 * pages, EXACT)
    for _ in range(1 if window >= population else ROUNDS):
        seen = list(islice((frame for frame in candidates() if is_evictable(m, frame)), window))
        note_scanned(m, seen)
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
            return False  # its supplier keeps it first (`write_back`)
    if m.swap_room(frames.group[frame]):
        return True
    slot = frames.slot[frame] - 1
    return (slot >= 0 and not m.swap.refs[slot]) or not may_be_dirty(m, frame)


def sample_frames(m: Machine, frames: list[int]) -> Step[set[int]]:
    """Returns which frames were accessed since they were last sampled, and clears their A bits."""
    accessed: set[int] = set()
    roots: dict[int, dict[int, None]] = {}
    holds: dict[int, dict[int, int]] = {}
    for frame in frames:
        for space_id, vpn in m.rmap.of(frame):
            space = m.spaces.slot(space_id)
            entry = space.table.load(vpn)
            if entry & HELD and space.holder:
                holds.setdefault(space.holder, {})[vpn << PAGE_SHIFT] = frame
            if entry & ACCESSED:
                cleared = space.table.clear_accessed(vpn)
                accessed.update(_frames_of(m, cleared, frame, vpn))
                if isinstance(space.table, FourLevelTable):
                    roots.setdefault(space.root_address, {}).update(dict.fromkeys(cleared))
    for root, vpns in roots.items():
        yield Shootdown(root, ranges_of(sorted(vpns)))
    for hold_id, pages in holds.items():
        hold = m.holds.get(hold_id)
        if hold is not None:
            addresses = yield from sample(m, hold, sorted(pages.items()))
            accessed.update(pages[address] for address in sorted(addresses) if address in pages)
            _tell_others(m, hold, [address for address in sorted(addresses) if address not in pages])
    return accessed


def _tell_others(m: Machine, hold: Hold, addresses: list[int]) -> None:
    """Tells the policies of the other pages of a holder's extents that were accessed: one bit speaks for all."""
    for address in addresses if hold.id in m.holds else ():
        entry = m.spaces.slot(hold.space).table.load(address >> PAGE_SHIFT)
        if entry & HELD and in_ram(entry):
            m.policy.accessed(frame_of(entry))


def _frames_of(m: Machine, pages: range, frame: int, vpn: int) -> range:
    """Returns the frames of pages that share one A bit, a huge page's or just one; the policies learn of them all."""
    first = frame - (vpn - pages.start)
    if len(pages) > 1:
        for other in range(first, first + len(pages)):
            if other != frame:
                m.policy.accessed(other)
    return range(first, first + len(pages))


def oom_victim(m: Machine, group: Group, cause: str) -> int:
    """Returns the number of the space under `group` that holds most memory, the eldest of equals; 0 without one.

    While a space that was chosen is still there, and may be one, it stays the victim, and nothing is told again. With
    `oom_group` all spaces of the victim's group end together.
    """
    group.oom_events += 1
    tell(m, group, GroupEventKind.OOM, limit=group.max_bytes)
    members = {level.id for level in group.subtree()}
    under = [space for space in m.spaces if space.group in members]
    scores = {space.number: (score, space) for space in under if (score := space.badness(m.frames.count)) is not None}
    chosen = next((number for number in group.victims if number in scores), 0)
    if chosen:
        return chosen
    heaviest = max(scores.values(), key=lambda scored: scored[0], default=(0, None))[1]
    rule = "the space that holds most memory under the group at its limit"
    m.record(
        m.names.group(group.name),
        "group.out_of_memory",
        cause=cause,
        rule=rule,
        victim=m.names.space(heaviest.number) if heaviest else "none",
        weight_pages=heaviest.weight if heaviest else 0,
        usage_pages=group.usage,
        limit_bytes="none" if group.max_bytes is None else group.max_bytes,
    )
    if heaviest is None:
        return 0
    group.victims = _dying(m, heaviest, group)
    inputs = {"weight_pages": heaviest.weight, "spaces": len(under), "usage_pages": group.usage}
    for number in group.victims:
        m.record(m.names.space(number), "space.chosen_to_end", cause=cause, rule=rule, group=group.name, **inputs)
    reason = f"{rule}: {heaviest.weight} of {group.usage} pages, of {len(under)} spaces"
    tell(m, group, GroupEventKind.OOM_KILL, limit=group.max_bytes, spaces=group.victims, reason=reason)
    return heaviest.number


def _dying(m: Machine, heaviest: Space, group: Group) -> tuple[int, ...]:
    """Returns the numbers of the spaces that end, the heaviest first: all of the topmost group that dies together."""
    together = None
    for level in m.groups.path(heaviest.group):
        if level.oom_group:
            together = level
        if level is group:
            break
    if together is None:
        return (heaviest.number,)
    members = {level.id for level in together.subtree()}
    others = [space.number for space in m.spaces if space.group in members and space is not heaviest]
    return (heaviest.number, *others)


def no_free_frame(group: Group) -> ResourceExhausted:
    """Returns the error of a call that could not get a frame."""
    return ResourceExhausted(
        f"Memory group {group.name} has no free frame, and nothing in it can be reclaimed.",
        reason="NO_FREE_FRAME",
        next_step="Raise the group's limit, add swap, or end something in the group.",
        group=group.name,
    )
