"""Effects: steps, the driver and the performer."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from lamina_kit.driver import Performer, drive
from lamina_kit.effects import Effect, NeedFault, Sleep, Step, WaitFor
from lamina_kit.errors import Internal, NotFound


@dataclass(frozen=True)
class Ask(Effect):
    """Asks for twice a number."""

    number: int


def total(*numbers: int) -> Step[int]:
    """Asks about each number and adds the answers."""
    result = 0
    for number in numbers:
        result += yield Ask(number)
    return result


async def twice(effect: Effect) -> int:
    """Answers `Ask`."""
    assert isinstance(effect, Ask)
    if effect.number < 0:
        raise NotFound("negative", reason="NEGATIVE")
    return effect.number * 2


async def test_a_step_is_driven_to_its_result() -> None:
    """Each effect's result goes into the step; its return value comes out."""
    assert await drive(total(1, 2, 3), twice) == 12
    assert await drive(total(), twice) == 0


async def test_a_step_that_somebody_has_begun_is_driven_on() -> None:
    """What it asked for first is given along, and performed once."""
    step = total(1, 2)
    assert await drive(step, twice, next(step)) == 6


async def test_a_begun_step_cleans_up_as_any() -> None:
    """What performing its first effect raises, cancellation included, is raised inside a step that somebody began."""
    cleaned: list[str] = []

    def step() -> Step[None]:
        try:
            yield Ask(1)
        except BaseException as error:
            cleaned.append(type(error).__name__)
            raise

    async def cancelled(effect: Effect) -> None:
        raise asyncio.CancelledError

    begun = step()
    with pytest.raises(asyncio.CancelledError):
        await drive(begun, cancelled, next(begun))
    assert cleaned == ["CancelledError"] and inspect.getgeneratorstate(begun) == inspect.GEN_CLOSED


async def test_an_error_is_raised_inside_the_step() -> None:
    """A step may catch what performing an effect raised, and go on."""

    def careful() -> Step[str]:
        try:
            yield Ask(-1)
        except NotFound as error:
            return f"caught {error.reason} and {(yield Ask(4))}"
        return "not raised"

    assert await drive(careful(), twice) == "caught NEGATIVE and 8"
    with pytest.raises(NotFound):
        await drive(total(1, -1), twice)


@pytest.mark.real_time("counts turns in asyncio's own order")
async def test_cancellation_runs_the_step_s_cleanup() -> None:
    """Cancelling a driven step raises inside it, so its finally blocks run."""
    cleaned: list[str] = []

    def step() -> Step[None]:
        try:
            yield WaitFor("never")
        finally:
            cleaned.append("yes")

    task = asyncio.ensure_future(drive(step(), Performer(_Still())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["yes"]


async def test_a_fault_is_retried() -> None:
    """The idiom of the container kernel: catch NeedFault, yield, try again."""
    mapped: list[int] = []

    def read(va: int) -> Step[str]:
        while True:
            try:
                if va not in mapped:
                    raise NeedFault(va, write=False)
                return "bytes"
            except NeedFault as fault:
                yield Ask(fault.va)

    async def fault_in(effect: Any) -> None:
        mapped.append(effect.number)

    assert await drive(read(7), fault_in) == "bytes"
    assert mapped == [7]


@pytest.mark.real_time("counts turns in asyncio's own order")
async def test_waiters_are_woken_in_order() -> None:
    """Those who wait for a key are released together, first come first, with the waker's value."""
    performer, order = Performer(_Still()), list[str]()

    def wait(name: str) -> Step[None]:
        order.append(f"{name}{(yield WaitFor('pipe'))}")

    tasks = [asyncio.ensure_future(drive(wait(name), performer)) for name in "abc"]
    await asyncio.sleep(0)
    assert performer.waiting("pipe") == 3
    assert performer.wake("other") == 0
    assert performer.wake("pipe", 5) == 3
    await asyncio.gather(*tasks)
    assert order == ["a5", "b5", "c5"]
    assert performer.waiting("pipe") == 0 and performer.wake("pipe") == 0


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    """Who gave up is neither counted nor woken, and leaves nothing behind."""
    performer = Performer(_Still())
    task = asyncio.ensure_future(performer(WaitFor("k")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert performer.waiting("k") == 0 and performer.wake("k") == 0


async def test_sleep_is_the_clock_s() -> None:
    """`Sleep` is performed on the stack's clock."""
    clock = _Still()
    await Performer(clock)(Sleep(1500))
    assert clock.slept == [1500]


async def test_an_effect_that_nobody_performs_is_a_defect() -> None:
    """An unknown effect names itself; a registered one is performed."""
    performer = Performer(_Still())
    with pytest.raises(Internal, match="Ask") as caught:
        await performer(Ask(1))
    assert caught.value.reason == "EFFECT_UNKNOWN"
    performer.on(Ask, twice)
    assert await performer(Ask(3)) == 6


class _Still:
    """A clock that notes sleeps and returns at once."""

    mode = "stepped"

    def __init__(self) -> None:
        self.slept: list[int] = []

    def now_ns(self) -> int:
        return 0

    def wall_ns(self) -> int:
        return 0

    async def sleep_ns(self, ns: int) -> None:
        self.slept.append(ns)
