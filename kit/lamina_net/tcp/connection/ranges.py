"""A set of numbers kept as sorted ranges that neither overlap nor touch: what has arrived, what was acknowledged."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Half-open ranges `[start, end)`; adding costs O(log n) to find and O(n) to insert."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def around(self, number: int) -> tuple[int, int] | None:
        """Return the range that holds `number`."""
        place = bisect_right(self.starts, number) - 1
        if place < 0 or number >= self.ends[place]:
            return None
        return self.starts[place], self.ends[place]

    def add(self, start: int, end: int) -> tuple[int, int] | None:
        """Add a range that is not empty; return the range it is part of now, or None if all of it was there."""
        first = bisect_left(self.ends, start)
        last = bisect_right(self.starts, end)
        if first < last:
            if self.starts[first] <= start and end <= self.ends[first]:
                return None
            start = min(start, self.starts[first])
            end = max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        return start, end

    def remove_below(self, number: int) -> None:
        """Take out everything below `number`."""
        gone = bisect_right(self.ends, number)
        del self.starts[:gone], self.ends[:gone]
        if self.starts and self.starts[0] < number:
            self.starts[0] = number

    def clear(self) -> None:
        """Take out everything."""
        self.starts.clear()
        self.ends.clear()
