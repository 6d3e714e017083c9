"""The domain's walker on the textbook's addresses."""

from __future__ import annotations

from lamina_hardware.domain.paging.walk import Access, Memory, Outcome, translate

P, RW, US, PS = 1, 2, 4, 1 << 7


def ram(entries: dict[int, int], size: int = 1 << 21) -> Memory:
    """Returns memory that holds these words and zeros."""
    return Memory(lambda address: entries.get(address, 0), size)


def test_the_example_address() -> None:
    """0x12345678 is page 0x12345, offset 0x678; its indices are 0, 0, 0x91 and 0x145."""
    entries = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000 + 0x91 * 8: 0x4007, 0x4000 + 0x145 * 8: 0x15_0007}
    walk = translate(ram(entries), 0x1000, 0, 0x1234_5678, Access.WRITE, True)
    assert (walk.outcome, walk.pa, walk.page_size) == (Outcome.TRANSLATED, 0x15_0678, 4096)
    assert [step.index for step in walk.steps] == [0, 0, 0x91, 0x145]
    assert [step.level for step in walk.steps] == [4, 3, 2, 1]
    assert walk.steps[-1].bits == ("P", "RW", "US")


def test_guest_virtual_to_guest_physical_to_physical() -> None:
    """0x1000 → 0x5000 → 0x15000, over 24 entries."""
    guest = {0x10_1000: 0x2007, 0x10_2000: 0x3007, 0x10_3000: 0x4007, 0x10_4008: 0x5007}
    ept = {0x1_0000: 0x1_1007, 0x1_1000: 0x1_2007, 0x1_2000: 0x1_3007}
    ept.update({0x1_3000 + 8 * n: 0x10_0007 + n * 4096 for n in range(1, 5)})
    ept[0x1_3000 + 8 * 5] = 0x1_5007
    walk = translate(ram(guest | ept), 0x1000, 0x1_0000, 0x1000, Access.READ, True)
    assert (walk.outcome, walk.gpa, walk.pa) == (Outcome.TRANSLATED, 0x5000, 0x1_5000)
    assert len(walk.steps) == 24
    assert [step.table for step in walk.steps[:5]] == ["EPT PML4", "EPT PDPT", "EPT PD", "EPT PT", "PML4"]


def test_the_second_stage_alone() -> None:
    """Without a first-stage root the address is guest physical."""
    ept = {0x1_0000: 0x1_1007, 0x1_1000: 0x1_2007, 0x1_2000: 0x87}
    walk = translate(ram(ept), 0, 0x1_0000, 0x1_2345, Access.WRITE, False)
    assert (walk.outcome, walk.pa, walk.page_size) == (Outcome.TRANSLATED, 0x1_2345, 2 << 20)


def test_not_canonical() -> None:
    """An address whose upper bits differ from bit 47 visits nothing."""
    walk = translate(ram({}), 0x1000, 0, 1 << 47, Access.READ, True)
    assert (walk.outcome, walk.steps) == (Outcome.NOT_CANONICAL, [])


def test_the_error_code_tells_the_access() -> None:
    """W, U and I say what was tried; P says that an entry was there."""
    codes = [
        translate(ram({}), 0x1000, 0, 0x1000, access, user).error_code
        for access in (Access.READ, Access.WRITE, Access.EXECUTE)
        for user in (False, True)
    ]
    assert codes == [0, 4, 2, 6, 16, 20]
