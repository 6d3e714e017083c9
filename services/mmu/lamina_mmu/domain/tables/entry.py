"""Page-table entries as the MMU writes them: the hardware's bits, and what an entry without P means to us. Pure.

An entry is one of

    0                        nothing yet: the first touch fills it (or the mapping says that there is nothing)
    P … frame … NX           a page in RAM; COW (bit 9) marks a page that the first write copies
    SWAP     bit 1, slot     the page lies in a slot of the swap area
    GUARDED  bit 2, frame    the page is in RAM, and its mapping has no right at all (PROT_NONE); A, D and COW are kept
    TRANSIT  bit 3, frame    the page is being taken away or replaced: whoever needs it waits for the frame

The core looks at P alone, so the three last are page faults to it. Source: Intel SDM vol. 3, 5.5 (an entry without P
is free for software); the SWAP form is the kit's (`lamina_kit.paging.swap_entry`).

Spaces of kind GUEST_RAM keep entries of the same form outside RAM (`sparse.py`), with one more bit: HELD, set while
the space's holder may have the page in a table of its own.
"""

from __future__ import annotations

from lamina_kit.paging import (
    ACCESSED,
    ADDR_MASK,
    COW,
    DIRTY,
    NX,
    PAGE_SHIFT,
    PRESENT,
    RW,
    SWAPPED,
    US,
    swap_entry,
)

READ, WRITE, EXECUTE = 1, 2, 4
"""Rights of a mapping, as bits; also the accesses that need them."""

GUARDED = 1 << 2
TRANSIT = 1 << 3
HELD = 1 << 10

TABLE = PRESENT | RW | US
"""Bits of an entry that names a table: the leaf decides."""

_KINDS = PRESENT | SWAPPED | GUARDED | TRANSIT


def leaf(frame: int, rights: int, cow: bool) -> int:
    """Returns the entry that gives `rights` to a page in `frame`; with `cow` the right to write is left out.

    x86 cannot grant a write or an execution without a read, so any right lets the page be read. No right: GUARDED.
    """
    entry = frame << PAGE_SHIFT | (COW if cow else 0)
    if not rights:
        return entry | GUARDED
    if rights & WRITE and not cow:
        entry |= RW
    return entry | PRESENT | US | (0 if rights & EXECUTE else NX)


def transit(entry: int) -> int:
    """Returns the entry that stands where `entry` (of a page in RAM) stood while the page is taken away."""
    return entry & ADDR_MASK | TRANSIT


def swapped(slot: int) -> int:
    """Returns the entry of a page that lies in swap slot `slot`."""
    return swap_entry(slot)


def frame_of(entry: int) -> int:
    """Returns the frame number in an entry of a page in RAM, or in transit."""
    return (entry & ADDR_MASK) >> PAGE_SHIFT


def slot_of(entry: int) -> int:
    """Returns the slot number in a SWAP entry."""
    return (entry & ADDR_MASK) >> PAGE_SHIFT


def is_present(entry: int) -> bool:
    """Returns whether a core may use the entry."""
    return bool(entry & PRESENT)


def is_swap(entry: int) -> bool:
    """Returns whether the page lies in the swap area."""
    return entry & (PRESENT | SWAPPED) == SWAPPED


def is_guarded(entry: int) -> bool:
    """Returns whether the page is in RAM without any right."""
    return entry & _KINDS == GUARDED


def is_transit(entry: int) -> bool:
    """Returns whether the page is being taken away or replaced."""
    return entry & _KINDS == TRANSIT


def in_ram(entry: int) -> bool:
    """Returns whether the entry names a frame that the page may stay in."""
    return bool(entry & PRESENT) or entry & _KINDS == GUARDED


def permits(entry: int, access: int) -> bool:
    """Returns whether a core at ring 3 may make `access` (READ, WRITE or EXECUTE) through this entry."""
    if not entry & PRESENT:
        return False
    if access == WRITE:
        return bool(entry & RW)
    return access != EXECUTE or not entry & NX


def rights_allow(rights: int, access: int) -> bool:
    """Returns whether a mapping with `rights` allows `access`; any right allows reading, as on x86."""
    return bool(rights) if access == READ else bool(rights & access)


def touched(entry: int, write: bool) -> int:
    """Returns the entry as the core leaves it after an access: A set, and D after a write."""
    return entry | ACCESSED | (DIRTY if write else 0)
