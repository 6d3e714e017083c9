"""One mapping of a space (virtual memory area): a range, its rights, and what lies behind it. Pure.

Whether an address is *valid* is known here and nowhere else: the P bit of its entry only says whether the page is in
RAM now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina_kit.paging import PAGE_SHIFT

LOCKED = 1 << 0
"""Flag: pages stay in RAM (VM_LOCKED)."""
ON_FAULT = 1 << 1
"""Flag: pages of a locked mapping are locked when they are faulted in (VM_LOCKONFAULT)."""
SEQUENTIAL = 1 << 2
"""Flag: read in order (VM_SEQ_READ)."""
RANDOM = 1 << 3
"""Flag: read in no order: no fault-around, no reading ahead (VM_RAND_READ)."""
HUGE = 1 << 4
"""Flag: wants huge pages (VM_HUGEPAGE)."""
NO_HUGE = 1 << 5
"""Flag: wants none (VM_NOHUGEPAGE)."""
DONT_FORK = 1 << 6
"""Flag: is not in the copy that a fork makes (VM_DONTCOPY)."""
WIPE_ON_FORK = 1 << 7
"""Flag: is zero in the copy that a fork makes (VM_WIPEONFORK)."""


@dataclass(frozen=True, slots=True)
class Vma:
    """Addresses `start` to `end` - 1 (page aligned) with `rights`.

    `object` is the id of the memory object behind it (0: anonymous), which begins at `offset` bytes for `start`.
    `shared`: writes go to the object; otherwise they copy. A mapping that grows downwards may begin as low as `floor`.
    `flags` are those above: what locks and advice left behind.
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
    flags: int = 0

    @property
    def size(self) -> int:
        """Returns how many bytes it covers."""
        return self.end - self.start

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

    def with_flags(self, put: int, clear: int = 0) -> Vma:
        """Returns the mapping with some flags set and others cleared."""
        return replace(self, flags=self.flags & ~clear | put)

    def joined(self, above: Vma) -> Vma:
        """Returns this mapping and the one that continues it as one."""
        return replace(self, end=above.end)

    def continues(self, below: Vma) -> bool:
        """Returns whether this mapping and the one that ends where it begins can be one."""
        return (
            below.end == self.start
            and below.rights == self.rights
            and below.shared == self.shared
            and below.object == self.object
            and below.label == self.label
            and below.flags == self.flags
            and not below.grows_down
            and not self.grows_down
            and (not self.object or below.offset + below.end - below.start == self.offset)
        )
