"""Least frequently used, by accesses since the page was brought in. Pure.

    1 ─▶ C D      2 ─▶ A      5 ─▶ B          C goes: the lowest count, and of these the first that reached it

    brought in   count 1
    accessed     count + 1, last among those with the new count
    evict        of the lowest count the page that reached it first

Counts do not age and end with the page's stay in RAM ("in-cache LFU", libCacheSim `LFU`).
Source: A. S. Tanenbaum, Modern Operating Systems, 3.4.7 (NFU); K. Shah et al., An O(1) algorithm for implementing the
LFU cache eviction scheme, 2010.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy, first_of


class Lfu(Policy):
    """Lets go the page with the fewest accesses. `counts` by page; `buckets` has the pages of each count."""

    name: ClassVar[str] = "lfu"
    summary: ClassVar[str] = "The page that was accessed least often since it came goes first."
    source: ClassVar[str] = "K. Shah et al., An O(1) algorithm for implementing the LFU cache eviction scheme, 2010"

    def begin(self) -> None:
        """Starts with no count."""
        self.counts: dict[int, int] = {}
        self.buckets: dict[int, OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return len(self.counts)

    def __contains__(self, page: object) -> bool:
        return page in self.counts

    def brought_in(self, page: int) -> None:
        """Counts the access that brought the page in."""
        self._enter(page, 1)

    def accessed(self, page: int) -> None:
        """Counts one more."""
        count = self.counts[page]
        self._leave(page)
        self._enter(page, count + 1)

    def left(self, page: int) -> None:
        """Forgets the page and its count."""
        if page in self.counts:
            self._leave(page)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the first page of the lowest count."""
        lowest = min(self.buckets, default=0)
        page = first_of(self.buckets[lowest], may_go) if lowest else 0
        page = page or first_of(self.order(), may_go)
        if not page:
            return None
        reason = f"{self.counts[page]} accesses, the fewest of {len(self.counts)} pages"
        self._leave(page)
        return Choice(page, reason)

    def order(self) -> Iterator[int]:
        """Yields the pages by count, and of one count by when they reached it."""
        for count in sorted(self.buckets):
            yield from self.buckets[count]

    def standing(self, page: int) -> str:
        """Returns the count."""
        return f"{self.counts[page]} accesses"

    def _enter(self, page: int, count: int) -> None:
        self.counts[page] = count
        bucket = self.buckets.get(count)
        if bucket is None:
            bucket = self.buckets[count] = OrderedDict()
        bucket[page] = None

    def _leave(self, page: int) -> None:
        count = self.counts.pop(page)
        bucket = self.buckets[count]
        del bucket[page]
        if not bucket:
            del self.buckets[count]
