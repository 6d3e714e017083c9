"""Words of a residency piece as people read them."""

from __future__ import annotations

from lamina_cli.commands.mmu.spaces import page


def test_a_word_says_where_a_page_is_and_its_bits() -> None:
    """In RAM, in swap and nowhere, each with what the contract's bits say."""
    assert page(2 << 62 | 1 << 52 | 1 << 53 | 1 << 55 | 1027) == ("ram", "1027", "A D locked")
    assert page(1 << 62 | 1 << 58 | 7) == ("swap", "7", "COW")
    assert page(0) == ("nowhere", "", "")
