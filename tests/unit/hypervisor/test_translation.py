"""The two translations of an address, entry by entry, and where each of them ends."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa, Gva
from lamina_hypervisor.domain.memory.ept import Ept
from lamina_hypervisor.domain.memory.translation import Access, Outcome, Walk, walk
from lamina_kit.paging import NX, PRESENT, PS, RW, US

CR3 = 0x1000
GVA = Gva(0x7F_1234_5678)
PAGE = Gpa(0x9000)
ALL = PRESENT | RW | US


class Guest:
    """A guest whose table pages 0x1000 to 0x4000 and page 0x9000 are mapped; frames lie 0x100 pages higher."""

    def __init__(self, world: Any, **rights: bool) -> None:
        self.ram = world.ram
        self.ept = Ept(world.ram, Frame(1))
        self.ept.add_tables([Frame(number) for number in range(2, 10)])
        for gpa in (0x1000, 0x2000, 0x3000, 0x4000):
            self.ept.install(Gpa(gpa), Frame(0x100 + (gpa >> 12)), writable=True, executable=False)
        self.ept.install(PAGE, Frame(0x109), **{"writable": True, "executable": True, **rights})
        self.entries = [0x2000 | ALL, 0x3000 | ALL, 0x4000 | ALL, PAGE | ALL]
        self.fill()

    def fill(self) -> None:
        """Writes the four entries that lead to the page."""
        for level, entry in zip((4, 3, 2, 1), self.entries, strict=True):
            table = 0x1000 * (5 - level)
            self.ram.store(0x100000 + table + 8 * (GVA >> 12 + 9 * (level - 1) & 511), entry)

    def walk(self, gva: int = GVA, **access: bool) -> Walk:
        """Walks an address."""
        return walk(self.ram, self.ept, CR3 | 0xFFF, Gva(gva), Access(**access))


@pytest.fixture
def guest(world: Any) -> Guest:
    """A guest with all rights."""
    return Guest(world)


@pytest.mark.parametrize("access", [{}, {"write": True}, {"execute": True}, {"user": True}])
def test_an_address_is_found_through_both_tables(guest: Guest, access: dict[str, bool]) -> None:
    """Every entry on the way is shown, and the address keeps its offset in the page."""
    found = guest.walk(**access)
    assert (found.outcome, found.gpa, found.hpa) == (Outcome.TRANSLATED, 0x9678, 0x109678)
    assert (found.page_bytes, found.error_code) == (4096, 0)
    assert [visit.level for visit in found.visits] == [4, 3, 2, 1]
    assert [visit.entry for visit in found.visits] == guest.entries
    assert [visit.entry_gpa & ~0xFFF for visit in found.visits] == [0x1000, 0x2000, 0x3000, 0x4000]
    assert [visit.address for visit in found.visits] == [visit.entry_gpa + 0x100000 for visit in found.visits]
    assert [len(visit.ept) for visit in found.visits] == [4] * 4
    assert [visit.level for visit in found.ept_visits] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("access", "rights", "outcome"),
    [
        ({}, {"writable": False, "executable": False}, Outcome.TRANSLATED),
        ({"write": True}, {"writable": False}, Outcome.EPT_VIOLATION),
        ({"write": True}, {"executable": False}, Outcome.TRANSLATED),
        ({"execute": True}, {"executable": False}, Outcome.EPT_VIOLATION),
        ({"execute": True}, {"writable": False}, Outcome.TRANSLATED),
    ],
)
def test_the_second_stage_has_rights_of_its_own(
    world: Any, access: dict[str, bool], rights: dict[str, bool], outcome: Outcome
) -> None:
    """A page of RAM without the right is a violation at its guest physical address, whatever the guest allows."""
    found = Guest(world, **rights).walk(**access)
    assert (found.outcome, found.gpa) == (outcome, 0x9678)
    assert (found.hpa is None) == (outcome is Outcome.EPT_VIOLATION)


@pytest.mark.parametrize("level", [4, 3, 2, 1])
@pytest.mark.parametrize(
    ("bits", "access", "code"),
    [
        (PRESENT, {}, 0), (PRESENT, {"write": True, "user": True}, 0b110), (PRESENT, {"execute": True}, 0b10000),
        (RW, {"write": True}, 0b11), (US, {"user": True}, 0b101),
    ],
)  # fmt: skip
def test_each_level_can_take_a_right(guest: Guest, level: int, bits: int, access: dict[str, bool], code: int) -> None:
    """A right that one entry does not give is a page fault with the access in its code; presence is its lowest bit."""
    guest.entries[4 - level] &= ~bits
    guest.fill()
    found = guest.walk(**access)
    assert (found.outcome, found.error_code, found.hpa) == (Outcome.PAGE_FAULT, code, None)
    if bits != PRESENT:
        assert guest.walk().outcome is Outcome.TRANSLATED


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_no_execute_counts_at_every_level(guest: Guest, level: int) -> None:
    """One entry without the right to execute is enough, for execution alone."""
    guest.entries[4 - level] |= NX
    guest.fill()
    found = guest.walk(execute=True)
    assert (found.outcome, found.error_code) == (Outcome.PAGE_FAULT, 0b10001)
    assert guest.walk(write=True).outcome is Outcome.TRANSLATED


def test_a_large_page_ends_the_walk(guest: Guest) -> None:
    """A page of 2 MiB is found with its 21 bits of offset, one of 1 GiB with its 30; PS in the root means nothing."""
    guest.entries[2] = ALL | PS
    guest.fill()
    found = guest.walk(gva=GVA & ~0x1FFFFF | 0x9678)
    assert (found.outcome, found.gpa, found.page_bytes) == (Outcome.TRANSLATED, 0x9678, 2 << 20)
    assert [visit.level for visit in found.visits] == [4, 3, 2]
    guest.entries[1] = ALL | PS
    guest.fill()
    found = guest.walk(gva=GVA & ~0x3FFFFFFF | 0x9001)
    assert (found.gpa, found.page_bytes, len(found.visits)) == (0x9001, 1 << 30, 2)
    guest.entries = [0x2000 | ALL | PS, 0x3000 | ALL, 0x4000 | ALL, PAGE | ALL]
    guest.fill()
    assert guest.walk().outcome is Outcome.TRANSLATED


def test_a_table_that_is_not_mapped_is_a_violation(guest: Guest) -> None:
    """When RAM of a table is missing, the walk ends there and names the entry's address, with no entry read."""
    guest.ept.revoke(Gpa(0x3000), write_only=False)
    found = guest.walk()
    assert (found.outcome, found.gpa) == (Outcome.EPT_VIOLATION, found.visits[-1].entry_gpa)
    assert [visit.level for visit in found.visits] == [4, 3, 2]
    assert (found.visits[-1].address, found.visits[-1].entry) == (None, None)


def test_a_page_that_is_not_mapped_is_a_violation(guest: Guest) -> None:
    """When RAM of the page is missing, its guest physical address is known and the host's is not."""
    guest.ept.revoke(PAGE, write_only=False)
    found = guest.walk()
    assert (found.outcome, found.gpa, found.hpa) == (Outcome.EPT_VIOLATION, 0x9678, None)


def test_addresses_that_are_not_canonical_are_not_walked(guest: Guest) -> None:
    """An address whose upper bits are no copies of bit 47 touches no table."""
    found = guest.walk(gva=1 << 47)
    assert (found.outcome, found.visits, found.gpa) == (Outcome.NOT_CANONICAL, [], None)
