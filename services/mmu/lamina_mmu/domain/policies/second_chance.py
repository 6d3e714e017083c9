"""Second chance: first in, first out, but a page that was accessed is let off once. Pure.

    first to go ─▶ A(R) B C(R) D ◀─ brought in             A goes to the end without R, as if it just came; B goes

    brought in   at the end, R clear (the fault's own access does not count)
    accessed     R set
    evict        the first page: with R, R is cleared and the page goes to the end; without, it goes

The same victims as `clock` with one bit: a list that turns instead of a hand.
Source: A. S. Tanenbaum, Modern Operating Systems, 3.4.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy


class SecondChance(Policy):
    """Lets go the first page of the queue that was not accessed since it joined the end."""

    name: ClassVar[str] = "second-chance"
    summary: ClassVar[str] = "First in, first out, but a page that was accessed since goes to the end once more."
    source: ClassVar[str] = "A. S. Tanenbaum, Modern Operating Systems, 3.4.4"

    def begin(self) -> None:
        """Starts with no page referenced."""
        self.referenced: dict[int, None] = {}

    def accessed(self, page: int) -> None:
        """Sets R."""
        self.referenced[page] = None

    def left(self, page: int) -> None:
        """Takes the page out of the queue."""
        self.pages.pop(page, None)
        self.referenced.pop(page, None)

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the first page without R; those with R before it join the end. A page that may not go joins it too."""
        chances = 0
        for _ in range(2 * len(self.pages)):
            page = next(iter(self.pages))
            if may_go(page):
                if page not in self.referenced:
                    del self.pages[page]
                    return Choice(page, f"R is clear, {chances} before it got a second chance")
                del self.referenced[page]
                chances += 1
            self.pages.move_to_end(page)
        return None

    def restored(self, page: int) -> None:
        """Puts the page back at the front."""
        self.pages[page] = None
        self.pages.move_to_end(page, last=False)

    def order(self) -> Iterator[int]:
        """Yields the pages without R, then those with it."""
        yield from (page for page in self.pages if page not in self.referenced)
        yield from (page for page in self.pages if page in self.referenced)

    def standing(self, page: int) -> str:
        """Returns R."""
        return f"R {int(page in self.referenced)}"
