"""Most recently used: a replacement policy of one's own, in ten lines.

A loop over one page more than fits misses every time under LRU: the page that goes is always the next one needed. The
page that was used last is the one needed latest. Try it:

    PYTHONPATH=examples/policies LAMINA_MMU_POLICY=mru:Mru ./run up
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from lamina_mmu.domain.policy import Policy


class Mru(Policy):
    """Lets go the page whose last access is the newest."""

    name: ClassVar[str] = "mru"
    summary: ClassVar[str] = "The page that was used last goes first: right for loops that do not fit."

    def accessed(self, page: int) -> None:
        """Moves a page to the end."""
        self.pages.move_to_end(page)

    def order(self) -> Iterable[int]:
        """Returns the pages, the last used first."""
        return reversed(self.pages)
