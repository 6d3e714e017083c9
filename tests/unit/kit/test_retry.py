"""Calls whose answers are lost: made again, given up, or carried on with in the background."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterable
from contextlib import suppress

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from tests.virtual_time import clock_of_loop

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, Unavailable
from lamina_kit.rpc.retry import PATIENT_NS, Retry, is_lost

LOST = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details="gone")
LATE = AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, Metadata(), Metadata(), details="late")
IN_USE = FailedPrecondition("In use.", reason="GROUP_IN_USE")


class Calls:
    """Answers calls with what is given, one after the other."""

    def __init__(self, answers: Iterable[object]) -> None:
        self.answers = list(answers)
        self.made = 0

    async def __call__(self) -> object:
        self.made += 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
async def clock() -> Clock:
    """The clock of the loop: pauses pass when nothing else is left to do."""
    return clock_of_loop()


async def test_a_lost_answer_is_asked_for_again(clock: Clock) -> None:
    """UNAVAILABLE and DEADLINE_EXCEEDED of the connection are tried again until there is an answer."""
    calls = Calls([LOST, LATE, "here"])
    assert await Retry(clock).call(calls) == "here"
    assert calls.made == 3


async def test_a_refusal_is_an_answer(clock: Clock) -> None:
    """An error that carries Lamina's reason is not tried again."""
    calls = Calls([NotFound("No.", reason="SPACE_UNKNOWN")])
    with pytest.raises(NotFound):
        await Retry(clock).call(calls)
    assert calls.made == 1


async def test_patience_ends(clock: Clock) -> None:
    """After five attempts the last error goes up, as a `LaminaError` that says that nobody answered."""
    calls = Calls([LOST] * 9)
    with pytest.raises(Unavailable) as caught:
        await Retry(clock).call(calls)
    assert calls.made == 5 and is_lost(caught.value)


async def test_a_first_attempt_of_one_s_own_is_one_of_the_five(clock: Clock) -> None:
    """Whoever made the first attempt goes on with its error: it is lost, and asked again; or it is the answer."""
    calls = Calls([LATE, "here"])
    assert await Retry(clock).again(LOST, calls) == "here"
    refused = NotFound("No.", reason="SPACE_UNKNOWN")
    with pytest.raises(NotFound) as caught:
        await Retry(clock).again(refused, calls)
    assert caught.value is refused and calls.made == 2
    calls = Calls([LOST] * 9)
    with pytest.raises(Unavailable):
        await Retry(clock).again(LOST, calls)
    assert calls.made == 4


@pytest.mark.parametrize("before", [0, 1])
async def test_an_error_goes_without_the_collector(clock: Clock, before: int) -> None:
    """A refusal knows the calls that it left, and none of them keeps it: it goes with whoever caught it."""
    made: list[weakref.ref[NotFound]] = []
    first = Calls([LOST] * before)

    async def make() -> object:
        if first.answers:
            return await first()
        made.append(weakref.ref(error := NotFound("No.", reason="SPACE_UNKNOWN")))
        try:
            raise error
        finally:
            del error

    was_on = gc.isenabled()
    gc.disable()
    try:
        with suppress(NotFound):
            await Retry(clock).call(make)
        assert [kept() for kept in made] == [None]
    finally:
        if was_on:
            gc.enable()


async def test_the_background_goes_on_until_somebody_answers(clock: Clock) -> None:
    """What is lost is tried every five seconds, what passes by itself too; any other answer ends it."""
    failed: list[tuple[str, LaminaError]] = []
    calls = Calls([LOST, IN_USE, LOST, NotFound("Gone.", reason="GROUP_UNKNOWN")])
    retry = Retry(clock, lambda name, error: failed.append((name, error)), passing=("GROUP_IN_USE",))
    retry.later("groups/g", calls)
    await clock.sleep_ns(4 * PATIENT_NS + 1)
    assert calls.made == 4
    assert [(name, error.reason) for name, error in failed] == [("groups/g", "GROUP_UNKNOWN")]


async def test_closing_ends_the_background(clock: Clock) -> None:
    """Nothing is tried any more after `close`."""
    calls = Calls([LOST] * 9)
    retry = Retry(clock)
    retry.later("x", calls)
    await asyncio.sleep(0)
    await retry.close()
    await clock.sleep_ns(10 * PATIENT_NS)
    assert calls.made == 0


async def test_a_closed_one_begins_nothing(clock: Clock) -> None:
    """A call that is cancelled by the end of its layer leaves no task behind."""
    calls = Calls(["here"])
    retry = Retry(clock)
    await retry.close()
    retry.later("x", calls)
    await clock.sleep_ns(2 * PATIENT_NS)
    assert calls.made == 0
