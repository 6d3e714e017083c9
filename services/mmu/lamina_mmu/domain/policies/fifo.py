"""First in, first out. Pure.

    first to go ─▶ A B C D ◀─ brought in

One queue in the order in which pages were brought in. Accesses change nothing; so more frames can mean more misses
(Belady's anomaly: 1 2 3 4 1 2 5 1 2 3 4 5 misses 9 times with 3 frames, 10 times with 4).
Source: A. S. Tanenbaum, Modern Operating Systems, 3.4.3; L. Belady et al., An anomaly in space-time characteristics of
certain programs running in a paging machine, CACM 12(6), 1969.
"""

from __future__ import annotations

from typing import ClassVar

from lamina_mmu.domain.policy import EVERY, Choice, MayGo, Policy, first_of


class Fifo(Policy):
    """Lets go the page that was brought in first."""

    name: ClassVar[str] = "fifo"
    summary: ClassVar[str] = "The page that was brought in first goes first."
    source: ClassVar[str] = "A. S. Tanenbaum, Modern Operating Systems, 3.4.3"
    samples: ClassVar[bool] = False

    def evict(self, may_go: MayGo = EVERY, incoming: int = 0) -> Choice | None:
        """Takes the first page of the queue."""
        page = first_of(self.pages, may_go)
        if not page:
            return None
        reason = f"brought in first of {len(self.pages)} pages"
        del self.pages[page]
        return Choice(page, reason)

    def restored(self, page: int) -> None:
        """Puts the page back at the front."""
        self.pages[page] = None
        self.pages.move_to_end(page, last=False)

    def standing(self, page: int) -> str:
        """Returns nothing more than the place says."""
        return "in the order of arrival"
