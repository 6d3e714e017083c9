"""ARC, the adaptive replacement cache: recency and frequency share the frames as their ghosts tell. Pure.

    T1  brought in once     ─▶ B1  its ghost          |T1| + |B1| ≤ c, all four ≤ 2c
    T2  accessed since      ─▶ B2  its ghost          p: how many frames T1 should have, 0 to c; 0 at first

    accessed     to the young end of T2
    brought in   remembered in B1: p ← min(p + max(|B2| / |B1|, 1), c), to T2
                 remembered in B2: p ← max(p - max(|B1| / |B2|, 1), 0), to T2      (sizes with the page in its ghost)
                 otherwise to T1
    evict        for a remembered page: REPLACE, after p was changed and the page was taken out of its ghost
                 otherwise, |T1| + |B1| = c: B1 has a page: forget its oldest, REPLACE; else the old end of T1 goes, and
                 is not remembered;  |T1| + |B1| < c: if all four have 2c, forget the oldest of B2; REPLACE
    REPLACE      |T1| ≥ 1 and (|T1| > p, or |T1| = p and the page is remembered in B2), or T2 is empty: the old end of
                 T1 goes to B1; otherwise that of T2 to B2

p and the quotients are IEEE doubles, as in libCacheSim `ARC`: the same operations give the same bits everywhere.
Source: N. Megiddo, D. Modha, ARC: a self-tuning, low overhead replacement cache, FAST 2003, figure 4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from lamina_mmu.domain.policies.ghost import Ghost
from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy, first_of


class Arc(Policy):
    """Balances recency and frequency. `pages` is T1, `again` is T2; `once`, `twice` are B1 and B2."""

    name: ClassVar[str] = "arc"
    summary: ClassVar[str] = "Recency and frequency share the frames; pages that come back say which deserves more."
    source: ClassVar[str] = "N. Megiddo, D. Modha, ARC, FAST 2003"
    remembers: ClassVar[bool] = True

    def begin(self) -> None:
        """Starts with empty lists and p at 0."""
        self.again: OrderedDict[int, None] = OrderedDict()
        self.once, self.twice = Ghost(self.capacity), Ghost(2 * self.capacity)
        self.p = 0.0
        self.returning = 0
        self.was_twice = False

    def resize(self, capacity: int) -> None:
        """Takes a new number of frames."""
        self.capacity = capacity
        self.p = min(self.p, float(capacity))
        self.once.resize(capacity)
        self.twice.resize(2 * capacity)

    def __len__(self) -> int:
        return len(self.pages) + len(self.again)

    def __contains__(self, page: object) -> bool:
        return page in self.pages or page in self.again

    def accessed(self, page: int) -> None:
        """Moves a page to the young end of T2."""
        if page in self.pages:
            del self.pages[page]
            self.again[page] = None
        else:
            self.again.move_to_end(page)

    def brought_in(self, page: int) -> None:
        """Puts a remembered page into T2, another into T1."""
        returns = page == self.returning or self._adapt(page)
        self.returning = 0
        (self.again if returns else self.pages)[page] = None
        while self.once and len(self.pages) + len(self.once) > self.capacity:
            self.once.forget_oldest()
        while self.twice and len(self) + len(self.once) + len(self.twice) > 2 * self.capacity:
            self.twice.forget_oldest()

    def left(self, page: int) -> None:
        """Forgets a page in RAM."""
        if page in self.pages:
            del self.pages[page]
        else:
            self.again.pop(page, None)

    def restored(self, page: int) -> None:
        """Puts a page back at the old end of its list."""
        queue = self.again if self.twice.remove(page) else self.pages
        self.once.remove(page)
        queue[page] = None
        queue.move_to_end(page, last=False)

    def _adapt(self, page: int) -> bool:
        """Changes p for a page that is remembered, and forgets it; returns whether it was."""
        b1, b2 = len(self.once), len(self.twice)
        if self.once.remove(page):
            self.p = min(self.p + max(b2 / b1, 1), self.capacity)
            self.was_twice = False
            return True
        if self.twice.remove(page):
            self.p = max(self.p - max(b1 / b2, 1), 0)
            self.was_twice = True
            return True
        return False

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes from T1 or T2, as above."""
        returns = bool(incoming) and (incoming == self.returning or self._adapt(incoming))
        self.returning = incoming if returns else 0
        if not returns:
            if len(self.pages) + len(self.once) >= self.capacity:
                if not len(self.once):
                    page = first_of(self.pages, may_go)
                    if page:
                        del self.pages[page]
                        return Choice(page, f"the oldest of T1, which has all {self.capacity} frames")
                self.once.forget_oldest()
            elif len(self) + len(self.once) + len(self.twice) >= 2 * self.capacity:
                self.twice.forget_oldest()
        return self._replace(may_go, returns and self.was_twice)

    def _takes_once(self, was_twice: bool) -> bool:
        size = len(self.pages)
        return (size > 0 and (size > self.p or (size == self.p and was_twice))) or not self.again

    def _replace(self, may_go: MayGo, was_twice: bool) -> Choice | None:
        first = self._takes_once(was_twice)
        for from_once in (first, not first):
            queue = self.pages if from_once else self.again
            page = first_of(queue, may_go)
            if page:
                reason = f"the oldest of T{1 if from_once else 2}: T1 has {len(self.pages)} pages, "
                reason += f"T2 {len(self.again)}, p is {int(self.p)}"
                del queue[page]
                (self.once if from_once else self.twice).add(page)
                return Choice(page, reason)
        return None

    def order(self) -> Iterator[int]:
        """Yields what T1 has above p, then T2, then the rest of T1."""
        above = max(0, len(self.pages) - int(self.p)) if self._takes_once(False) else 0
        yield from islice(self.pages, above)
        yield from self.again
        yield from islice(self.pages, above, None)

    def standing(self, page: int) -> str:
        """Returns the list."""
        return "T1" if page in self.pages else "T2"
