"""What /proc/PID/maps and smaps say, as regions. Pure.

    00400000-00402000 rw-s 00001000 00:01 2132      /memfd:o-1 (deleted)
    Rss:                   8 kB
    …
    VmFlags: rd wr sh mr mw me ms

Source: Linux Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lamina_kit.paging import PAGE_SIZE, USER_END
from lamina_mmu.domain.tables.entry import EXECUTE, READ, WRITE

_RIGHTS = (("r", READ), ("w", WRITE), ("x", EXECUTE))
_KIB_PER_PAGE = PAGE_SIZE >> 10


@dataclass(slots=True)
class Region:
    """One mapping of a process, as the kernel tells it. `sizes` are those of smaps in KiB; `flags` its VmFlags.

    `inode` is that of the file behind it, 0 for anonymous memory.
    """

    start: int
    end: int
    rights: int
    shared: bool
    offset: int
    inode: int
    path: str
    sizes: dict[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def resident(self) -> int:
        """Returns its pages in RAM."""
        return self.pages("Rss")

    @property
    def swapped(self) -> int:
        """Returns its pages in swap."""
        return self.pages("Swap")

    def pages(self, *names: str) -> int:
        """Returns the sum of some of its sizes, in pages."""
        return sum(self.sizes.get(name, 0) for name in names) // _KIB_PER_PAGE


def parse(text: str) -> list[Region]:
    """Returns the regions of the lower half by address; of `maps` without sizes and flags."""
    regions: list[Region] = []
    for line in text.splitlines():
        head, _, rest = line.partition(" ")
        if head.endswith(":"):
            if not regions:
                continue
            if head == "VmFlags:":
                regions[-1].flags = tuple(rest.split())
            elif rest.endswith(" kB"):
                regions[-1].sizes[head[:-1]] = int(rest[:-3])
        else:
            regions.append(_header(head, rest))
    return [region for region in regions if region.end <= USER_END]


def _header(head: str, rest: str) -> Region:
    low, _, high = head.partition("-")
    rights, offset, _, inode, *path = rest.split(None, 4)
    bits = sum(bit for letter, bit in _RIGHTS if letter in rights)
    start, end, name = int(low, 16), int(high, 16), path[0] if path else ""
    return Region(start, end, bits, rights[3] == "s", int(offset, 16), int(inode), name)


def parse_sizes(text: str) -> Mapping[str, int]:
    """Returns the numbers of files such as status, meminfo and vmstat by name; sizes in KiB, as they stand there."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdecimal():
            found[words[0].rstrip(":")] = int(words[1])
    return found


def outside(regions: Iterable[Region], start: int, end: int) -> Iterator[Region]:
    """Yields the regions that do not touch a range."""
    return (region for region in regions if region.end <= start or region.start >= end)


def at(regions: Sequence[Region], address: int) -> Region | None:
    """Returns the region that covers an address."""
    return next((region for region in regions if region.start <= address < region.end), None)


def within(regions: Iterable[Region], start: int, end: int) -> list[Region]:
    """Returns the regions that overlap a range."""
    return [region for region in regions if region.start < end and region.end > start]


def hole(regions: Iterable[Region], start: int, end: int) -> int | None:
    """Returns the first address of a range that no region covers; None when all are covered."""
    for region in within(regions, start, end):
        if region.start > start:
            return start
        start = region.end
    return start if start < end else None


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a process since its start. Source: proc(5), /proc/PID/stat, fields 10 and 12."""

    minor: int
    major: int


def parse_faults(stat: str) -> Faults:
    """Returns the faults that a stat line tells; the name in it may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return Faults(int(fields[7]), int(fields[9]))
