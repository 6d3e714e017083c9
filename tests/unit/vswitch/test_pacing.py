"""What turns a clock into calls of the engine."""

from __future__ import annotations

from typing import Any

from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.ports.tunnels import SteppedPort
from lamina_vswitch.io.wakeup import PAUSE_NS, Wakeup
from lamina_vswitch.pacer import Pacer


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


async def test_a_defect_is_told_and_the_rest_goes_on(manual_clock: Any) -> None:
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


async def test_a_timer_whose_work_fails_comes_again_after_a_pause(manual_clock: Any) -> None:
    """What is due is tried again once a second, not at once, and from then on as ever."""
    told: list[Exception] = []
    calls: list[int] = []

    def tick(now_ns: int) -> None:
        calls.append(now_ns)
        if len(calls) < 3:
            raise ZeroDivisionError(now_ns)
        due.clear()

    due = [5]
    wakeup = Wakeup(manual_clock, lambda: due[0] if due else None, tick, told.append)
    wakeup.watch()
    for _ in range(8):
        await manual_clock.advance(PAUSE_NS // 2)
        wakeup.watch()
    assert calls == [5, 5 + PAUSE_NS, 5 + 2 * PAUSE_NS]
    assert [type(error) for error in told] == [ZeroDivisionError] * 2


async def test_a_frame_that_meets_a_defect_in_a_tunnel_costs_no_other(manual_clock: Any, eventually: Any) -> None:
    """Who asked for it is told, and the frames behind it are worked off without others that come."""
    told: list[Exception] = []
    worked: list[bytes] = []

    def work(frame: bytes, now_ns: int) -> None:
        if frame == b"bad":
            raise ZeroDivisionError
        worked.append(frame)

    port = SteppedPort(ModelEngine(lambda notice: None), 1, manual_clock, work, told.append)
    port.deliver([b"one", b"bad", b"two"])
    await eventually(lambda: len(worked) == 2, "both good frames are worked off")
    assert (worked, list(map(type, told))) == ([b"one", b"two"], [ZeroDivisionError])
