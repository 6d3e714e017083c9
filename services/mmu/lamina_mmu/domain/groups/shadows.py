"""Pages that reclaim took and that are remembered, to tell refaults. Pure."""

from __future__ import annotations

from collections import OrderedDict

from lamina_mmu.domain.groups.group import Group

REMEMBERED = 65_536
"""Evicted pages that are remembered to tell refaults."""


class Shadows:
    """Pages that reclaim took: by number, the group that paid and how many pages it had lost by then.

    Source: Linux mm/workingset.c (a refault counts when fewer pages left meanwhile than the group has).
    """

    def __init__(self) -> None:
        self.pages: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.pages)

    def left(self, page: int, group: Group) -> None:
        """Notes a page that reclaim took."""
        self.pages.pop(page, None)
        self.pages[page] = (group.id, group.taken)
        if len(self.pages) > REMEMBERED:
            self.pages.popitem(last=False)

    def came_back(self, page: int, group: Group) -> bool:
        """Returns whether a page comes back to its group within the size of that."""
        group_id, taken = self.pages.pop(page, (-1, 0))
        return group_id == group.id and group.taken - taken <= max(1, group.usage)
