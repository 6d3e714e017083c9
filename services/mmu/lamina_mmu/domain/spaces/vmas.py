"""The mappings of one space, in order, never overlapping: lookup, choice of addresses, splitting, merging. Pure.

    0        floor                                                                 TOP
    ├──────────┼──[text][data][heap ▶]      ·  gap  ·     [lib][lib]    [guard][◀ stack]┤
                                             ◀── chosen from the top down

Addresses are chosen as Linux does: the highest gap that fits, below `CHOICE_TOP`; a mapping that grows downwards keeps
its whole reservation and the guard gap below it free of chosen ones. The search begins where hints of earlier ones say
that nothing fits above; so many mappings in a row do not visit each other again and again. Besides what `FreeHints`
says, the hints of a list promise that no reservation of a mapping at or above a hint's top reaches below that top.
Source: mmap(2); Linux Documentation/admin-guide/kernel-parameters.txt (stack_guard_gap).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from lamina_kit.errors import ResourceExhausted
from lamina_kit.paging import PAGE_SIZE, USER_END
from lamina_mmu.domain.spaces.free_hints import FreeHints
from lamina_mmu.domain.spaces.vma import LOCKED, Vma

GUARD_GAP = 256 * PAGE_SIZE
"""Bytes that stay unmapped below a mapping that grows downwards (1 MiB), unless a space wants another gap."""
MAX_MAPPINGS = 65_530
"""Most mappings of one space. Source: Linux, vm.max_map_count."""
CHOICE_TOP = USER_END - (1 << 30)
"""Chosen mappings end at or below this address; the GiB above is for a stack with a fixed address."""
LOWEST = 0x1_0000
"""Chosen mappings start at or above this address. Source: Linux, vm.mmap_min_addr."""


class VmaList:
    """Mappings sorted by address. `mapped_bytes` and `locked_bytes` are the sums of those that there are."""

    def __init__(self, guard_gap: int | None = None) -> None:
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        self._growing: dict[int, int] = {}  # end → limit of the mappings that grow downwards
        self._hints = FreeHints(CHOICE_TOP)
        self._guard_gap = GUARD_GAP if guard_gap is None else guard_gap
        self.mapped_bytes = self.locked_bytes = 0

    def __iter__(self) -> Iterator[Vma]:
        return iter(tuple(self._vmas))

    def __len__(self) -> int:
        return len(self._vmas)

    def copy(self) -> VmaList:
        """Returns a list of the same mappings."""
        made = VmaList(self._guard_gap)
        made._starts, made._vmas = list(self._starts), list(self._vmas)
        made._growing, made._hints = dict(self._growing), self._hints.copy()
        made.mapped_bytes, made.locked_bytes = self.mapped_bytes, self.locked_bytes
        return made

    def set_guard_gap(self, size: int) -> None:
        """Changes how many bytes stay free below mappings that grow downwards."""
        self._guard_gap = size
        self._growing = {vma.end: _limit(vma, self._guard_gap) for vma in self._vmas if vma.grows_down}
        self._hints.forget()

    def at(self, address: int) -> Vma | None:
        """Returns the mapping that covers `address`."""
        position = bisect_right(self._starts, address) - 1
        if position >= 0 and address < self._vmas[position].end:
            return self._vmas[position]
        return None

    def within(self, start: int, end: int) -> list[Vma]:
        """Returns the mappings that overlap the range, ascending."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._vmas[first].end <= start:
            first += 1
        return self._vmas[first : bisect_left(self._starts, end)]

    def covers(self, start: int, end: int) -> int:
        """Returns the first address of the range that no mapping covers; `end` when all are covered."""
        for vma in self.within(start, end):
            if vma.start > start:
                break
            start = vma.end
        return min(start, end)

    def growable(self, address: int) -> Vma | None:
        """Returns the mapping above `address` as it would be, grown down to hold it; None when nothing may grow so.

        The gap is kept to what can be accessed below; a mapping without rights is a guard itself.
        Source: Linux, mm/vma.c, expand_downwards.
        """
        position = bisect_right(self._starts, address)
        if position == len(self._vmas):
            return None
        vma = self._vmas[position]
        start = address & -PAGE_SIZE
        if not vma.grows_down or start < vma.floor:
            return None
        if position:
            below = self._vmas[position - 1]
            gap = self._guard_gap if below.rights and not below.grows_down else 0
            if below.end + gap > start:
                return None
        return vma.grown(start)

    def grow(self, grown: Vma) -> None:
        """Puts a mapping that `growable` returned in the place of what it grew from."""
        position = bisect_right(self._starts, grown.start)
        self._put(position, position + 1, [grown])

    def choose(self, size: int, lowest: int = LOWEST) -> int:
        """Returns the highest free range of `size` bytes below `CHOICE_TOP`; ADDRESS_SPACE_FULL when there is none."""
        top = self._hints.top(size)
        position = bisect_left(self._starts, top)
        if top == CHOICE_TOP:
            top = self._unreserved(top)
        while position and top - self._vmas[position - 1].end < size:
            position -= 1
            top = min(top, _limit(self._vmas[position], self._guard_gap))
        self._hints.learn(size, top)
        if top - size < lowest:
            raise ResourceExhausted(
                f"The space has no free range of {size} bytes.",
                reason="ADDRESS_SPACE_FULL",
                next_step="Unmap something, or map less at once.",
            )
        return top - size

    def insert(self, vma: Vma) -> None:
        """Adds a mapping to a free range and merges it with its neighbours where they continue each other."""
        self.check_room(1)
        position = bisect_left(self._starts, vma.start)
        self._put(position, position, [vma])
        if vma.grows_down:
            self._hints.forget_between(_limit(vma, self._guard_gap), vma.start)
        self._merge(position)

    def remove(self, start: int, end: int) -> list[Vma]:
        """Removes the range, splitting mappings at its ends; returns what was removed, ascending."""
        removed: list[Vma] = []
        kept: list[Vma] = []
        touched = self.within(start, end)
        if not touched:
            return removed
        first = bisect_left(self._starts, touched[0].start)
        for vma in touched:
            low, high = max(start, vma.start), min(end, vma.end)
            if vma.start < low:
                kept.append(vma.cut(vma.start, low))
            if high < vma.end:
                kept.append(vma.cut(high, vma.end))
            removed.append(vma.cut(low, high))
        self.check_room(len(kept) - len(touched))
        self._put(first, first + len(touched), kept)
        if any(vma.grows_down for vma in touched):
            self._hints.forget()  # what it reserved may be free again anywhere below
        else:
            self._freed(end)
        return removed

    def protect(self, start: int, end: int, rights: int) -> list[Vma]:
        """Changes the rights of a range that is covered; returns its parts as they were, ascending."""
        return self.change(start, end, lambda vma: vma.with_rights(rights))

    def change(self, start: int, end: int, edit: Callable[[Vma], Vma]) -> list[Vma]:
        """Replaces each part of the range that is mapped by what `edit` makes of it; returns the parts as they were."""
        before: list[Vma] = []
        after: list[Vma] = []
        touched = self.within(start, end)
        if not touched:
            return before
        first = bisect_left(self._starts, touched[0].start)
        for vma in touched:
            low, high = max(start, vma.start), min(end, vma.end)
            before.append(vma.cut(low, high))
            edited = edit(before[-1])
            if edited == before[-1]:  # as it is: what need not be split is not
                after.append(vma)
                continue
            if vma.start < low:
                after.append(vma.cut(vma.start, low))
            after.append(edited)
            if high < vma.end:
                after.append(vma.cut(high, vma.end))
        self.check_room(len(after) - len(touched))
        self._put(first, first + len(touched), after)
        for position in range(first + len(after), first - 1, -1):
            self._merge_pair(position)
        return before

    def check_room(self, more: int) -> None:
        """Refuses when `more` mappings would be too many."""
        if len(self._vmas) + more > MAX_MAPPINGS:
            raise ResourceExhausted(
                f"The space has {len(self._vmas)} mappings; {MAX_MAPPINGS} is the limit.",
                reason="TOO_MANY_MAPPINGS",
                next_step="Unmap something, or map larger ranges with the same rights.",
            )

    def _freed(self, end: int) -> None:
        """Tells the hints of the gap around `end`, whose lower side was unmapped just now."""
        position = bisect_left(self._starts, end)
        low = self._vmas[position - 1].end if position else 0
        high = min(self._starts[position], CHOICE_TOP) if position < len(self._starts) else CHOICE_TOP
        high = self._unreserved(high)
        self._hints.freed(high - low, high)

    def _unreserved(self, address: int) -> int:
        """Returns `address`, or less where a mapping that ends above it reserves space below it."""
        return min((address, *(limit for end, limit in self._growing.items() if end > address)))

    def _put(self, first: int, end: int, vmas: list[Vma]) -> None:
        for vma in self._vmas[first:end]:
            if vma.grows_down:
                del self._growing[vma.end]
            self.mapped_bytes -= vma.size
            self.locked_bytes -= vma.size if vma.flags & LOCKED else 0
        for vma in vmas:
            if vma.grows_down:
                self._growing[vma.end] = _limit(vma, self._guard_gap)
            self.mapped_bytes += vma.size
            self.locked_bytes += vma.size if vma.flags & LOCKED else 0
        self._vmas[first:end] = vmas
        self._starts[first:end] = [vma.start for vma in vmas]

    def _merge(self, position: int) -> None:
        self._merge_pair(position + 1)
        self._merge_pair(position)

    def _merge_pair(self, position: int) -> None:
        """Merges the mapping at `position` into the one before it, if they continue each other."""
        if not 0 < position < len(self._vmas):
            return
        below, above = self._vmas[position - 1], self._vmas[position]
        if above.continues(below):
            self._put(position - 1, position + 1, [below.joined(above)])


def _limit(vma: Vma, guard_gap: int) -> int:
    """Returns the address at or below which chosen mappings beneath `vma` end."""
    return vma.reserved_start - (guard_gap if vma.grows_down else 0)
