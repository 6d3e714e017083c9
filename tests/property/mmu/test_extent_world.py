"""Extents of a holder under random wants, reclaims, changes of mappings, moves and forks beside it."""

from __future__ import annotations

import pytest
from tests.property.mmu.extents import ExtentPlay


@pytest.mark.parametrize("seed", range(4))
def test_a_guest_in_extents_sees_its_own_words(seed: int) -> None:
    """Whatever is granted whole, split, revoked whole, swapped and granted again, no word is lost and no count off."""
    play = ExtentPlay(seed)
    for _ in range(2500):
        play.act()
    play.finish()
    assert play.granted > 1 and play.holder.splits > 3 and play.holder.wholes > 0
    assert play.m.swap.written > 20, "the run was meant to swap"


def test_the_same_seed_gives_the_same_events() -> None:
    """Two runs with one seed record the same events in the same order."""
    logs = []
    for _ in range(2):
        play = ExtentPlay(7)
        for _ in range(400):
            play.act()
        play.settle()
        logs.append(play.events)
    assert logs[0] == logs[1]
