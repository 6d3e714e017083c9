"""Which register values the architecture refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lamina_hardware.domain.contexts import register_rules as rules

PG, PE, NW, CD, PAE, LME, LMA = 1 << 31, 1, 1 << 29, 1 << 30, 1 << 5, 1 << 8, 1 << 10


@pytest.mark.parametrize(
    ("check", "value", "is_right"),
    [
        (rules.canonical, 0x7FFF_FFFF_FFFF, True),
        (rules.canonical, 0x8000_0000_0000, False),
        (rules.canonical, 0xFFFF_8000_0000_0000, True),
        (rules.canonical, 0xFFFF_7FFF_FFFF_FFFF, False),
        (rules.cr0, PG | PE, True),
        (rules.cr0, PG, False),
        (rules.cr0, PE | CD | NW, True),
        (rules.cr0, PE | NW, False),
        (rules.cr0, PE | 1 << 7, False),
    ],
)
def test_addresses_and_cr0(check: Callable[[int], str], value: int, is_right: bool) -> None:
    """Bits 63 to 47 are equal; PG needs PE, NW needs CD, reserved bits are 0."""
    assert (check(value) == "") == is_right


@pytest.mark.parametrize(
    ("efer", "cr0", "cr4", "is_right"),
    [
        (LME | LMA | 1, PG | PE, PAE, True),
        (LME | LMA, PG | PE, 0, False),
        (LME, PG | PE, PAE, False),
        (LMA, PE, PAE, False),
        (LME, PE, 0, True),
        (0, PE, 0, True),
        (1 << 12, PE, 0, False),
    ],
)
def test_long_mode_is_active_when_it_is_enabled_and_paging_is_on(efer: int, cr0: int, cr4: int, is_right: bool) -> None:
    """LMA is LME and PG, and needs PAE; reserved bits are 0."""
    assert (rules.efer(efer, cr0, cr4) == "") == is_right


@pytest.mark.parametrize(
    ("number", "value", "is_right"),
    [
        (0xC000_0082, 0xFFFF_8000_0000_0000, True),
        (0xC000_0082, 1 << 60, False),
        (0x176, 1 << 47, False),
        (0x174, 0xFFFF_FFFF, True),
        (0x174, 1 << 32, False),
        (0xC000_0103, 1 << 32, False),
        (rules.PAT, 0x0007_0406_0007_0406, True),
        (rules.PAT, 0x0007_0406_0007_0402, False),
        (rules.PAT, 0x0307_0406_0007_0406, False),
        (rules.EFER, 1 << 1, False),
        (0xC000_0081, 2**64 - 1, True),
    ],
)
def test_msrs_are_checked_by_their_kind(number: int, value: int, is_right: bool) -> None:
    """Addresses are canonical, selectors and masks have 32 bits, each byte of PAT is a memory type."""
    assert rules.is_kept(number)
    assert (rules.msr(number, value) == "") == is_right


def test_what_is_wrong_is_said() -> None:
    """The text names the value and the bits."""
    assert rules.known(0x101, 1) == "is 0x101, with reserved bits 0x100"
    assert "memory type 2" in rules.msr(rules.PAT, 2)
    assert not rules.is_kept(0x10)
