"""The seeded source, and the real clock."""

from __future__ import annotations

import asyncio
import re

import pytest

from lamina_kit.clock import RealClock
from lamina_kit.rng import Rng


def test_the_same_seed_draws_the_same() -> None:
    """Ids, bytes and choices follow from the seed."""
    first, second = Rng(42), Rng(42)
    assert [first.id("s"), first.bytes(8), first.random()] == [second.id("s"), second.bytes(8), second.random()]
    assert Rng(42).id("s") != Rng(43).id("s")


def test_the_draws_of_a_seed_never_change() -> None:
    """These values are stored in golden files: another Python or another version must give them as well."""
    source = Rng(42).child("mmu")
    assert (source.id("s"), source.bytes(4).hex()) == ("s-nxd45sc8", "a772a791")


def test_ids_are_names() -> None:
    """An id is a prefix and 8 characters that fit into a resource name."""
    source = Rng("seed")
    ids = [source.id("vm") for _ in range(1000)]
    assert all(re.fullmatch(r"vm-[b-z2-9]{8}", name) for name in ids)
    assert len(set(ids)) == 1000


def test_a_child_does_not_depend_on_what_was_drawn() -> None:
    """A child follows from seed and label alone, so a new draw elsewhere moves nothing."""
    used, fresh = Rng(1), Rng(1)
    used.random()
    assert used.child("a").id("x") == fresh.child("a").id("x")
    assert fresh.child("a").id("x") != fresh.child("b").id("x")
    assert fresh.child("a").child("b").id("x") != fresh.child("b").child("a").id("x")


def test_the_clock_starts_at_zero_and_does_not_go_back() -> None:
    """Times are integers since the start, in order."""
    clock = RealClock()
    times = [clock.now_ns() for _ in range(1000)]
    assert all(isinstance(time, int) for time in times)
    assert 0 <= times[0] < 10**9 and times == sorted(times)
    assert clock.wall_ns() > 1_700_000_000 * 10**9


@pytest.mark.real_time("the real clock is its subject")
async def test_sleeping_never_ends_early() -> None:
    """A sleep takes at least as long as asked, on the same clock."""
    clock = RealClock()
    for ns in (1, 999, 1_000_000, 3_000_001):
        start = clock.now_ns()
        await clock.sleep_ns(ns)
        assert clock.now_ns() - start >= ns


@pytest.mark.real_time("the real clock is its subject")
async def test_sleeping_for_nothing_lets_others_run() -> None:
    """A sleep of 0 or less gives up the turn once."""
    ran: list[int] = []
    task = asyncio.ensure_future(_note(ran))
    await RealClock().sleep_ns(0)
    assert ran == [1]
    await RealClock().sleep_ns(-5)
    await task


async def _note(ran: list[int]) -> None:
    ran.append(1)
