"""One mapping of a space (virtual memory area): a range, its rights, and what lies behind it. Pure.

Whether an address is *valid* is known here and nowhere else: the P bit of its entry only says whether the page is in
RAM now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina_kit.paging import PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Vma:
    """Addresses `start` to `end` - 1 (page aligned) with `rights`.

    `object` is the id of the memory object behind it (0: anonymous), which begins at `offset` bytes for `start`.
    `shared`: writes go to the object; otherwise they copy. A mapping that grows downwards may begin as low as `floor`.
    """

    start: int
    end: int
    rights: int
    shared: bool = False
    object: int = 0
    offset: int = 0
    label: str = ""
    grows_down: bool = False
    floor: int = 0

    @property
    def pages(self) -> range:
        """Returns the virtual page numbers of the mapping."""
        return range(self.start >> PAGE_SHIFT, self.end >> PAGE_SHIFT)

    @property
    def reserved_start(self) -> int:
        """Returns the lowest address that the mapping may come to cover."""
        return self.floor if self.grows_down else self.start

    def object_page(self, vpn: int) -> int:
        """Returns which page of the object lies behind page `vpn`."""
        return (self.offset >> PAGE_SHIFT) + vpn - (self.start >> PAGE_SHIFT)

    def cut(self, start: int, end: int) -> Vma:
        """Returns the part from `start` to `end`, which lie within. A lower part that is cut off stops the growth."""
        offset = self.offset + start - self.start if self.object else 0
        if not self.grows_down:
            return replace(self, start=start, end=end, offset=offset)
        grows = start == self.start
        return replace(self, start=start, end=end, offset=offset, grows_down=grows, floor=self.floor if grows else 0)

    def grown(self, start: int) -> Vma:
        """Returns the mapping begun at a lower `start`."""
        return replace(self, start=start)

    def with_rights(self, rights: int) -> Vma:
        """Returns the mapping with other rights."""
        return replace(self, rights=rights)

    def continues(self, below: Vma) -> bool:
        """Returns whether this mapping and the one that ends where it begins can be one."""
        return (
            below.end == self.start
            and below.rights == self.rights
            and below.shared == self.shared
            and below.object == self.object
            and below.label == self.label
            and not below.grows_down
            and not self.grows_down
            and (not self.object or below.offset + below.end - below.start == self.offset)
        )
