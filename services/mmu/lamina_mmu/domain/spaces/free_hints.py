"""What earlier searches for a free range learnt, so that the next one need not begin at the top. Pure.

A hint (size, top) says: no free range of `size` bytes or more ends above `top`. A search for as much or more begins at
`top`. Hints ascend in size and strictly descend in top: who wants more has to look lower. Mapping something keeps every
hint true; unmapping raises those whose size the new gap can hold. A hint only saves work; it never changes what is
found.
Source: the idea of free_area_cache and cached_hole_size, Linux 2.6, arch_get_unmapped_area_topdown.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

MOST_HINTS = 64
"""Most hints kept; one more displaces its neighbour, whose searches then begin higher."""


class FreeHints:
    """Hints of one space; `ceiling` is where a search without a hint begins."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._sizes: list[int] = []
        self._tops: list[int] = []

    def copy(self) -> FreeHints:
        """Returns hints that say the same."""
        made = FreeHints(self._ceiling)
        made._sizes, made._tops = list(self._sizes), list(self._tops)
        return made

    def top(self, size: int) -> int:
        """Returns the address above which no free range of `size` bytes ends."""
        position = bisect_right(self._sizes, size) - 1
        return self._tops[position] if position >= 0 else self._ceiling

    def learn(self, size: int, top: int) -> None:
        """Keeps what a search for `size`, begun at `top(size)`, found: nothing that fits ends above `top`."""
        first = end = bisect_left(self._sizes, size)
        if first and self._tops[first - 1] <= top:
            return  # a smaller size is known to fit no higher
        while end < len(self._sizes) and (self._sizes[end] == size or self._tops[end] >= top):
            end += 1
        self._put(first, end, [(size, top)])
        if len(self._sizes) > MOST_HINTS:
            neighbour = first - 1 if first else 1
            self._put(neighbour, neighbour + 1, [])

    def freed(self, size: int, top: int) -> None:
        """Takes into account a free range of `size` bytes that ends at `top` and is new or larger than before."""
        end = bisect_right(self._sizes, size)
        first = next((index for index in range(end) if self._tops[index] < top), end)
        if first < end:
            raised = [] if top >= self._ceiling or (first and self._tops[first - 1] == top) else [top]
            self._put(first, end, [(self._sizes[first], one) for one in raised])

    def forget(self) -> None:
        """Drops all hints."""
        self._put(0, len(self._sizes), [])

    def forget_between(self, low: int, high: int) -> None:
        """Drops the hints with `low` < top <= `high`."""
        kept = [(s, t) for s, t in zip(self._sizes, self._tops, strict=True) if not low < t <= high]
        self._put(0, len(self._sizes), kept)

    def _put(self, first: int, end: int, hints: list[tuple[int, int]]) -> None:
        self._sizes[first:end] = [size for size, _ in hints]
        self._tops[first:end] = [top for _, top in hints]
