"""Calls whose answers are lost: made again, given up, or carried on with in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, Unavailable
from lamina_kit.retry import PATIENT_NS, Retry, is_lost

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


async def driven(clock: Any, work: Any) -> Any:
    """Awaits work while the clock moves on."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await clock.advance(10**9)
    return await task


async def test_a_lost_answer_is_asked_for_again(manual_clock: Any) -> None:
    """UNAVAILABLE and DEADLINE_EXCEEDED of the connection are tried again until there is an answer."""
    calls = Calls([LOST, LATE, "here"])
    assert await driven(manual_clock, Retry(manual_clock).call(calls)) == "here"
    assert calls.made == 3


async def test_a_refusal_is_an_answer(manual_clock: Any) -> None:
    """An error that carries Lamina's reason is not tried again."""
    calls = Calls([NotFound("No.", reason="SPACE_UNKNOWN")])
    with pytest.raises(NotFound):
        await Retry(manual_clock).call(calls)
    assert calls.made == 1


async def test_patience_ends(manual_clock: Any) -> None:
    """After five attempts the last error goes up, as a `LaminaError` that says that nobody answered."""
    calls = Calls([LOST] * 9)
    with pytest.raises(Unavailable) as caught:
        await driven(manual_clock, Retry(manual_clock).call(calls))
    assert calls.made == 5 and is_lost(caught.value)


async def test_the_background_goes_on_until_somebody_answers(manual_clock: Any) -> None:
    """What is lost is tried every five seconds, what passes by itself too; any other answer ends it."""
    failed: list[tuple[str, LaminaError]] = []
    calls = Calls([LOST, IN_USE, LOST, NotFound("Gone.", reason="GROUP_UNKNOWN")])
    retry = Retry(manual_clock, lambda name, error: failed.append((name, error)), passing=("GROUP_IN_USE",))
    retry.later("groups/g", calls)
    for _ in range(4):
        await asyncio.sleep(0)
        await manual_clock.advance(PATIENT_NS)
    assert calls.made == 4
    assert [(name, error.reason) for name, error in failed] == [("groups/g", "GROUP_UNKNOWN")]


async def test_closing_ends_the_background(manual_clock: Any) -> None:
    """Nothing is tried any more after `close`."""
    calls = Calls([LOST] * 9)
    retry = Retry(manual_clock)
    retry.later("x", calls)
    await asyncio.sleep(0)
    await retry.close()
    await manual_clock.advance(10 * PATIENT_NS)
    assert calls.made == 0
