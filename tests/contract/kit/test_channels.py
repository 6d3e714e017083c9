"""One suite for every channel: in process, over a UNIX socket, over TCP, and through a gateway.

This module has what calls carry. How they end is in `test_channel_ends.py`, with what errors in
`test_channel_errors.py`, and what every service offers through them in `test_channel_services.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.contract.kit.wire_calls import LONG_S, failure, text, texts

from lamina_kit.errors import ResourceExhausted
from lamina_kit.rpc import status
from lamina_kit.rpc.inproc.call import MAX_MESSAGE
from lamina_kit.rpc.inproc.local import LocalChannel

# ── the four kinds ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_unary_unary_returns_the_response(wire: Any) -> None:
    """One request gives one response, status OK and empty details."""
    call = wire.uu("Echo")(text("hello"), timeout=LONG_S)
    assert (await call).value == "hello"
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert call.done() and not call.cancelled()


async def test_awaiting_twice_returns_the_response_twice(wire: Any) -> None:
    """A call object may be awaited again."""
    call = wire.uu("Echo")(text("again"))
    assert (await call).value == (await call).value == "again"


@pytest.mark.parametrize("name", ["Count", "CountWriting"])
async def test_unary_stream_is_iterated_in_order(wire: Any, name: str) -> None:
    """A stream of responses arrives in order, whether the handler yields or writes."""
    call = wire.us(name)(text("200"))
    assert [response.value async for response in call] == [str(number) for number in range(200)]
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["Count", "CountWriting"])
async def test_unary_stream_is_read(wire: Any, name: str) -> None:
    """`read` returns message after message, then EOF."""
    call = wire.us(name)(text("3"))
    assert [(await call.read()).value for _ in range(3)] == ["0", "1", "2"]
    assert await call.read() is grpc.aio.EOF


async def test_an_empty_stream_ends_at_once(wire: Any) -> None:
    """A stream without messages ends OK."""
    call = wire.us("Count")(text("0"))
    assert [response async for response in call] == []
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["Join", "JoinReading"])
async def test_stream_unary_takes_an_iterator(wire: Any, name: str) -> None:
    """A stream of requests reaches both styles of handler, from async and plain iterables."""
    assert (await wire.su(name)(texts("a", "b", "c"))).value == "a,b,c"
    assert (await wire.su(name)([text("d"), text("e")])).value == "d,e"


@pytest.mark.parametrize("name", ["Join", "JoinReading"])
async def test_stream_unary_is_written(wire: Any, name: str) -> None:
    """Requests may be written one by one."""
    call = wire.su(name)()
    await call.write(text("a"))
    await call.write(text("b"))
    await call.done_writing()
    await call.done_writing()
    assert (await call).value == "a,b"


@pytest.mark.parametrize("name", ["Talk", "TalkWriting"])
async def test_stream_stream_answers_each_request(wire: Any, name: str) -> None:
    """With streams both ways an answer arrives before the next request is sent."""
    call = wire.ss(name)()
    for word in ("one", "two", "three"):
        await call.write(text(word))
        assert (await call.read()).value == word.upper()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["Talk", "TalkWriting"])
async def test_stream_stream_takes_and_is_an_iterator(wire: Any, name: str) -> None:
    """Streams both ways work as iterators as well."""
    call = wire.ss(name)(texts("a", "b"))
    assert [response.value async for response in call] == ["A", "B"]


async def test_a_plain_function_may_be_a_handler(wire: Any) -> None:
    """A handler that is no coroutine is called in the loop."""
    assert (await wire.uu("Plain")(text("x"))).value == "plain x"


async def test_messages_are_not_shared(wire: Any) -> None:
    """What the caller changes after the call does not reach the handler."""
    request = text("before")
    call = wire.uu("Echo")(request)
    answer = await call
    assert answer is not request
    request.value = "after"
    assert answer.value == "before"


async def test_calls_run_side_by_side(wire: Any) -> None:
    """Many calls at once get their own answers."""
    answers = await asyncio.gather(*(wire.uu("Echo")(text(str(number))) for number in range(50)))
    assert [answer.value for answer in answers] == [str(number) for number in range(50)]


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_metadata_travel_both_ways(wire: Any) -> None:
    """Invocation, initial and trailing metadata arrive, binary ones as bytes."""
    call = wire.uu("Metadata")(text(""), metadata=(("lamina-session", "h1/a/1"), ("raw-bin", b"\x00\x80")))
    initial = await call.initial_metadata()
    assert (await call).value == "done"
    trailing = await call.trailing_metadata()
    assert ("lamina-session", "h1/a/1") in wire.peer.seen
    assert ("raw-bin", b"\x00\x80") in wire.peer.seen
    assert initial["early"] == "1" and initial["early-bin"] == b"\x00\xff"
    assert trailing["late"] == "2" and trailing["late-bin"] == b"\x01"


async def test_initial_metadata_of_a_failed_call_are_empty(wire: Any) -> None:
    """Waiting for initial metadata ends with the call."""
    call = wire.uu("Fail")(text(""))
    await failure(call)
    assert "early" not in await call.initial_metadata()


async def test_bad_metadata_are_refused(wire: Any) -> None:
    """A key that HTTP/2 does not take, and bytes under a text key, never leave the caller."""
    for pair in (("Upper Case", "x"), ("text", b"x"), ("raw-bin", "x")):
        with pytest.raises(ValueError, match="metadata was invalid"):
            await wire.uu("Echo")(text(""), metadata=(pair,), timeout=LONG_S)


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_at_the_limit_passes(wire: Any) -> None:
    """A message of exactly 8 MiB goes both ways."""
    overhead = len(text("x" * (MAX_MESSAGE - 100)).SerializeToString()) - (MAX_MESSAGE - 100)
    most = MAX_MESSAGE - overhead
    assert len((await wire.uu("Echo")(text("x" * most))).value) == most


async def test_a_request_over_the_limit_is_refused(wire: Any) -> None:
    """A request over 8 MiB is RESOURCE_EXHAUSTED and names the limit."""
    error = await failure(wire.uu("Echo")(text("x" * MAX_MESSAGE)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE) in (error.details() or "")
    back = status.rpc_error(error)
    assert isinstance(back, ResourceExhausted) and back.reason == "MESSAGE_TOO_LARGE"


async def test_a_response_over_the_limit_is_refused(wire: Any) -> None:
    """A response over 8 MiB is RESOURCE_EXHAUSTED as well."""
    error = await failure(wire.uu("Big")(text(str(MAX_MESSAGE))))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status.rpc_error(error).reason == "MESSAGE_TOO_LARGE"


# ── the channel itself ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_closed_channel_refuses_calls(wire: Any) -> None:
    """After `close` a call fails instead of hanging."""
    echo = wire.uu("Echo")
    await wire.channel.close()
    with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError)):
        await echo(text("x"), timeout=LONG_S)


def test_the_suite_covers_the_local_channel() -> None:
    """The in-process channel is a `grpc.aio.Channel`, so typed stubs take it."""
    assert issubclass(LocalChannel, grpc.aio.Channel)
