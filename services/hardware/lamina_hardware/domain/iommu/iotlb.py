"""The IOTLB: translations that the IOMMU keeps for a domain, the least recently used one dropped first. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.paging import PAGE_SHIFT, span

CAPACITY = 256
"""Translations of one domain. VT-d leaves the size open; this is of the order of what is measured on real ones."""

_SHIFTS = tuple((level, PAGE_SHIFT + 9 * (level - 1)) for level in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class Kept:
    """A translation: where the page of `size` bytes begins, what may be done, whether its dirty bit is set already."""

    page: int
    level: int
    size: int
    readable: bool
    writable: bool
    dirty: bool


class Iotlb:
    """The translations of one domain, by (level of the leaf, number of the page of that size)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: dict[tuple[int, int], Kept] = {}
        self._sizes = [0, 0, 0, 0]

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, iova: int, write: bool) -> Kept | None:
        """Returns the translation that allows an access; a write needs one whose dirty bit is set."""
        for level, shift in _SHIFTS:
            if not self._sizes[level]:
                continue
            key = (level, iova >> shift)
            kept = self._kept.get(key)
            if kept is not None and (kept.writable and kept.dirty if write else kept.readable):
                del self._kept[key]
                self._kept[key] = kept  # the most recent one is last
                return kept
        return None

    def keep(self, iova: int, kept: Kept) -> None:
        """Adds a translation, in place of the one of the same page."""
        key = (kept.level, iova // kept.size)
        self._drop(key)
        self._kept[key] = kept
        self._sizes[kept.level] += 1
        if len(self._kept) > self._capacity:
            self._drop(next(iter(self._kept)))

    def drop(self, start: int, end: int) -> int:
        """Drops what translates anything from `start` up to `end`; returns how many that were."""
        found = [
            (level, page) for level, page in self._kept if page * span(level) < end and (page + 1) * span(level) > start
        ]
        for key in found:
            self._drop(key)
        return len(found)

    def clear(self) -> int:
        """Drops everything; returns how many translations that were."""
        dropped = len(self._kept)
        self._kept.clear()
        self._sizes = [0, 0, 0, 0]
        return dropped

    def _drop(self, key: tuple[int, int]) -> None:
        if self._kept.pop(key, None) is not None:
            self._sizes[key[0]] -= 1
