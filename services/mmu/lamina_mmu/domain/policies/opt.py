"""OPT, Belady's optimum: the page whose next access is farthest away goes. Pure. Needs the future, so replays only.

    evict        the page with the farthest next access; of pages that are never accessed again the one that was brought
                 in or accessed first

`foresee` tells the next access of each page that is accessed; no policy misses less often.
Source: L. Belady, A study of replacement algorithms for a virtual-storage computer, IBM Systems Journal 5(2), 1966.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy

NEVER = 1 << 62
"""Position of an access that does not come."""


def next_accesses(trace: list[int]) -> list[int]:
    """Returns for each access of a trace the position of the next one to the same page; NEVER without one."""
    ahead: dict[int, int] = {}
    found = [NEVER] * len(trace)
    for position in range(len(trace) - 1, -1, -1):
        found[position] = ahead.get(trace[position], NEVER)
        ahead[trace[position]] = position
    return found


class Opt(Policy):
    """Lets go the page that is not needed for the longest time."""

    name: ClassVar[str] = "opt"
    summary: ClassVar[str] = "The page whose next access is farthest away goes: the fewest misses that can be."
    source: ClassVar[str] = "L. Belady, A study of replacement algorithms for a virtual-storage computer, 1966"
    offline: ClassVar[bool] = True

    def begin(self) -> None:
        """Starts knowing nothing."""
        self.next: dict[int, int] = {}
        self.heap: list[tuple[int, int, int]] = []
        self.stamp: dict[int, int] = {}
        self.tick = 0

    def __len__(self) -> int:
        return len(self.stamp)

    def __contains__(self, page: object) -> bool:
        return page in self.stamp

    def foresee(self, page: int, position: int) -> None:
        """Tells, before the access to `page` is told, where the one after it is."""
        self.next[page] = position

    def brought_in(self, page: int) -> None:
        """Takes the page up with its next access."""
        self.tick += 1
        self.stamp[page] = self.tick
        heapq.heappush(self.heap, (-self.next.get(page, NEVER), self.tick, page))

    def accessed(self, page: int) -> None:
        """Takes the page's next access up."""
        self.brought_in(page)

    def left(self, page: int) -> None:
        """Forgets the page."""
        self.stamp.pop(page, None)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the page that is needed last."""
        kept: list[tuple[int, int, int]] = []
        choice = None
        while self.heap and choice is None:
            entry = heapq.heappop(self.heap)
            distance, tick, page = entry
            if self.stamp.get(page) != tick:
                continue  # told of again since
            if not may_go(page):
                kept.append(entry)
                continue
            del self.stamp[page]
            when = "never accessed again" if -distance == NEVER else f"next accessed at position {-distance}"
            choice = Choice(page, f"{when}, the farthest of {len(self.stamp) + 1} pages")
        for entry in kept:
            heapq.heappush(self.heap, entry)
        return choice

    def order(self) -> Iterator[int]:
        """Yields the pages by their next access, the farthest first."""
        yield from (page for _, tick, page in sorted(self.heap) if self.stamp.get(page) == tick)

    def standing(self, page: int) -> str:
        """Returns the next access."""
        position = self.next.get(page, NEVER)
        return "never accessed again" if position == NEVER else f"next access at {position}"
