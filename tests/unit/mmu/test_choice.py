"""How much work it is to choose where a mapping goes."""

from __future__ import annotations

import pytest

from lamina_mmu.domain.spaces import vmas as module
from lamina_mmu.domain.spaces.free_hints import MOST_HINTS, FreeHints
from lamina_mmu.domain.spaces.vma import Vma
from lamina_mmu.domain.spaces.vmas import CHOICE_TOP, VmaList

PAGE = 4096


class Visits:
    """Counts the mappings that searches pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._limit = module._limit
        monkeypatch.setattr(module, "_limit", self)

    def __call__(self, vma: Vma, guard_gap: int) -> int:
        """Returns the limit of a mapping that was passed."""
        self.count += 1
        return self._limit(vma, guard_gap)


def mapped(count: int) -> VmaList:
    """Returns a list with chosen mappings of two pages that do not merge."""
    vmas = VmaList()
    for index in range(count):
        start = vmas.choose(2 * PAGE)
        vmas.insert(Vma(start, start + 2 * PAGE, 1 + index % 2))
    return vmas


def test_each_mapping_is_passed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search begins where the one before ended, so n mappings are n visits and not n squared."""
    visits = Visits(monkeypatch)
    assert len(mapped(1000)) == 1000
    assert visits.count <= 1000


def test_unmapping_does_not_send_searches_back_that_it_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap at the top is taken at once by what fits, and is no reason to look again for what does not."""
    vmas = mapped(1000)
    visits = Visits(monkeypatch)
    for _ in range(100):
        vmas.remove(CHOICE_TOP - PAGE, CHOICE_TOP)
        assert vmas.choose(2 * PAGE) == CHOICE_TOP - 2002 * PAGE
        assert vmas.choose(PAGE) == CHOICE_TOP - PAGE
        vmas.insert(Vma(CHOICE_TOP - PAGE, CHOICE_TOP, 1))
    assert visits.count <= 200


def test_hints_are_bounded() -> None:
    """However many sizes were searched for, few hints are kept, and a dropped one makes searches begin higher only."""
    hints = FreeHints(1 << 30)
    for size in range(1, 1000):
        hints.learn(size, (1 << 30) - size)
    assert len(hints._sizes) == MOST_HINTS and hints.top(999) == (1 << 30) - 999
    assert all(hints.top(size) >= (1 << 30) - size for size in range(1, 1000))
    hints.freed(500, 1 << 30)
    assert hints.top(500) == 1 << 30 and hints.top(999) == (1 << 30) - 999


def test_hints_of_a_part_are_forgotten_with_its_upper_edge() -> None:
    """A hint whose top is the upper edge goes, one at the lower edge stays; a copy is not touched."""
    hints = FreeHints(1 << 30)
    for size, top in ((1, 500), (2, 400), (3, 300), (4, 200)):
        hints.learn(size, top)
    copy = hints.copy()
    hints.forget_between(200, 400)
    assert [hints.top(size) for size in (0, 1, 2, 3, 4, 9)] == [1 << 30, 500, 500, 500, 200, 200]
    assert [copy.top(size) for size in (1, 2, 3, 4)] == [500, 400, 300, 200]
    copy.forget()
    assert copy.top(4) == 1 << 30 and hints.top(4) == 200


def test_a_search_teaches_larger_ones_and_no_smaller_ones() -> None:
    """A lower top for less makes a hint for more at the same height needless; one for less is not moved."""
    hints = FreeHints(1000)
    hints.learn(4, 500)
    hints.learn(8, 600)
    assert hints.top(8) == 500, "less fits no higher than that"
    hints.learn(2, 400)
    assert [hints.top(size) for size in (1, 2, 4, 8)] == [1000, 400, 400, 400]
    hints.learn(2, 300)
    assert hints.top(2) == 300
    hints.freed(1, 900)
    assert hints.top(2) == 300, "a gap that is too small raises nothing"
    hints.freed(2, 900)
    assert hints.top(2) == 900
