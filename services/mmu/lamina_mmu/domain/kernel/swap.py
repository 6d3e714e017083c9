"""The port to the kernel's swap, and the form of what /proc says of it. Pure.

Source: proc(5), swapon(2); Linux, mm/swapfile.c, include/linux/swap.h (union swap_header), mm/page_alloc.c (zoneinfo).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.kernel.cgroups import unescaped

MAGIC = b"SWAPSPACE2"
_INFO_AT = 1024
_KIB_OF_PAGE = PAGE_SIZE // 1024


class KernelSwap(Protocol):
    """Swap areas in files of one folder, and the settings of the host. What is refused is a negative error number."""

    def allowed(self) -> bool:
        """Returns whether this service may take areas into use (CAP_SYS_ADMIN)."""

    def path(self, name: str) -> str:
        """Returns the path of an area of this service."""

    def make(self, name: str, pages: int, is_written: bool) -> int:
        """Makes the file of an area of `pages` and its header; `is_written` has zeros written, not only room taken."""

    def on(self, name: str, priority: int) -> int:
        """Takes it into use."""

    def begin_off(self, name: str) -> int:
        """Begins to take it out of use; `off_key` is woken when that ended."""

    def off(self, name: str) -> int | None:
        """Returns how that ended: 0, or the error; None while it goes on. An end is told once."""

    def stop_off(self, name: str) -> None:
        """Stops that: the area is used again. Idempotent."""

    def remove(self, name: str) -> int:
        """Removes the file of an area that is not in use."""

    def tune(self, setting: str, value: int) -> int:
        """Writes a setting of /proc/sys/vm."""

    def has_generations(self) -> bool:
        """Returns whether the kernel chooses victims by generations (CONFIG_LRU_GEN, switched on)."""

    def close(self) -> None:
        """Takes the areas of this service out of use, as far as that goes, and removes their files. Idempotent."""


@dataclass(frozen=True, slots=True)
class Area:
    """A line of /proc/swaps; sizes in pages, without the header."""

    path: str
    slots: int
    used: int
    priority: int


def areas(text: str) -> list[Area]:
    """Returns the areas of /proc/swaps, in its order; lines that are malformed are passed over."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) != 5 or not (words[2].isdecimal() and words[3].isdecimal()):
            continue
        priority = words[4]
        if not priority.removeprefix("-").isdecimal():
            continue
        path = unescaped(words[0])
        found.append(Area(path, int(words[2]) // _KIB_OF_PAGE, int(words[3]) // _KIB_OF_PAGE, int(priority)))
    return found


def header(pages: int) -> bytes:
    """Returns the first page of an area of `pages`, that one included: version 1, no bad pages, no label."""
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<3I", page, _INFO_AT, 1, pages - 1, 0)
    page[-len(MAGIC) :] = MAGIC
    return bytes(page)


def watermarks(zoneinfo: str) -> tuple[int, int]:
    """Returns the low and the high watermark of all zones together, in frames."""
    sums = {"low": 0, "high": 0}
    for line in zoneinfo.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] in sums and words[1].isdecimal():
            sums[words[0]] += int(words[1])
    return sums["low"], sums["high"]


def off_key(name: str) -> tuple[str, str]:
    """Returns the key that is woken when an area is out of use, or stays in it."""
    return ("swapoff", name)
