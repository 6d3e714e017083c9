"""What the kernel says of pages and frames: words of pagemap and kpageflags. Pure.

    pagemap     63 in RAM · 62 in swap · 61 of a file or shared memory · 56 mapped here alone · 54–0 the frame, or
                bits 4–0 the swap area and 54–5 the slot
Source: Linux Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

from lamina_mmu.domain.frames.table import Use

IN_RAM, IN_SWAP, EXCLUSIVE = 1 << 63, 1 << 62, 1 << 56
_FRAME = (1 << 55) - 1

REFERENCED, DIRTY, LRU, SLAB, BUDDY, ANON = 1 << 2, 1 << 4, 1 << 5, 1 << 7, 1 << 10, 1 << 12
COMPOUND_HEAD, HUGE, HWPOISON, NOPAGE, THP, OFFLINE = 1 << 15, 1 << 17, 1 << 19, 1 << 20, 1 << 22, 1 << 23
ZERO_PAGE, PGTABLE, RESERVED = 1 << 24, 1 << 26, 1 << 32
"""Bits of kpageflags."""


def is_resident(word: int) -> bool:
    """Returns whether a page is in RAM."""
    return bool(word & IN_RAM)


def frame_of(word: int) -> int:
    """Returns the frame of a page in RAM; 0 when the kernel keeps it from us (it needs CAP_SYS_ADMIN)."""
    return word & _FRAME if word & IN_RAM else 0


def slot_of(word: int) -> int:
    """Returns the slot of a page in swap, -1 for others. A slot is one of its area; the area is left out."""
    return (word & _FRAME) >> 5 if word & IN_SWAP else -1


def is_shared(word: int) -> bool:
    """Returns whether a page in RAM is mapped elsewhere too."""
    return is_resident(word) and not word & EXCLUSIVE


def use_of(flags: int) -> Use:
    """Returns what a frame is used for, by its flags: what the kernel itself has counts as allocated."""
    if flags & (HWPOISON | OFFLINE):
        return Use.OFFLINE
    if flags & BUDDY:
        return Use.FREE
    if flags & PGTABLE:
        return Use.TABLE
    if flags & (RESERVED | ZERO_PAGE):
        return Use.RESERVED
    if flags & ANON:
        return Use.ANONYMOUS
    return Use.OBJECT if flags & LRU else Use.ALLOCATED
