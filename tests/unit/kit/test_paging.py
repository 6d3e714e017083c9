"""Page-table bits, indices and names."""

from __future__ import annotations

import pytest

from lamina_kit import paging


def test_the_textbook_address_splits() -> None:
    """0x12345678 is page 0x12345, offset 0x678."""
    assert paging.split32(0x12345678) == (0x12345, 0x678)
    with pytest.raises(ValueError, match="32-bit"):
        paging.split32(1 << 32)


def test_four_levels_index_an_address() -> None:
    """Each level takes nine bits, the root the highest."""
    va = (1 << 39) | (2 << 30) | (3 << 21) | (4 << 12) | 5
    assert [paging.index(va, level) for level in (4, 3, 2, 1)] == [1, 2, 3, 4]
    assert paging.index(0xFFFF_FFFF_FFFF_FFFF, 4) == 511


def test_an_entry_of_each_level_covers_its_span() -> None:
    """4 KiB, 2 MiB, 1 GiB, 512 GiB."""
    assert [paging.span(level) for level in (1, 2, 3, 4)] == [1 << 12, 1 << 21, 1 << 30, 1 << 39]


@pytest.mark.parametrize(
    ("va", "canonical", "user"),
    [
        (0, True, True),
        (0x7FFF_FFFF_FFFF, True, True),
        (0x8000_0000_0000, False, False),
        (0xFFFF_7FFF_FFFF_FFFF, False, False),
        (0xFFFF_8000_0000_0000, True, False),
        (0xFFFF_FFFF_FFFF_FFFF, True, False),
    ],
)
def test_canonical_and_user_addresses(va: int, canonical: bool, user: bool) -> None:
    """Bits 63 to 47 are all alike in a canonical address; user space is the lower half."""
    assert paging.is_canonical(va) is canonical
    assert paging.is_user(va) is user


def test_a_user_range_does_not_leave_the_half() -> None:
    """The last byte counts, and nothing wraps."""
    assert paging.is_user(paging.USER_END - 4096, 4096)
    assert not paging.is_user(paging.USER_END - 4096, 4097)
    assert not paging.is_user(-1, 1) and not paging.is_user(0, -1)


def test_an_entry_is_decoded() -> None:
    """Frame and bits come apart."""
    entry = 0x15000 | paging.PRESENT | paging.RW | paging.US | paging.ACCESSED | paging.DIRTY | paging.COW | paging.NX
    bits = paging.decode(entry)
    assert (bits.frame, bits.present, bits.writable, bits.user) == (0x15, True, True, True)
    assert (bits.accessed, bits.dirty, bits.cow, bits.no_execute, bits.large) == (True, True, True, True, False)
    assert paging.bit_names(entry) == ("P", "RW", "US", "A", "D", "COW", "NX")


def test_a_swapped_entry_names_its_slot() -> None:
    """A page in the swap area is not present and says where it is."""
    entry = paging.swap_entry(1234)
    assert not entry & paging.PRESENT
    assert paging.swap_slot(entry) == 1234
    assert paging.decode(entry).swapped and paging.decode(entry).frame == 1234
    assert paging.bit_names(entry) == ("SWAP",)
    assert paging.swap_slot(0) is None and paging.swap_slot(entry | paging.PRESENT) is None
    assert paging.bit_names(0) == ()
    with pytest.raises(ValueError, match="40 bits"):
        paging.swap_entry(1 << 40)


def test_bit_seven_is_called_by_its_level() -> None:
    """PS in a table above the last, PAT in the last."""
    entry = paging.PRESENT | paging.PS
    assert paging.bit_names(entry, 2) == ("P", "PS") and paging.bit_names(entry, 1) == ("P", "PAT")


def test_ept_entries_have_names_of_their_own() -> None:
    """R, W, X, A and D sit elsewhere than in a first-stage entry."""
    entry = paging.EPT_R | paging.EPT_W | paging.EPT_X | paging.EPT_A | paging.EPT_D
    assert paging.ept_bit_names(entry) == ("R", "W", "X", "A", "D")


def test_pages_round_both_ways() -> None:
    """Down to the start of the page, up to the next."""
    assert paging.page_down(0x1FFF) == 0x1000 and paging.page_up(0x1001) == 0x2000 == paging.page_up(0x2000)
