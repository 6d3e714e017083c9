"""What turns a clock into calls of the engine."""

from __future__ import annotations

from typing import Any

from lamina_vswitch.pacing import Pacer


async def test_the_last_time_that_was_asked_for_counts(manual_clock: Any) -> None:
    """An earlier wish is forgotten, and None or `stop` calls nothing."""
    called: list[int] = []
    pacer = Pacer(manual_clock, called.append, lambda error: None)
    pacer.wake_at(5)
    pacer.wake_at(7)
    await manual_clock.advance(10)
    assert called == [7]
    pacer.wake_at(12)
    pacer.wake_at(None)
    pacer.wake_at(13)
    pacer.stop()
    await manual_clock.advance(10)
    assert called == [7]


async def test_a_defect_is_counted_and_told_and_the_rest_goes_on(manual_clock: Any) -> None:
    """What `advance` raises ends nothing: the time that it asked for before it failed comes."""
    told: list[Exception] = []

    def advance(now_ns: int) -> None:
        if now_ns < 3:
            pacer.wake_at(now_ns + 1)
            raise ZeroDivisionError(now_ns)

    pacer = Pacer(manual_clock, advance, told.append)
    pacer.wake_at(1)
    await manual_clock.advance(10)
    assert [repr(error) for error in told] == ["ZeroDivisionError(1)", "ZeroDivisionError(2)"]
    assert pacer.defects == 2
