"""Deadlines of devices on the stack's clock."""

from __future__ import annotations

from functools import partial

from tests.conftest import ManualClock

from lamina_hardware.io.timers import Timers


async def test_deadlines_come_in_order(manual_clock: ManualClock) -> None:
    """By time, then in the order of asking; one that is set later and is due earlier comes earlier."""
    seen: list[str] = []
    timers = Timers(manual_clock, lambda error: None)
    for when, name in ((30, "c"), (10, "a"), (30, "d"), (20, "b")):
        timers.call_at(when, partial(seen.append, name))
    assert seen == []
    await manual_clock.advance(25)
    assert seen == ["a", "b"]
    await manual_clock.advance(5)
    assert seen == ["a", "b", "c", "d"]
    timers.stop()


async def test_deadlines_can_be_cancelled(manual_clock: ManualClock) -> None:
    """Before their time they do not come then; afterwards that changes nothing; stopping cancels all."""
    seen: list[int] = []
    timers = Timers(manual_clock, lambda error: None)
    first = timers.call_at(10, lambda: seen.append(1))
    second = timers.call_at(10, lambda: seen.append(2))
    timers.call_at(50, lambda: seen.append(3))
    first.cancel()
    await manual_clock.advance(20)
    second.cancel()
    assert seen == [2]
    timers.stop()
    timers.stop()
    await manual_clock.advance(100)
    assert seen == [2]


async def test_a_callback_may_set_deadlines(manual_clock: ManualClock) -> None:
    """Also in the past: it comes next, and never inside the call that sets it."""
    seen: list[str] = []
    timers = Timers(manual_clock, lambda error: None)

    def first() -> None:
        timers.call_at(0, lambda: seen.append("late"))
        seen.append("first")

    timers.call_at(10, first)
    await manual_clock.advance(11)
    assert seen == ["first", "late"]
    timers.stop()


async def test_one_that_fails_is_told_and_holds_up_nobody(manual_clock: ManualClock) -> None:
    """What a callback raises goes to the owner of the timers, and the next is called."""
    errors: list[BaseException] = []
    seen: list[int] = []
    timers = Timers(manual_clock, errors.append)
    timers.call_at(1, lambda: seen.append(1 // 0))
    timers.call_at(1, lambda: seen.append(2))
    await manual_clock.advance(2)
    assert (seen, [type(error) for error in errors]) == ([2], [ZeroDivisionError])
    timers.stop()


async def test_cancelled_deadlines_leave_nothing(manual_clock: ManualClock) -> None:
    """A device that sets and cancels for ever keeps the memory of few; those that stay come in their order."""
    seen: list[int] = []
    timers = Timers(manual_clock, lambda error: None)
    for number in range(5):
        timers.call_at(1000 - number, partial(seen.append, number))
    for _ in range(10_000):
        timers.call_at(10**15, lambda: seen.append(-1)).cancel()
    assert len(timers._heap) < 200
    late = timers.call_at(10, lambda: seen.append(10))
    await manual_clock.advance(20)
    late.cancel()
    late.cancel()
    await manual_clock.advance(1000)
    assert seen == [10, 4, 3, 2, 1, 0]
    assert timers._idle <= len(timers._heap) or not timers._heap
    timers.stop()
