"""Least recently used. Pure.

    first to go ─▶ A(3) B(4) C(9) D(10) ◀─ brought in, accessed

One list by last access; a page goes to the young end when it is brought in and when it is accessed. In the MMU accesses
are looks at A bits: between two looks they have no order, so pages seen accessed by the same look keep the order that
they had. With every page touched once, the first to come is the first to go, as in the textbook's example.
Source: A. S. Tanenbaum, Modern Operating Systems, 3.4.6 (LRU); R. Mattson et al., Evaluation techniques for storage
hierarchies, IBM Systems Journal 9(2), 1970.
"""

from __future__ import annotations

from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy, first_of


class Lru(Policy):
    """Lets go the page whose last access is the oldest."""

    name: ClassVar[str] = "lru"
    summary: ClassVar[str] = "The page whose last access is the oldest goes first."
    source: ClassVar[str] = "A. S. Tanenbaum, Modern Operating Systems, 3.4.6"
    first_access_counts: ClassVar[bool] = True

    def accessed(self, page: int) -> None:
        """Moves a page to the young end."""
        self.pages.move_to_end(page)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the page at the old end."""
        page = first_of(self.pages, may_go)
        if not page:
            return None
        reason = f"the oldest sampled access of {len(self.pages)} pages"
        del self.pages[page]
        return Choice(page, reason)

    def restored(self, page: int) -> None:
        """Puts the page back at the old end."""
        self.pages[page] = None
        self.pages.move_to_end(page, last=False)

    def standing(self, page: int) -> str:
        """Returns nothing more than the age says."""
        return "by the last sampled access"
