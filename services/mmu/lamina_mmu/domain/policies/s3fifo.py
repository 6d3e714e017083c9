"""S3-FIFO: three queues, first in, first out: small, main, and a ghost of what left the small one. Pure.

    brought in ─▶ small ──▶ accessed `threshold` times or more: main         otherwise out, remembered in the ghost
    brought in, remembered ─▶ main ──▶ accessed: to the end, one access less       otherwise out

    sizes        small ⌊c · small-percent / 100⌋ (default 10), main the rest, ghost ⌊c · ghost-percent / 100⌋ (default
                 90), where c is the number of frames. Sizes of small and main decide who evicts; neither is a bound
    counter      0 on arrival in either queue; an access adds 1 (up to 3 count in main)
    brought in   remembered in the ghost: forgotten there (before anything is evicted for it), to main; else to small,
                 but to main while nothing was ever evicted and small has its size
    evict        main has more than its size, or small is empty: from main, otherwise from small:
                 small   the first: counter ≥ threshold (default 2): to the end of main with counter 0, next; otherwise
                         it goes and is remembered. Only when small runs empty so, evict begins again
                 main    the first: counter ≥ 1: to the end with min(counter, 3) - 1, next; otherwise it goes

As libCacheSim `S3FIFO` (its version, which fills main before the first eviction) for c ≥ 20; with a small queue of one
page or none, libCacheSim takes no newcomer in.
Source: J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023, algorithm 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policies.ghost import Ghost
from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Parameter, Policy, first_of


class S3Fifo(Policy):
    """Filters one-time pages in a small queue. `pages` is small; `counters` has the pages whose counter is above 0."""

    name: ClassVar[str] = "s3fifo"
    summary: ClassVar[str] = "A small queue filters pages that are used once; a main queue gives others more rounds."
    source: ClassVar[str] = "J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023"
    remembers: ClassVar[bool] = True
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("ghost-percent", 90, 0, 1000, "pages remembered, as a share of the frames"),
        Parameter("small-percent", 10, 0, 100, "share of the frames for newcomers"),
        Parameter("threshold", 2, 1, 255, "accesses in the small queue that lead to the main one"),
    )

    def begin(self) -> None:
        """Starts with empty queues."""
        self.main: OrderedDict[int, None] = OrderedDict()
        self.counters: dict[int, int] = {}
        self.ghost = Ghost(0)
        self.returning = 0
        self.has_evicted = False
        self.resize(self.capacity)

    def resize(self, capacity: int) -> None:
        """Takes a new number of frames."""
        self.capacity = capacity
        self.small_size = capacity * self.values["small-percent"] // 100
        self.main_size = capacity - self.small_size
        self.ghost.resize(capacity * self.values["ghost-percent"] // 100)

    def __len__(self) -> int:
        return len(self.pages) + len(self.main)

    def __contains__(self, page: object) -> bool:
        return page in self.pages or page in self.main

    def brought_in(self, page: int) -> None:
        """Puts a remembered page into main, another into small."""
        returns = self.ghost.remove(page) or page == self.returning
        self.returning = 0
        fills = not self.has_evicted and len(self.pages) >= self.small_size
        (self.main if returns or fills else self.pages)[page] = None

    def accessed(self, page: int) -> None:
        """Counts."""
        self.counters[page] = self.counters.get(page, 0) + 1

    def left(self, page: int) -> None:
        """Forgets a page in RAM."""
        if page in self.pages:
            del self.pages[page]
        else:
            self.main.pop(page, None)
        self.counters.pop(page, None)

    def restored(self, page: int) -> None:
        """Puts a page back at the front of its queue."""
        queue = self.pages if self.ghost.remove(page) else self.main
        queue[page] = None
        queue.move_to_end(page, last=False)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes from small or main, as above. Queues whose pages may not go now are passed over."""
        if incoming and self.ghost.remove(incoming):
            self.returning = incoming
        self.has_evicted = True
        while self.pages or self.main:
            if len(self.main) > self.main_size or not self.pages:
                return self._from_main(may_go) or self._from_small(may_go) or self._from_main(may_go)
            choice = self._from_small(may_go)
            if choice is not None:
                return choice
            if self.pages:  # none of them may go
                return self._from_main(may_go)
        return None

    def _from_small(self, may_go: MayGo) -> Choice | None:
        while page := first_of(self.pages, may_go):
            count = self.counters.pop(page, 0)
            del self.pages[page]
            if count < self.values["threshold"]:
                self.ghost.add(page)
                return Choice(page, f"accessed {count} times in the small queue of {len(self.pages) + 1} pages")
            self.main[page] = None
        return None

    def _from_main(self, may_go: MayGo) -> Choice | None:
        rounds = 0
        while page := first_of(self.main, may_go):
            count = self.counters.pop(page, 0)
            if not count:
                del self.main[page]
                return Choice(page, f"no access left in the main queue of {len(self.main) + 1} pages, {rounds} passed")
            if count > 1:
                self.counters[page] = min(count, 3) - 1
            self.main.move_to_end(page)
            rounds += 1
        return None

    def order(self) -> Iterator[int]:
        """Yields, of the queue whose turn it is and then of the other, pages without enough accesses, then the rest."""
        get, threshold = self.counters.get, self.values["threshold"]
        small = (page for page in self.pages if get(page, 0) < threshold)
        main = (page for page in self.main if not get(page, 0))
        from_main = len(self.main) > self.main_size or not self.pages
        for chosen in (main, small) if from_main else (small, main):
            yield from chosen
        yield from (page for page in self.main if get(page, 0))
        yield from (page for page in self.pages if get(page, 0) >= threshold)

    def standing(self, page: int) -> str:
        """Returns the queue and the counter."""
        return f"{'small' if page in self.pages else 'main'}, counter {self.counters.get(page, 0)}"
