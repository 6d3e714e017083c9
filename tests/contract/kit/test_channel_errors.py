"""What errors and misuse of calls look like, over every channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from tests.contract.kit.wire_calls import LONG_S, failure, text, texts

from lamina_kit.errors import Internal, InvalidArgument, NotFound, Violation
from lamina_kit.rpc import status


async def test_an_error_arrives_with_all_it_says(wire: Any) -> None:
    """Class, reason, message, next step and metadata of a LaminaError survive the wire."""
    error = await failure(wire.uu("Fail")(text("")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "No vm web-1 on h1. List them."
    trailing = tuple(error.trailing_metadata() or ())
    assert any(key == "grpc-status-details-bin" for key, _ in trailing) and ("kept", "yes") in trailing
    back = status.rpc_error(error)
    assert isinstance(back, NotFound)
    assert (back.reason, back.message, back.next_step) == ("VM_NOT_FOUND", "No vm web-1 on h1.", "List them.")
    assert back.metadata == {"host": "h1", "vm": "web-1"}


async def test_violations_arrive_in_order(wire: Any) -> None:
    """Every wrong field is named."""
    back = status.rpc_error(await failure(wire.uu("Fail")(text("fields"))))
    assert isinstance(back, InvalidArgument)
    assert back.violations == (Violation("a.b", "is empty"), Violation("c", "is ünsound"))


async def test_an_unknown_exception_is_internal_with_a_trace(wire: Any) -> None:
    """A crash says INTERNAL and the trace to look for, and nothing of the exception's text."""
    error = await failure(wire.uu("Crash")(text("")))
    assert "secret" not in (error.details() or "")
    back = status.rpc_error(error)
    assert isinstance(back, Internal) and back.reason == "UNEXPECTED"
    assert len(back.metadata["trace_id"]) == 32 and back.metadata["trace_id"] in back.next_step


async def test_a_method_that_is_not_offered_is_unimplemented(wire: Any) -> None:
    """NotImplementedError and an unknown method both give UNIMPLEMENTED."""
    missing = await failure(wire.uu("Missing")(text("")))
    unknown = await failure(wire.uu("Nowhere")(text("")))
    assert missing.code() is unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    assert status.rpc_error(missing).reason == "METHOD_UNIMPLEMENTED"
    assert status.rpc_error(unknown).reason == "RPC_UNIMPLEMENTED"


async def test_cancelled_inner_work_is_an_error_of_the_call(wire: Any) -> None:
    """A handler whose own work was cancelled ends CANCELLED instead of never."""
    error = await failure(wire.uu("Inner")(text(""), timeout=LONG_S))
    assert error.code() is grpc.StatusCode.CANCELLED
    assert status.rpc_error(error).reason == "WORK_CANCELLED"


async def test_a_status_that_was_set_ends_the_call(wire: Any) -> None:
    """`set_code` and `set_details` count, and the response is dropped."""
    error = await failure(wire.uu("SetCode")(text("")))
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert error.details() == "set, not raised"


async def test_abort_ends_the_call(wire: Any) -> None:
    """`abort` passes the interceptor, with its trailing metadata."""
    error = await failure(wire.uu("Abort")(text("")))
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "by hand")
    assert ("why", "so") in tuple(error.trailing_metadata() or ())


@pytest.mark.parametrize(("name", "reason"), [("FailLater", "STREAM_ENDED_EARLY"), ("FailWriting", "STREAM_BROKE")])
async def test_a_stream_that_fails_delivers_what_came_before(wire: Any, name: str, reason: str) -> None:
    """Messages before an error arrive before it, iterated or read."""
    got = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in wire.us(name)(text("")):
            got.append(response.value)
    assert got == ["first"] and status.rpc_error(caught.value).reason == reason
    call = wire.us(name)(text(""))
    assert (await call.read()).value == "first"
    assert status.rpc_error(await failure(call.read())).reason == reason


async def test_an_error_from_below_goes_up_as_itself(wire: Any) -> None:
    """A handler that lets the error of a downward call pass ends with the same class and reason."""
    back = status.rpc_error(await failure(wire.uu("Relay")(text("Fail"))))
    assert isinstance(back, NotFound)
    assert (back.reason, back.message) == ("VM_NOT_FOUND", "No vm web-1 on h1.")
    assert back.metadata == {"host": "h1", "vm": "web-1"}


async def test_an_iterator_that_fails_cancels_the_call(wire: Any) -> None:
    """An error in the caller's own request iterator cancels the call."""

    async def broken() -> AsyncIterator[StringValue]:
        yield text("a")
        raise RuntimeError("in the caller")

    call = wire.su("Join")(broken())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_handler_may_answer_before_the_requests_end(wire: Any) -> None:
    """A handler that reads one request and returns ends the call while the caller still writes."""
    assert (await wire.su("Hasty")(texts(*(["x" * 1000] * 500)))).value == "x" * 1000
    call = wire.ss("Quit")()
    await call.write(text("one"))
    assert (await call.read()).value == "one"
    assert await call.read() is grpc.aio.EOF


async def test_writing_after_the_end_is_refused(wire: Any) -> None:
    """Writing to a call that has ended, or was closed for writing, raises."""
    call = wire.ss("Talk")()
    await call.write(text("a"))
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(text("b"))
    assert (await call.read()).value == "A"
    assert await call.read() is grpc.aio.EOF
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(text("c"))


async def test_styles_are_not_mixed(wire: Any) -> None:
    """A stream is iterated or read, not both."""
    call = wire.us("Count")(text("3"))
    async for _ in call:
        break
    with pytest.raises(grpc.aio.UsageError):
        await call.read()
    call.cancel()
