"""The record of an access that the second stage refuses, bit by bit as the manual's table 28-7 has it."""

from __future__ import annotations

import pytest

from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, Walk, translate
from lamina_hardware.io.kvm.ept_violation import refused
from lamina_kit.bus import run_page
from lamina_kit.bus.run_page import ExitReason, ExitRecord

EPT, GPA, VA = 0x1_0000, 0x5000, 0x7000
R, W, X = 1, 2, 4
LINEAR, FINAL = 1 << 7, 1 << 8
KINDS = {
    Access.READ: (1, run_page.ACCESS_READ),
    Access.WRITE: (2, run_page.ACCESS_WRITE),
    Access.EXECUTE: (4, run_page.ACCESS_EXECUTE),
}


def walk_to(entry: int, access: Access, upper: int = R | W | X) -> Walk:
    """Walks to GPA through an EPT whose tables are entered with `upper`, and whose last entry this is."""
    entries = {EPT: 0x1_1007, 0x1_1000: 0x1_2000 | upper, 0x1_2000: 0x1_3007, 0x1_3028: entry}
    return translate(Memory(lambda address: entries.get(address, 0), 1 << 21), 0, EPT, GPA, access, False)


@pytest.mark.parametrize("address", [VA, 0])
@pytest.mark.parametrize(
    ("entry", "upper", "access", "rights"),
    [
        (0, 7, Access.READ, 0),
        (0x8000 | R, 7, Access.WRITE, R),
        (0x8000 | R | W, 7, Access.EXECUTE, R | W),
        (0x8000 | R | X, 7, Access.WRITE, R | X),
        (0x8000 | 7, R | X, Access.WRITE, R | X),
        (0x8000 | R | W, R | X, Access.WRITE, R),
    ],
)
def test_what_was_tried_and_what_is_allowed(entry: int, upper: int, access: Access, rights: int, address: int) -> None:
    """Bits 0 to 2 say the access, 3 to 5 what all entries allow together, 7 and 8 that there is a linear address."""
    walk = walk_to(entry, access, upper)
    assert walk.outcome is Outcome.EPT_VIOLATION
    bit, told = KINDS[access]
    wanted = bit | rights << 3 | (LINEAR | FINAL if address else 0)
    assert refused(walk, GPA, access, address) == ExitRecord(
        reason=ExitReason.EPT_VIOLATION, gpa=GPA, address=address, access=told, qualification=wanted
    )


def test_a_misconfigured_entry_has_no_qualification() -> None:
    """Writable without readable is a misconfiguration: the record says where, and which access, and no more."""
    walk = walk_to(0x8000 | W, Access.WRITE)
    assert walk.outcome is Outcome.EPT_MISCONFIGURATION
    assert refused(walk, GPA, Access.WRITE, VA) == ExitRecord(
        reason=ExitReason.EPT_MISCONFIGURATION, gpa=GPA, access=run_page.ACCESS_WRITE
    )
