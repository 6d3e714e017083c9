"""SIEVE: a queue that is never reordered, visited bits, and a hand that stays where it found a victim. Pure.

    oldest ─▶ A(1) B(0) C(1) D(0) ◀─ newest      hand at A: A loses its bit, B goes, the hand now points at C
                  the hand goes from the oldest to the newest, then starts over at the oldest

    brought in   newest, bit 0
    accessed     bit 1
    evict        from the hand (the oldest, when it points nowhere): bits are cleared up to the first page with bit 0,
                 which goes; the hand points at the next newer one, nowhere after the newest

Source: Y. Zhang et al., SIEVE is simpler than LRU, NSDI 2024, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy


class Sieve(Policy):
    """Sifts out pages that were not visited. `newer` and `older` link the queue; 0 is no page."""

    name: ClassVar[str] = "sieve"
    summary: ClassVar[str] = "A hand sifts an unmoved queue: visited pages lose their bit, the first other one goes."
    source: ClassVar[str] = "Y. Zhang et al., SIEVE is simpler than LRU, NSDI 2024"

    def begin(self) -> None:
        """Starts with an empty queue and the hand nowhere."""
        self.newer: dict[int, int] = {}
        self.older: dict[int, int] = {}
        self.visited: dict[int, None] = {}
        self.oldest = self.newest = self.hand = 0

    def __len__(self) -> int:
        return len(self.newer)

    def __contains__(self, page: object) -> bool:
        return page in self.newer

    def brought_in(self, page: int) -> None:
        """Makes the page the newest."""
        self.older[page], self.newer[page] = self.newest, 0
        if self.newest:
            self.newer[self.newest] = page
        else:
            self.oldest = page
        self.newest = page

    def accessed(self, page: int) -> None:
        """Sets the bit."""
        self.visited[page] = None

    def left(self, page: int) -> None:
        """Unlinks the page; a hand that points at it goes on to the next newer one."""
        if page not in self.newer:
            return
        older, newer = self.older.pop(page), self.newer.pop(page)
        if older:
            self.newer[older] = newer
        else:
            self.oldest = newer
        if newer:
            self.older[newer] = older
        else:
            self.newest = older
        if self.hand == page:
            self.hand = newer
        self.visited.pop(page, None)

    def restored(self, page: int) -> None:
        """Puts the page back where it was: next older than the hand, which points at it again."""
        newer = self.hand
        older = self.older[newer] if newer else self.newest
        self.older[page], self.newer[page] = older, newer
        if older:
            self.newer[older] = page
        else:
            self.oldest = page
        if newer:
            self.older[newer] = page
        else:
            self.newest = page
        self.hand = page

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Moves the hand to the first page with a clear bit. Pages that may not go are passed as they are."""
        page = self.hand or self.oldest
        passed = skipped = 0
        while skipped < len(self.newer):
            if not may_go(page):
                skipped += 1
            elif page in self.visited:
                del self.visited[page]
                skipped = 0
            else:
                self.hand = page
                self.left(page)
                return Choice(page, f"not visited since the hand passed; {passed} of {len(self) + 1} pages sifted")
            page = self.newer[page] or self.oldest
            passed += 1
        return None

    def _from_hand(self) -> Iterator[int]:
        page = start = self.hand or self.oldest
        while page:
            yield page
            page = self.newer[page] or self.oldest
            if page == start:
                return

    def order(self) -> Iterator[int]:
        """Yields the pages from the hand on: those not visited, then the others."""
        yield from (page for page in self._from_hand() if page not in self.visited)
        yield from (page for page in self._from_hand() if page in self.visited)

    def standing(self, page: int) -> str:
        """Returns the bit, and whether the hand points at the page."""
        return f"visited {int(page in self.visited)}" + (", at the hand" if page == self.hand else "")
