"""The EPT editor: tables in RAM, changed by compare-and-swap alone."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa
from lamina_hypervisor.domain.memory.ept import EPT_WRITE_BACK, Ept
from lamina_kit.errors import Internal, Unavailable
from lamina_kit.paging import EPT_A, EPT_D, EPT_R, EPT_W, EPT_X


@pytest.fixture
def ept(world: Any) -> Ept:
    """A table with its root and eight spare frames."""
    table = Ept(world.ram, Frame(1))
    table.add_tables([Frame(number) for number in range(2, 10)])
    return table


def test_a_mapped_page_is_four_entries_in_ram(ept: Ept, world: Any) -> None:
    """A page is found through entries of the root, two tables between and a leaf, which name one another's frames."""
    ept.install(Gpa(0x5000), Frame(0x15), writable=True, executable=False)
    visits = ept.walk(Gpa(0x5000))
    assert [(visit.level, visit.index) for visit in visits] == [(4, 0), (3, 0), (2, 0), (1, 5)]
    assert [visit.address for visit in visits] == [0x1000, 0x2000, 0x3000, 0x4028]
    assert visits[-1].entry == 0x15000 | EPT_WRITE_BACK | EPT_R | EPT_W
    assert world.ram.load64(0x4028) == visits[-1].entry


def test_an_address_is_translated_with_its_offset(ept: Ept) -> None:
    """The document's example: guest physical 0x5000 lies at host physical 0x15000."""
    ept.install(Gpa(0x5000), Frame(0x15), writable=False, executable=True)
    assert ept.translate(Gpa(0x5123)) == 0x15123
    assert ept.translate(Gpa(0x5123), write=True) is None
    assert ept.translate(Gpa(0x6000)) is None


def test_install_says_how_many_tables_it_lacks(world: Any) -> None:
    """A fresh table lacks three tables for its first page and one for a page in another 2 MiB."""
    ept = Ept(world.ram, Frame(1))
    assert ept.tables_lacking(Gpa(0)) == 3
    ept.add_tables([Frame(2), Frame(3), Frame(4)])
    assert ept.tables_lacking(Gpa(0)) == 0
    ept.install(Gpa(0), Frame(9), writable=True, executable=True)
    assert ept.tables_lacking(Gpa(0x1FF000)) == 0
    assert ept.tables_lacking(Gpa(0x200000)) == 1
    assert ept.all_table_frames() == [1, 2, 3, 4]


def test_a_grant_widens_the_rights_of_a_page(ept: Ept) -> None:
    """A read-only page that is granted for writing keeps its accessed bit and gets W."""
    ept.install(Gpa(0x1000), Frame(7), writable=False, executable=False)
    leaf = ept.walk(Gpa(0x1000))[-1].address
    ept._memory.cas64(leaf, ept.entry(Gpa(0x1000)), ept.entry(Gpa(0x1000)) | EPT_A)
    entry = ept.install(Gpa(0x1000), Frame(7), writable=True, executable=True)
    assert entry & (EPT_R | EPT_W | EPT_X | EPT_A) == EPT_R | EPT_W | EPT_X | EPT_A
    assert ept.mapped == 1


def test_another_frame_for_a_mapped_page_is_a_defect(ept: Ept) -> None:
    """A page that is mapped must be revoked before another frame is granted for it."""
    ept.install(Gpa(0x1000), Frame(7), writable=True, executable=True)
    with pytest.raises(Internal) as caught:
        ept.install(Gpa(0x1000), Frame(8), writable=True, executable=True)
    assert caught.value.reason == "GRANT_CONFLICT"


def test_a_revocation_returns_the_bits_once(ept: Ept) -> None:
    """What cores wrote into the entry leaves with the revocation; a second one finds nothing."""
    ept.install(Gpa(0x1000), Frame(7), writable=True, executable=True)
    entry = ept.entry(Gpa(0x1000))
    ept._memory.cas64(ept.walk(Gpa(0x1000))[-1].address, entry, entry | EPT_A | EPT_D)
    bits = ept.revoke(Gpa(0x1000), write_only=False)
    assert bits is not None
    assert (bits.accessed, bits.dirty) == (True, True)
    assert ept.entry(Gpa(0x1000)) == 0
    assert ept.revoke(Gpa(0x1000), write_only=False) is None


def test_taking_the_right_to_write_leaves_the_page(ept: Ept) -> None:
    """A write-only revocation clears W and D, keeps R, and hands the dirty bit over."""
    ept.install(Gpa(0x1000), Frame(7), writable=True, executable=False)
    entry = ept.entry(Gpa(0x1000))
    ept._memory.cas64(ept.walk(Gpa(0x1000))[-1].address, entry, entry | EPT_D)
    bits = ept.revoke(Gpa(0x1000), write_only=True)
    assert bits is not None and bits.dirty
    assert ept.entry(Gpa(0x1000)) & (EPT_R | EPT_W | EPT_D) == EPT_R
    assert ept.mapped == 1


def test_ages_come_by_address_and_clear_accessed_bits_only(ept: Ept) -> None:
    """The accessed bit is taken, the dirty bit stays until the page goes."""
    pages = [Gpa(0x3000), Gpa(0x9000), Gpa(0x1000)]
    for gpa in (0x3000, 0x1000):
        ept.install(Gpa(gpa), Frame(gpa >> 12), writable=True, executable=True)
    entry = ept.entry(Gpa(0x3000))
    ept._memory.cas64(ept.walk(Gpa(0x3000))[-1].address, entry, entry | EPT_A | EPT_D)
    assert [(bits.gpa, bits.accessed, bits.dirty) for bits in ept.take_ages(pages)] == [
        (0x1000, False, False),
        (0x3000, True, True),
    ]
    assert [(bits.gpa, bits.accessed, bits.dirty) for bits in ept.take_ages(pages)][1] == (0x3000, False, True)


def test_a_bit_that_a_core_sets_meanwhile_is_not_lost(ept: Ept, world: Any) -> None:
    """When a core changes the entry between load and exchange, the revocation sees what the core wrote."""
    ept.install(Gpa(0x1000), Frame(7), writable=True, executable=True)
    address = ept.walk(Gpa(0x1000))[-1].address
    plain = world.ram.cas64
    raced: list[int] = []

    def cas64(pa: int, expected: int, new: int) -> int:
        if pa == address and not raced:
            raced.append(pa)
            world.ram.store(pa, expected | EPT_D)
        return plain(pa, expected, new)  # type: ignore[no-any-return]

    world.ram.cas64 = cas64
    bits = ept.revoke(Gpa(0x1000), write_only=False)
    assert raced and bits is not None and bits.dirty


def test_addresses_beyond_48_bits_are_not_mapped(ept: Ept) -> None:
    """An address that four levels cannot hold has no walk."""
    assert ept.walk(Gpa(1 << 48)) == []
    assert ept.translate(Gpa(1 << 50)) is None


def test_a_table_that_was_closed_takes_no_more_pages(ept: Ept, world: Any) -> None:
    """The MMU fills the root of a holder that was silent with 0x800; a late grant finds no way into such a table."""
    for index in range(512):
        world.ram.store(0x1000 + 8 * index, 0x800)
    with pytest.raises(Unavailable) as caught:
        ept.install(Gpa(0x1000), Frame(7), writable=True, executable=True)
    assert caught.value.reason == "EPT_CLOSED"
    assert (ept.mapped, ept.all_table_frames()) == (0, list(range(1, 10)))
