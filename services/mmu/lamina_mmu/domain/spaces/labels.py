"""Labels of ranges, for people: what mappings are called where the kernel keeps no names of them. Pure."""

from __future__ import annotations

from bisect import bisect_right


class Labels:
    """Ranges (start, end) with their labels, by address, never overlapping. Ranges without a label are left out."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, str]] = []

    def copy(self) -> Labels:
        """Returns the same labels once more."""
        made = Labels()
        made._ranges = list(self._ranges)
        return made

    def at(self, address: int) -> str:
        """Returns the label of an address, empty without one."""
        position = bisect_right(self._ranges, address, key=lambda one: one[0]) - 1
        if position >= 0 and address < self._ranges[position][1]:
            return self._ranges[position][2]
        return ""

    def put(self, start: int, end: int, label: str) -> None:
        """Labels a range, whatever it was labelled before; an empty label takes labels away."""
        kept = []
        for low, high, text in self._ranges:
            if low < start:
                kept.append((low, min(high, start), text))
            if high > end:
                kept.append((max(low, end), high, text))
        if label:
            kept.append((start, end, label))
        self._ranges = sorted(kept)

    def move(self, start: int, end: int, target: int) -> None:
        """Moves the labels of a range to where its pages went."""
        moved = [(max(low, start), min(high, end), text) for low, high, text in self._ranges]
        self.put(start, end, "")
        for low, high, text in moved:
            if low < high:
                self.put(low - start + target, high - start + target, text)
