"""2Q (full version): a queue for newcomers, a ghost of those that left it, an LRU list of those that came again. Pure.

    brought in ─▶ A1in (FIFO) ─▶ out, remembered in A1out (numbers only, FIFO)
                                   │ brought in again while remembered
                                   ▼
                                  Am (LRU)

    Kin, Kout    ⌊c · kin-percent / 100⌋ pages in A1in (default 25), ⌊c · kout-percent / 100⌋ in A1out (default 50),
                 where c is the number of frames
    accessed     in A1in: nothing. In Am: to its young end
    brought in   remembered in A1out: forgotten there (before anything is evicted for it), to the young end of Am;
                 otherwise to the end of A1in
    evict        |A1in| > Kin: the first of A1in goes and is remembered; otherwise the old end of Am goes, and is not
                 (the first of A1in when Am is empty, the old end of Am when A1in has no page that may go)

As libCacheSim `TwoQ` for c ≥ 4; below, Kin is 0 and libCacheSim takes nothing in.
Source: T. Johnson, D. Shasha, 2Q: a low overhead high performance buffer management replacement algorithm, VLDB 1994.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from lamina_mmu.domain.policies.ghost import Ghost
from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Parameter, Policy, first_of


class TwoQ(Policy):
    """Lets newcomers go early unless they come again. `pages` is A1in, `again` is Am, `ghost` is A1out."""

    name: ClassVar[str] = "2q"
    summary: ClassVar[str] = "Newcomers pass through a short queue; only those that come again join the LRU list."
    source: ClassVar[str] = "T. Johnson, D. Shasha, 2Q, VLDB 1994"
    remembers: ClassVar[bool] = True
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("kin-percent", 25, 0, 100, "share of the frames for newcomers"),
        Parameter("kout-percent", 50, 0, 1000, "pages remembered, as a share of the frames"),
    )

    def begin(self) -> None:
        """Starts with empty queues."""
        self.again: OrderedDict[int, None] = OrderedDict()
        self.ghost = Ghost(0)
        self.returning = 0
        self.resize(self.capacity)

    def resize(self, capacity: int) -> None:
        """Takes a new number of frames."""
        self.capacity = capacity
        self.kin = capacity * self.values["kin-percent"] // 100
        self.ghost.resize(capacity * self.values["kout-percent"] // 100)

    def __len__(self) -> int:
        return len(self.pages) + len(self.again)

    def __contains__(self, page: object) -> bool:
        return page in self.pages or page in self.again

    def brought_in(self, page: int) -> None:
        """Puts the page into Am if it is remembered, into A1in otherwise."""
        returns = self.ghost.remove(page) or page == self.returning
        self.returning = 0
        (self.again if returns else self.pages)[page] = None

    def accessed(self, page: int) -> None:
        """Moves a page of Am to the young end."""
        if page in self.again:
            self.again.move_to_end(page)

    def left(self, page: int) -> None:
        """Forgets a page in RAM."""
        if page in self.pages:
            del self.pages[page]
        else:
            self.again.pop(page, None)

    def restored(self, page: int) -> None:
        """Puts a page back at the front of the queue that it was in."""
        queue = self.pages if self.ghost.remove(page) else self.again
        queue[page] = None
        queue.move_to_end(page, last=False)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes from A1in when it has more than Kin pages, from Am otherwise."""
        if incoming and self.ghost.remove(incoming):
            self.returning = incoming
        for queue in self._queues():
            page = first_of(queue, may_go)
            if page:
                return self._go(page)
        return None

    def _queues(self) -> tuple[OrderedDict[int, None], OrderedDict[int, None]]:
        return (self.pages, self.again) if len(self.pages) > self.kin else (self.again, self.pages)

    def _go(self, page: int) -> Choice:
        if page in self.pages:
            reason = f"the first of A1in, which has {len(self.pages)} pages (Kin {self.kin})"
            del self.pages[page]
            self.ghost.add(page)
        else:
            reason = f"the oldest access of {len(self.again)} pages in Am"
            del self.again[page]
        return Choice(page, reason)

    def order(self) -> Iterator[int]:
        """Yields what A1in has above Kin, then Am, then the rest of A1in."""
        above = max(0, len(self.pages) - self.kin)
        yield from islice(self.pages, above)
        yield from self.again
        yield from islice(self.pages, above, None)

    def standing(self, page: int) -> str:
        """Returns the queue."""
        return "A1in" if page in self.pages else "Am"
