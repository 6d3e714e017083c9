"""Pages that left and are remembered: a queue of numbers, first in, first out. Pure."""

from __future__ import annotations

from collections import OrderedDict


class Ghost:
    """At most `capacity` page numbers; one more pushes the oldest out. A capacity of 0 remembers nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pages: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, page: object) -> bool:
        return page in self._pages

    def add(self, page: int) -> None:
        """Remembers a page; one that is remembered keeps its place."""
        if not self.capacity or page in self._pages:
            return
        if len(self._pages) >= self.capacity:
            self._pages.popitem(last=False)
        self._pages[page] = None

    def remove(self, page: int) -> bool:
        """Forgets a page; returns whether it was remembered."""
        if page not in self._pages:
            return False
        del self._pages[page]
        return True

    def forget_oldest(self) -> None:
        """Forgets the page that left first, if there is one."""
        if self._pages:
            self._pages.popitem(last=False)

    def resize(self, capacity: int) -> None:
        """Takes a new capacity; what is too much is forgotten, oldest first."""
        self.capacity = capacity
        while len(self._pages) > capacity:
            self._pages.popitem(last=False)
