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
