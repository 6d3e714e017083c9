"""The loop in virtual time: asyncio works on it, time is exact, and it says why it cannot do what it cannot."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lamina_kit.errors import FailedPrecondition, InvalidArgument, Unimplemented
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

SECOND = 10**9
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def loop() -> VirtualLoop:
    """Returns a loop that raises what nobody handles."""
    return VirtualLoop(7, strict=True)


@pytest.mark.parametrize("seconds", [0.2, 0.1, 1e-9, 0.000_000_3, 1 / 3, 86_400.000_000_001])
def test_a_delay_is_exact_to_the_nanosecond(loop: VirtualLoop, seconds: float) -> None:
    """Floats of seconds are converted once: `call_later(0.2)` is 200,000,000 ns."""
    seen: list[int] = []
    loop.call_later(seconds, lambda: seen.append(loop.now_ns))
    loop.run_forever()
    assert seen == [round(seconds * SECOND)]


def test_delays_do_not_accumulate_errors(loop: VirtualLoop) -> None:
    """A million tenths of a second, begun on day one hundred, are a hundred thousand seconds, not one ns more."""
    start = 100 * 86_400 * SECOND
    loop.run_until_quiescent(start)

    async def main() -> None:
        for _ in range(1000):
            await asyncio.sleep(0.1)

    loop.run(main())
    assert loop.now_ns == start + 100 * SECOND


def test_asyncio_works_on_it(loop: VirtualLoop) -> None:
    """Queues, locks, events, task groups, timeouts, gather and context variables do what they do elsewhere."""

    async def main() -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        lock, event = asyncio.Lock(), asyncio.Event()
        VARIABLE.set("main")

        async def produce() -> None:
            for number in range(3):
                async with lock:
                    await asyncio.sleep(1)
                await queue.put(number)
            event.set()

        async def consume() -> list[int]:
            return [await queue.get() for _ in range(3)]

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            consumed = group.create_task(consume())
        await event.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(50)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(50), 2)
        values = await asyncio.gather(asyncio.sleep(3, "a"), asyncio.sleep(1, "b"))
        seen = await asyncio.create_task(_variable())
        return [consumed.result(), values, seen, loop.time()]

    assert loop.run(main()) == [[0, 1, 2], ["a", "b"], "main", 13.0]


async def _variable() -> str:
    return VARIABLE.get()


def test_the_timers_of_one_instant_fire_though_others_spin(loop: VirtualLoop) -> None:
    """A task that yields for ever does not keep a timer that is due now from firing."""

    async def main() -> int:
        fired = asyncio.Event()
        loop.call_later(0, fired.set)
        turns = 0
        while not fired.is_set():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert loop.run(main()) < 5
    assert loop.now_ns == 0


def test_stepping_runs_to_the_given_time_and_no_further(loop: VirtualLoop) -> None:
    """`run_until_quiescent` fires what is due by then, moves time there, and is content with nothing to do."""
    seen: list[int] = []
    for when in (5, 10, 11):
        loop.call_at_ns(when, lambda: seen.append(loop.now_ns))
    assert loop.run_until_quiescent(10) and seen == [5, 10] and loop.now_ns == 10
    assert loop.next_timer_ns == 11
    assert loop.run_until_quiescent() and seen == [5, 10]
    assert loop.run_until_quiescent(100) and loop.now_ns == 100 and loop.next_timer_ns is None
    assert loop.run_until_quiescent(100) and loop.is_quiescent
    with pytest.raises(InvalidArgument) as caught:
        loop.run_until_quiescent(99)
    assert caught.value.reason == "VIRTUAL_TIME_BACKWARDS"


def test_a_time_that_has_passed_means_now(loop: VirtualLoop) -> None:
    """A timer in the past fires at once and time does not go back."""
    loop.run_until_quiescent(100)
    seen: list[int] = []
    loop.call_at_ns(5, lambda: seen.append(loop.now_ns))
    loop.call_at(0.0, lambda: seen.append(loop.now_ns))
    assert not loop.is_quiescent
    assert loop.run_until_quiescent() and seen == [100, 100]


def test_a_budget_of_callbacks_ends_a_step_and_the_next_goes_on(loop: VirtualLoop) -> None:
    """Slices change nothing but where the caller looks in: the order is the one without them."""

    def history(slices: int | None) -> list[int]:
        mine = VirtualLoop(7)
        seen: list[int] = []

        async def work(number: int) -> None:
            for _ in range(5):
                seen.append(number)
                await asyncio.sleep(0)

        for number in range(6):
            mine.create_task(work(number))
        while not mine.run_until_quiescent(max_callbacks=slices):
            assert slices is not None
        return seen

    whole = history(None)
    assert len(whole) == 30
    assert history(1) == history(7) == whole
    assert not loop.run_until_quiescent(max_callbacks=0) or loop.is_quiescent


def test_it_runs_inside_a_callback_of_another_loop(loop: VirtualLoop) -> None:
    """A real loop's callback may step it; afterwards the real loop is the running one again."""
    seen: list[Any] = []

    async def virtual() -> None:
        await asyncio.sleep(1)
        seen.append(asyncio.get_running_loop())

    async def real() -> None:
        outer = asyncio.get_running_loop()
        done = asyncio.Event()

        def step() -> None:
            loop.create_task(virtual())
            loop.run_until_quiescent(2 * SECOND)
            seen.append(asyncio.get_running_loop() is outer)
            done.set()

        outer.call_soon(step)
        await done.wait()
        await asyncio.sleep(0)

    asyncio.run(real())
    assert seen == [loop, True]


