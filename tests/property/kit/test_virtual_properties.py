"""The virtual loop against an oracle: whatever is scheduled fires at its time, in order, once, unless cancelled."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from lamina_kit.virtual.loop import VirtualLoop

TIMES = st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30)


@given(st.integers(), TIMES, st.lists(st.integers(0, 60), max_size=5))
def test_timers_fire_at_their_time_and_in_order(seed: int, timers: list[tuple[int, bool]], stops: list[int]) -> None:
    """However a stretch of time is cut into steps, each timer that stands fires once, at its time."""
    loop = VirtualLoop(seed, strict=True)
    seen: list[tuple[int, int]] = []

    def note(number: int) -> None:
        seen.append((loop.now_ns, number))

    for number, (when, cancel) in enumerate(timers):
        handle = loop.call_at_ns(when, note, number)
        if cancel:
            handle.cancel()
    for stop in [*sorted(stops), 60]:
        assert loop.run_until_quiescent(stop)
        assert loop.now_ns == stop
        assert loop.next_timer_ns == min((t for t, off in timers if not off and t > stop), default=None)
    assert [when for when, _ in seen] == sorted(when for when, off in timers if not off)
    assert sorted(number for _, number in seen) == [n for n, (_, off) in enumerate(timers) if not off]


@given(st.integers(), st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6), st.integers(1, 9))
def test_slices_do_not_change_the_history(seed: int, plans: list[list[int]], budget: int) -> None:
    """Running with a budget of callbacks gives the history of running without."""

    def history(limit: int | None) -> list[tuple[int, int]]:
        loop = VirtualLoop(seed, strict=True)
        seen: list[tuple[int, int]] = []

        async def work(number: int, sleeps: list[int]) -> None:
            for seconds in sleeps:
                await asyncio.sleep(seconds)
                seen.append((loop.now_ns, number))

        for number, sleeps in enumerate(plans):
            loop.create_task(work(number, sleeps))
        while not loop.run_until_quiescent(max(loop.now_ns, 20 * 10**9), limit):
            assert limit is not None
        assert loop.tasks() == []
        return seen

    whole = history(None)
    assert history(budget) == whole
    assert [when for when, _ in whole] == sorted(when for when, _ in whole)
