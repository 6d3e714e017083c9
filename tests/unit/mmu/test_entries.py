"""Page-table entries: the kinds exclude each other, and a core sees only P."""

from __future__ import annotations

import pytest

from lamina_kit.paging import COW, NX, PRESENT, RW, US, decode
from lamina_mmu.domain.tables import entry as e


@pytest.mark.parametrize(
    ("rights", "cow", "expected"),
    [
        (e.READ, False, PRESENT | US | NX),
        (e.READ | e.WRITE, False, PRESENT | US | RW | NX),
        (e.READ | e.WRITE, True, PRESENT | US | NX | COW),
        (e.READ | e.EXECUTE, False, PRESENT | US),
        (e.WRITE, False, PRESENT | US | RW | NX),
        (0, False, e.GUARDED),
        (0, True, e.GUARDED | COW),
    ],
)
def test_rights_become_bits(rights: int, cow: bool, expected: int) -> None:
    """A leaf has exactly the bits that x86 needs for the rights; no right at all means not present."""
    assert e.leaf(0x1234, rights, cow) == 0x1234 << 12 | expected


def test_kinds_exclude_each_other() -> None:
    """Each entry is of one kind, and only a page in RAM with a right is present to a core."""
    kinds = {
        "nothing": 0,
        "present": e.leaf(7, 3, False),
        "guarded": e.leaf(7, 0, True),
        "swap": e.swapped(7),
        "first slot": e.swapped(0),
        "transit": e.transit(e.leaf(7, 3, True)),
    }
    asked = (e.is_present, e.is_guarded, e.is_swap, e.is_transit)
    assert {name: [ask(entry) for ask in asked] for name, entry in kinds.items()} == {
        "nothing": [False, False, False, False],
        "present": [True, False, False, False],
        "guarded": [False, True, False, False],
        "swap": [False, False, True, False],
        "first slot": [False, False, True, False],
        "transit": [False, False, False, True],
    }
    assert [e.in_ram(entry) for entry in kinds.values()] == [False, True, True, False, False, False]
    assert decode(kinds["swap"]).swapped and decode(kinds["swap"]).frame == 7
    assert not decode(kinds["transit"]).swapped and not decode(kinds["guarded"]).swapped
    assert e.frame_of(kinds["transit"]) == e.frame_of(kinds["guarded"]) == e.slot_of(kinds["swap"]) == 7


def test_what_a_core_may_do() -> None:
    """An entry permits what its bits say; a mapping with any right may be read."""
    text, data = e.leaf(1, e.READ | e.EXECUTE, False), e.leaf(1, e.READ | e.WRITE, False)
    assert [e.permits(text, access) for access in (e.READ, e.WRITE, e.EXECUTE)] == [True, False, True]
    assert [e.permits(data, access) for access in (e.READ, e.WRITE, e.EXECUTE)] == [True, True, False]
    assert not e.permits(e.leaf(1, 0, False), e.READ)
    assert e.rights_allow(e.EXECUTE, e.READ) and not e.rights_allow(e.READ, e.EXECUTE)
    assert not e.rights_allow(0, e.READ)
