"""Which address of a range is the lowest free one, without looking at all of them each time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class FreeAddresses:
    """The addresses `first` to `last`: those given back, and those that nobody had yet.

    Every address below the first that nobody had is taken, or was given back; so nothing is searched.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._fresh = first
        self._back: list[int] = []
        self._is_back: set[int] = set()

    def give_back(self, address: int) -> None:
        """Note that an address may be free again. Idempotent."""
        if self._first <= address < self._fresh and address not in self._is_back:
            self._is_back.add(address)
            heappush(self._back, address)

    def lowest(self, obstructed: Callable[[int], bool]) -> int | None:
        """Return the lowest address that is free and not obstructed; it stays free until it is obstructed.

        What is found obstructed is not looked at again until it is given back.
        """
        while self._back:
            address = self._back[0]
            if not obstructed(address):
                return address
            self._is_back.discard(heappop(self._back))
        while self._fresh <= self._last:
            if not obstructed(self._fresh):
                return self._fresh
            self._fresh += 1
        return None
