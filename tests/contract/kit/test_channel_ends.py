"""How calls end before their answer, over every channel: by deadlines, and by their callers."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.contract.kit.wire_calls import LONG_S, SHORT_S, WITHOUT_GATEWAY, awaited, failure, text, within

from lamina_kit.errors import DeadlineExceeded
from lamina_kit.rpc import status

# ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deadline_ends_the_call_and_the_handler(wire: Any) -> None:
    """When time is up the caller gets DEADLINE_EXCEEDED and the handler is cancelled."""
    error = await failure(wire.uu("Wait")(text(""), timeout=SHORT_S))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(status.rpc_error(error), DeadlineExceeded)
    await within(wire.peer.ended)
    assert wire.peer.outcome == "cancelled"


async def test_a_deadline_ends_a_stream(wire: Any) -> None:
    """A deadline holds for streams as well, with the messages before it delivered."""
    call = wire.ss("Hang")(timeout=SHORT_S)
    assert (await call.read()).value == "here"
    error = await failure(call.read())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await within(wire.peer.ended)


async def test_a_deadline_that_has_passed_calls_nobody(wire: Any) -> None:
    """A deadline in the past fails at once."""
    error = await failure(wire.uu("Echo")(text(""), timeout=-1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@WITHOUT_GATEWAY
async def test_the_handler_sees_the_time_that_is_left(wire: Any) -> None:
    """`time_remaining` is at most the caller's timeout, and so is the caller's own."""
    call = wire.uu("Remaining")(text(""), timeout=LONG_S)
    left = call.time_remaining()
    assert left is not None and 0 < left <= LONG_S
    assert 0 < float((await call).value) <= LONG_S + 0.1  # gRPC rounds a deadline up


@WITHOUT_GATEWAY
async def test_a_unary_call_has_a_deadline_by_default(wire: Any) -> None:
    """Without a timeout a unary call has 30 s."""
    assert 29 < float((await wire.uu("Remaining")(text(""))).value) <= 30.5


# ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancelling_a_call_cancels_the_handler(wire: Any) -> None:
    """`cancel` raises CancelledError in the caller and in the handler; status CANCELLED."""
    call = wire.uu("Wait")(text(""), timeout=LONG_S)
    waiting = asyncio.ensure_future(awaited(call))
    await within(wire.peer.begun)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled() and call.done() and not call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await within(wire.peer.ended)
    assert wire.peer.outcome == "cancelled"


async def test_cancelling_the_waiting_task_cancels_the_handler(wire: Any) -> None:
    """A task that is cancelled while it awaits a call takes the call with it."""
    waiting = asyncio.ensure_future(awaited(wire.uu("Wait")(text(""), timeout=LONG_S)))
    await within(wire.peer.begun)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await within(wire.peer.ended)
    assert wire.peer.outcome == "cancelled"


async def test_a_call_cancelled_at_once_never_answers(wire: Any) -> None:
    """Cancelling right after the call is made is safe."""
    call = wire.uu("Echo")(text("x"))
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_done_callbacks_are_called_on_both_sides(wire: Any) -> None:
    """The caller's and the handler's done callbacks run when the call ends."""
    ended = asyncio.Event()
    call = wire.uu("Wait")(text(""), timeout=LONG_S)
    call.add_done_callback(lambda done: ended.set())
    await within(wire.peer.begun)
    call.cancel()
    await within(ended)
    await within(wire.peer.ended)
    await within(wire.peer.called_back)
    assert call.done()


async def test_cancelling_a_stream_closes_the_generator(wire: Any) -> None:
    """A handler that yields is closed when its stream is cancelled."""
    call = wire.us("Endless")(text(""))
    assert (await call.read()).value == "0"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        while await call.read() is not grpc.aio.EOF:
            pass
    await within(wire.peer.ended)


@pytest.mark.parametrize("name", ["Endless", "EndlessWriting"])
async def test_a_consumer_that_stops_early_ends_the_handler(wire: Any, name: str) -> None:
    """Leaving the loop and dropping the call cancels the handler."""
    call = wire.us(name)(text("!"))
    async for _ in call:
        break
    if wire.name != "local":
        call.cancel()  # grpc.aio keeps the call alive in a reference cycle
    del call
    await within(wire.peer.ended)
    assert wire.peer.ended.is_set()


@WITHOUT_GATEWAY
async def test_a_slow_consumer_slows_the_handler(wire: Any) -> None:
    """The handler of a stream runs ahead of its reader by a bounded number of messages."""
    call = wire.us("Endless")(text("x" * 4096))
    await call.read()
    for _ in range(2000):
        await asyncio.sleep(0)  # lets the handler run as far ahead as it may
    call.cancel()
    await within(wire.peer.ended)
    assert int(wire.peer.outcome.removeprefix("closed after ")) < 5000