def test_it_does_not_run_inside_itself(loop: VirtualLoop) -> None:
    """Stepping a loop from its own callback is refused."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_quiescent()

    loop.run(main())


def test_a_deadlock_names_who_waits(loop: VirtualLoop) -> None:
    """When main waits and nothing can ever wake it, the error names the tasks; the loop is tidy afterwards."""

    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        asyncio.create_task(stuck(), name="the-stuck-one")  # noqa: RUF006 (it is to be left behind)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(FailedPrecondition, match=r"the-stuck-one .*stuck at .*py:\d+") as caught:
        loop.run(main())
    assert caught.value.reason == "VIRTUAL_LOOP_DEADLOCK"
    assert loop.tasks() == []


def test_run_cancels_what_is_left_in_order(loop: VirtualLoop) -> None:
    """After main, the tasks that still run are cancelled, and the async generators closed."""
    ended: list[str] = []

    async def lasting(name: str) -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            ended.append(name)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    kept = numbers()

    async def main() -> str:
        for name in ("a", "b"):
            loop.create_task(lasting(name))
        await anext(kept)
        await asyncio.sleep(1)
        return "done"

    assert loop.run(main()) == "done"
    assert sorted(ended[:2]) == ["a", "b"] and ended[2:] == ["generator"]
    assert loop.now_ns == SECOND


def test_cancelled_timers_are_forgotten(loop: VirtualLoop) -> None:
    """Deadlines that were not needed do not pile up, and do not move time."""
    for _ in range(1000):
        loop.call_later(30, print).cancel()
    assert len(loop._timers) < 250
    assert loop.next_timer_ns is None
    loop.run_forever()
    assert loop.now_ns == 0


def test_a_cancelled_callback_does_not_run(loop: VirtualLoop) -> None:
    """Neither one that is ready nor one at a time."""
    seen: list[int] = []
    loop.call_soon(seen.append, 1).cancel()
    timer = loop.call_later(1, seen.append, 2)
    loop.call_later(0.5, timer.cancel)
    loop.call_later(math.inf, seen.append, 3)
    loop.run_forever()
    assert seen == [] and timer.cancelled() and loop.now_ns == SECOND // 2


def test_an_unhandled_exception_ends_a_strict_run(loop: VirtualLoop, caplog: pytest.LogCaptureFixture) -> None:
    """In tests it is raised; otherwise it is logged and the loop goes on; a handler that was set takes it."""

    def fail() -> None:
        raise ValueError("nobody handles this")

    loop.call_soon(fail)
    with pytest.raises(ValueError, match="nobody handles this"):
        loop.run_until_quiescent()
    lenient = VirtualLoop(7)
    lenient.call_soon(fail)
    with caplog.at_level(logging.ERROR):
        assert lenient.run_until_quiescent()
    assert "Exception in callback" in caplog.text
    taken: list[dict[str, Any]] = []
    lenient.set_exception_handler(lambda _, context: taken.append(context))
    lenient.call_soon(fail)
    lenient.run_until_quiescent()
    assert isinstance(taken[0]["exception"], ValueError)


def test_the_outside_is_refused_with_the_reason(loop: VirtualLoop) -> None:
    """Threads, sockets, processes and signals would follow the machine's time."""

    async def main() -> None:
        attempts: tuple[Callable[[], Any], ...] = (
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_reader(0, print),
            lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
            lambda: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
            lambda: loop.add_signal_handler(15, print),
            lambda: loop.getaddrinfo("localhost", 1),
        )
        for attempt in attempts:
            with pytest.raises(Unimplemented, match="the machine's time") as caught:
                attempt()
            assert caught.value.reason == "VIRTUAL_LOOP_WITHOUT_OUTSIDE"
        with pytest.raises(Unimplemented):
            await asyncio.to_thread(print)

    loop.run(main())


def test_a_thread_cannot_schedule(loop: VirtualLoop) -> None:
    """The moment of its call would depend on the machine."""
    reasons: list[str] = []

    def other() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except FailedPrecondition as error:
            reasons.append(error.reason)

    async def main() -> None:
        loop.call_soon_threadsafe(reasons.append, "own thread")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    loop.run(main())
    assert sorted(reasons) == ["VIRTUAL_LOOP_WITHOUT_THREADS", "own thread"]


def test_a_closed_loop_takes_nothing(loop: VirtualLoop) -> None:
    """As asyncio's loops do."""
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_until_quiescent()


def test_the_runner_of_asyncio_takes_it() -> None:
    """`asyncio.Runner` runs on it, which is what pytest's fixtures use."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(1)) as runner:
        assert runner.run(asyncio.sleep(3600, "later")) == "later"


def test_the_clock_follows_the_loop(loop: VirtualLoop) -> None:
    """Its time is the loop's, its wall time counts from 2026, its mode is virtual."""
    clock = VirtualClock(loop)

    async def main() -> None:
        await clock.sleep_ns(123)
        await clock.sleep_ns(0)
        await clock.sleep_ns(-5)

    loop.run(main())
    assert (clock.now_ns(), clock.wall_ns(), clock.mode) == (123, 1_767_225_600 * SECOND + 123, "virtual")


def test_a_sleeper_that_is_cancelled_leaves_no_timer(loop: VirtualLoop) -> None:
    """Time does not run on to a sleep that nobody waits for."""
    clock = VirtualClock(loop)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await clock.sleep_ns(100 * SECOND)

    loop.run(main())
    loop.run_forever()
    assert loop.now_ns == SECOND
