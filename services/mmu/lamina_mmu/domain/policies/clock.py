"""CLOCK: pages on a circle with reference counters, and a hand. Pure.

    hand ─▶ A(1) ─▶ B(0) ─▶ C(1) ─▶ … ─▶ back to A        A loses its bit and is passed, B goes

    brought in   behind the hand (the last that it comes to), counter 0
    accessed     counter + 1, at most 2^bits - 1
    evict        at the hand: a counter above 0 is lowered by one and the hand goes on; the first with 0 goes

`bits` (default 1) is the width of the counter; with 1 it is the reference bit of the textbook, and victims are those of
`second-chance`. The counter is 0 on arrival: only accesses after the fault count (libCacheSim `Clock`, `init_freq` 0).
Source: F. Corbató, A paging experiment with the Multics system, 1968; A. S. Tanenbaum, 3.4.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Parameter, Policy


class Clock(Policy):
    """Lets go the first page at the hand that was not accessed since the hand came by.

    `pages` is the circle, the page at the hand first; `counters` has the pages whose counter is above 0.
    """

    name: ClassVar[str] = "clock"
    summary: ClassVar[str] = "A hand goes round: a page with its reference bit set loses the bit, one without goes."
    source: ClassVar[str] = "F. Corbató, A paging experiment with the Multics system, 1968"
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("bits", 1, 1, 8, "width of the reference counter"),)

    def begin(self) -> None:
        """Starts with all counters at 0."""
        self.counters: dict[int, int] = {}
        self.most = (1 << self.values["bits"]) - 1

    def accessed(self, page: int) -> None:
        """Raises the counter."""
        count = self.counters.get(page, 0)
        if count < self.most:
            self.counters[page] = count + 1

    def left(self, page: int) -> None:
        """Takes the page off the circle; the hand stays where it is."""
        self.pages.pop(page, None)
        self.counters.pop(page, None)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Turns the hand to the first page that goes. Pages that may not go are passed as they are."""
        passed = skipped = 0
        pages, counters = self.pages, self.counters
        while skipped < len(pages):
            page = next(iter(pages))
            if not may_go(page):
                skipped += 1
            elif count := counters.get(page, 0):
                self._lower(page, count)
                skipped = 0
            else:
                del pages[page]
                return Choice(page, f"reference bit 0 at the hand, {passed} of {len(pages) + 1} pages passed")
            pages.move_to_end(page)
            passed += 1
        return None

    def _lower(self, page: int, count: int) -> None:
        if count > 1:
            self.counters[page] = count - 1
        else:
            del self.counters[page]

    def restored(self, page: int) -> None:
        """Puts the page back at the hand."""
        self.pages[page] = None
        self.pages.move_to_end(page, last=False)

    def order(self) -> Iterator[int]:
        """Yields the pages as the hand would take them: round by round, by their counters."""
        get = self.counters.get
        for count in range(self.most + 1):
            yield from (page for page in self.pages if get(page, 0) == count)

    def standing(self, page: int) -> str:
        """Returns the counter."""
        return f"reference bit {self.counters.get(page, 0)}"
