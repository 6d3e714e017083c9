"""x86-64 page tables: the bits, the indices and their names. Pure.

A virtual address of four-level paging, and the 32-bit split that textbooks start with:

     63      48 47    39 38    30 29    21 20    12 11         0        31           12 11         0
    ┌──────────┬────────┬────────┬────────┬────────┬────────────┐      ┌───────────────┬────────────┐
    │ copies   │ PML4   │ PDPT   │ PD     │ PT     │ offset     │      │ page number   │ offset     │
    │ of bit 47│ level 4│ level 3│ level 2│ level 1│            │      │ (20 bits)     │ (12 bits)  │
    └──────────┴────────┴────────┴────────┴────────┴────────────┘      └───────────────┴────────────┘

An entry, 8 bytes, at table + 8 · index:

     63  62       52 51                        12 11    9 8  7  6  5  4   3   2  1  0
    ┌───┬───────────┬────────────────────────────┬───────┬──┬──┬──┬──┬───┬───┬──┬──┬──┐
    │NX │ (ignored) │ frame number               │soft   │G │PS│D │A │PCD│PWT│US│RW│P │
    └───┴───────────┴────────────────────────────┴───────┴──┴──┴──┴──┴───┴───┴──┴──┴──┘

Level 4 is the root. A leaf is at level 1 (4 KiB), or has PS at level 2 (2 MiB) or level 3 (1 GiB).
Source: Intel SDM vol. 3, 5.5 (4-level paging) and 30.3.2 (EPT).
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
ENTRIES = 512
LEVELS = 4

PRESENT = 1 << 0
RW = 1 << 1
US = 1 << 2
PWT = 1 << 3
PCD = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
PS = 1 << 7
GLOBAL = 1 << 8
NX = 1 << 63
ADDR_MASK = 0x000F_FFFF_FFFF_F000

COW = 1 << 9
"""Software bit: write-protected because it is shared; the first write copies."""

SWAPPED = 1 << 1
"""In an entry without PRESENT: the rest says where in the swap area the page is."""
SWAP_SHIFT = 12

EPT_R = 1 << 0
EPT_W = 1 << 1
EPT_X = 1 << 2
EPT_PS = 1 << 7
EPT_A = 1 << 8
EPT_D = 1 << 9

USER_END = 1 << 47
"""First address above the half that user space may use."""

TABLE_NAMES = {4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
"""Name of the table of each level."""

_NAMES = (
    (PRESENT, "P"),
    (RW, "RW"),
    (US, "US"),
    (PWT, "PWT"),
    (PCD, "PCD"),
    (ACCESSED, "A"),
    (DIRTY, "D"),
    (PS, "PS"),
    (GLOBAL, "G"),
    (COW, "COW"),
    (NX, "NX"),
)
_EPT_NAMES = ((EPT_R, "R"), (EPT_W, "W"), (EPT_X, "X"), (EPT_PS, "PS"), (EPT_A, "A"), (EPT_D, "D"))


@dataclass(frozen=True)
class Bits:
    """A page-table entry taken apart. `frame` is a frame number, or the swap slot when `swapped`."""

    frame: int
    present: bool
    writable: bool
    user: bool
    accessed: bool
    dirty: bool
    large: bool
    no_execute: bool
    cow: bool
    swapped: bool


def decode(entry: int) -> Bits:
    """Returns what a 64-bit page-table entry says. In an entry without P, only `swapped` and its slot mean anything."""
    if not entry & PRESENT:
        slot = swap_slot(entry)
        return Bits(slot or 0, False, False, False, False, False, False, False, False, slot is not None)
    return Bits(
        frame=(entry & ADDR_MASK) >> PAGE_SHIFT,
        present=True,
        writable=bool(entry & RW),
        user=bool(entry & US),
        accessed=bool(entry & ACCESSED),
        dirty=bool(entry & DIRTY),
        large=bool(entry & PS),
        no_execute=bool(entry & NX),
        cow=bool(entry & COW),
        swapped=False,
    )


def bit_names(entry: int, level: int = 1) -> tuple[str, ...]:
    """Returns the names of the bits that are set, lowest first; `("SWAP",)` or `()` when not present.

    In a leaf of level 1 the bit at PS is called PAT, as the manual does.
    """
    if not entry & PRESENT:
        return ("SWAP",) if swap_slot(entry) is not None else ()
    names = tuple(name for bit, name in _NAMES if entry & bit)
    return tuple("PAT" if name == "PS" else name for name in names) if level == 1 else names


def ept_bit_names(entry: int) -> tuple[str, ...]:
    """Returns the names of the bits of an EPT entry that are set, lowest first."""
    return tuple(name for bit, name in _EPT_NAMES if entry & bit)


def swap_entry(slot: int) -> int:
    """Returns the entry of a page that lies in slot `slot` (0 to 2^40 - 1) of the swap area."""
    if not 0 <= slot < 1 << 40:
        raise ValueError(f"swap slot {slot} does not fit into 40 bits")
    return slot << SWAP_SHIFT | SWAPPED


def swap_slot(entry: int) -> int | None:
    """Returns the swap slot that an entry names; None when it names none."""
    if entry & PRESENT or not entry & SWAPPED:
        return None
    return (entry & ADDR_MASK) >> SWAP_SHIFT


def index(va: int, level: int) -> int:
    """Returns the index, 0 to 511, that `va` has in a table of `level` (4 the root, 1 the last)."""
    return va >> (PAGE_SHIFT + 9 * (level - 1)) & (ENTRIES - 1)


def span(level: int) -> int:
    """Returns how many bytes one entry of `level` covers: 4 KiB, 2 MiB, 1 GiB, 512 GiB."""
    return 1 << (PAGE_SHIFT + 9 * (level - 1))


def is_canonical(va: int) -> bool:
    """Returns whether bits 63 to 47 of a 64-bit address are all alike."""
    return va >> 47 in (0, 0x1_FFFF)


def is_user(va: int, size: int = 1) -> bool:
    """Returns whether `size` bytes at `va` lie in the user half, without wrapping."""
    return va >= 0 and size >= 0 and va + size <= USER_END


def split32(va: int) -> tuple[int, int]:
    """Returns (page number, offset) of a 32-bit address: 0x12345678 → (0x12345, 0x678)."""
    if not 0 <= va < 1 << 32:
        raise ValueError(f"{va:#x} is not a 32-bit address")
    return va >> PAGE_SHIFT, va & PAGE_MASK


def page_down(address: int) -> int:
    """Returns the start of the page that holds `address`."""
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    """Returns `address` rounded up to a page boundary."""
    return (address + PAGE_MASK) & ~PAGE_MASK
