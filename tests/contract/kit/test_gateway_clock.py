"""The gateway's clock: how time passes for a stack that stands still, runs, or is advanced, and who makes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.contract.kit.gateway_stack import HOUR, SECOND, Gate, gate, same_again

from lamina_kit.errors import LaminaError
from lamina_kit.gateway.pace import SETTLE_NS, Pace


async def test_a_stepped_stack_answers_and_no_time_passes(stepped: Gate) -> None:
    """A call that needs no time is answered at the instant at which it enters."""
    assert await stepped.ask("Echo", "hello") == "hello"
    assert stepped.loop.now_ns == 0
    await same_again(stepped)


async def test_timers_fire_in_order_within_an_advance(stepped: Gate) -> None:
    """An advance fires each timer at its own time, those of its last instant too, and ends exactly there."""
    fired: list[tuple[int, int]] = []

    def fire(when: int) -> None:
        fired.append((when, stepped.loop.now_ns))

    for when in (5 * SECOND, 3 * SECOND, 10 * SECOND, 10 * SECOND + 1):
        stepped.loop.call_at_ns(when, fire, when)
    done = await stepped.gateway.clock.advance(10 * SECOND, None)
    assert fired == [(at, at) for at in (3 * SECOND, 5 * SECOND, 10 * SECOND)]
    assert (done.start_ns, done.clock.now_ns, stepped.loop.now_ns) == (0, 10 * SECOND, 10 * SECOND)
    assert done.clock.next_event_ns == 10 * SECOND + 1 and done.real_ns > 0


async def test_an_advance_ends_when_the_stack_is_quiescent(stepped: Gate) -> None:
    """What a timer of the last instant sets off at that instant is done when the advance is answered."""
    seen: list[int] = []

    async def work() -> None:
        for _ in range(200):
            await asyncio.sleep(0)
        seen.append(stepped.loop.now_ns)

    stepped.loop.call_at_ns(SECOND, lambda: stepped.loop.create_task(work()))
    await stepped.gateway.clock.advance(None, SECOND)
    assert seen == [SECOND]


async def test_advances_are_made_in_the_order_of_their_arrival(stepped: Gate) -> None:
    """Each begins where the one before it ended; one whose time has passed meanwhile is refused in its turn."""
    clock = stepped.gateway.clock
    first, second, late = await asyncio.gather(
        clock.advance(SECOND, None), clock.advance(SECOND, None), clock.advance(None, 5), return_exceptions=True
    )
    assert not isinstance(first, BaseException) and not isinstance(second, BaseException)
    assert (first.start_ns, second.start_ns, stepped.loop.now_ns) == (0, SECOND, 2 * SECOND)
    assert isinstance(late, LaminaError) and late.reason == "CLOCK_BACKWARDS"


async def test_calls_enter_while_time_is_advanced(stepped: Gate) -> None:
    """A long advance of a busy stack is no wall: others are answered in the middle of it."""
    ticks = stepped.stream("Ticks", 1000)
    assert await ticks.read()
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(HOUR, None))
    assert await stepped.ask("Echo", "between") == "between"
    assert not advance.done() and 0 < stepped.loop.now_ns < HOUR
    ticks.cancel()
    assert (await advance).clock.now_ns == HOUR
    await same_again(stepped)


async def test_an_advance_whose_caller_leaves_ends_where_it_is(stepped: Gate, eventually: Any) -> None:
    """The clock stays at the time that it had reached, and goes on from there when it is told to."""
    ticks = stepped.stream("Ticks", 1000)
    await ticks.read()
    advance = asyncio.ensure_future(stepped.gateway.clock.advance(HOUR, None))
    await eventually(lambda: stepped.loop.now_ns > 0, "time passes")
    advance.cancel()
    await asyncio.gather(advance, return_exceptions=True)
    ticks.cancel()
    await stepped.ask("Echo")
    reached = stepped.loop.now_ns
    assert 0 < reached < HOUR
    assert (await stepped.gateway.clock.advance(5, None)).start_ns == reached


async def test_only_so_many_advances_wait(stepped: Gate) -> None:
    """The 65th is told to wait for the others; all end when the stack stops."""
    ticks = stepped.stream("Ticks", 1000)
    await ticks.read()
    clock = stepped.gateway.clock
    waiting = [asyncio.ensure_future(clock.advance(HOUR, None)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(LaminaError) as caught:
        await clock.advance(1, None)
    assert caught.value.reason == "CLOCK_ADVANCES_FULL"
    assert clock.read().advances == 64
    await stepped.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {error.reason for error in ended if isinstance(error, LaminaError)} == {"CLOCK_STOPPED"}
    for late in (clock.advance(1, None), clock.change(5, None)):
        with pytest.raises(LaminaError, match="stops"):
            await late


async def test_a_call_that_waits_makes_a_stepped_clock_go_at_its_rate(short_dir: Path) -> None:
    """An hour's sleep at a million times real time is answered in its hour, and the clock stands again."""
    async with gate(short_dir, Pace("stepped", rate_permille=10**9)) as found:
        assert await found.ask("Sleep", HOUR) == str(HOUR)
        assert found.loop.now_ns == HOUR
        await same_again(found)


async def test_a_call_waits_for_an_advance_where_callers_move_nothing(stepped: Gate, eventually: Any) -> None:
    """At rate 0 a sleep ends when somebody lets the time pass; the clock says who waits."""
    asleep = asyncio.ensure_future(stepped.ask("Sleep", HOUR))
    await eventually(lambda: stepped.gateway.clock.read().waiting_calls == 1, "the call has entered")
    await stepped.gateway.clock.advance(HOUR - 1, None)
    assert not asleep.done()
    await stepped.gateway.clock.advance(1, None)
    assert await asleep == str(HOUR)
    await same_again(stepped)


async def test_an_open_watch_does_not_make_a_clock_go(short_dir: Path, eventually: Any) -> None:
    """A stepped clock at the highest rate stands still while nothing but watches are open."""
    async with gate(short_dir, Pace("stepped", rate_permille=10**9)) as found:
        found.loop.call_at_ns(5, lambda: None)
        watch = found.stream("WatchNothing", "x")
        assert (await watch.read()).value == "x"
        assert await found.ask("Echo") == ""
        assert found.loop.now_ns == 0 and found.gateway.clock.read().waiting_calls == 0
        watch.cancel()
        await eventually(lambda: found.service.cancelled, "the stack sees the watch end")


async def test_a_virtual_clock_runs_until_its_callers_are_served(short_dir: Path, eventually: Any) -> None:
    """A day's sleep is answered at once; the clock then runs on for a minute and stands still."""
    async with gate(short_dir, Pace("virtual")) as found:
        ticking = found.loop.call_at_ns

        def again() -> None:
            ticking(found.loop.now_ns + 10 * SECOND, again)

        again()
        assert await found.ask("Sleep", 24 * HOUR) == str(24 * HOUR)
        await eventually(lambda: found.loop.now_ns == 24 * HOUR + SETTLE_NS, "it settles")
        assert await found.ask("Echo", "still there") == "still there"


async def test_a_scaled_clock_goes_by_itself_and_is_changed(short_dir: Path) -> None:
    """It goes while nobody calls, faster after a change of rate, and not while it is paused."""
    async with gate(short_dir, Pace("scaled", rate_permille=10**9)) as found:
        clock = found.gateway.clock
        assert int(await found.ask("Sleep", HOUR)) >= HOUR
        assert (await clock.change(None, True)).paused
        stood = found.loop.now_ns
        await found.ask("Echo")
        assert found.loop.now_ns == stood and clock.read().now_ns == stood
        assert (await clock.advance(SECOND, None)).clock.now_ns == stood + SECOND
        assert (await clock.change(1, False)).rate_permille == 1
        assert clock.read().now_ns < stood + 2 * SECOND, "a thousandth of real time"
        with pytest.raises(LaminaError, match="0 thousandths"):
            await clock.change(0, None)
        assert [record.rate_permille for record in found.records("set")] == [None, 1]


async def test_a_scaled_clock_goes_on_from_where_an_advance_was_left(short_dir: Path, eventually: Any) -> None:
    """What an advance let pass is not owed by the rate: the clock does not stand until real time has caught up."""
    async with gate(short_dir, Pace("scaled", rate_permille=1)) as found:

        def again() -> None:
            found.loop.call_at_ns(found.loop.now_ns + 10_000, again)

        again()
        await found.ask("Echo")
        advance = asyncio.ensure_future(found.gateway.clock.advance(HOUR, None))
        await eventually(lambda: found.loop.now_ns > SECOND // 10, "it is a hundred real seconds ahead of its rate")
        advance.cancel()
        await asyncio.gather(advance, return_exceptions=True)
        await found.ask("Echo")
        reached = found.loop.now_ns
        assert SECOND // 10 < reached < HOUR
        await eventually(lambda: found.loop.now_ns > reached, "it goes on")


async def test_a_watch_of_the_clock_tells_its_changes(stepped: Gate) -> None:
    """The first reading comes at once, the next when time has passed, and the stop of the stack ends it."""
    watch = stepped.gateway.clock.watch(10)
    assert (await anext(watch)).now_ns == 0
    following = asyncio.ensure_future(anext(watch))
    await stepped.gateway.clock.advance(SECOND, None)
    assert (await following).now_ns == SECOND
    await stepped.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_who_watches_the_clock_takes_no_change_from_another(stepped: Gate) -> None:
    """A change that comes in the pause of one is still its own to see when another has seen it already."""
    clock = stepped.gateway.clock
    quick, slow = clock.watch(10), clock.watch(1000)
    assert [(await anext(watch)).now_ns for watch in (slow, quick)] == [0, 0]
    late = asyncio.ensure_future(anext(slow))
    soon = asyncio.ensure_future(anext(quick))
    await clock.advance(SECOND, None)
    assert (await soon).now_ns == SECOND
    soon = asyncio.ensure_future(anext(quick))
    async with asyncio.timeout(60):
        assert (await late).now_ns == SECOND
    soon.cancel()
    await asyncio.gather(soon, return_exceptions=True)
