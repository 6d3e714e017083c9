"""One suite for every channel: in process, over a UNIX socket, over TCP, and through a gateway.

Longer than 400 lines because it is one suite: what is promised of a channel stands in one place, in reading order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit import status, trace
from lamina_kit.errors import DeadlineExceeded, Internal, InvalidArgument, NotFound, ResourceExhausted, Violation
from lamina_kit.inproc import LocalChannel
from lamina_kit.rpc import MAX_MESSAGE

SHORT_S = 0.05
"""A deadline that is meant to pass."""
LONG_S = 5.0
"""A deadline that is not."""
WITHOUT_GATEWAY = pytest.mark.parametrize("wire", ["local", "unix", "tcp"], indirect=True)
"""Behind a gateway deadlines are kept outside, and a reader is cut, not waited for (`tests/integration/gateway`)."""


def text(value: str) -> StringValue:
    """Returns a message."""
    return StringValue(value=value)


async def texts(*values: str) -> AsyncIterator[StringValue]:
    """Yields messages."""
    for value in values:
        yield text(value)


async def within(event: asyncio.Event) -> None:
    """Returns when the event is set; fails the test when that takes too long."""
    async with asyncio.timeout(LONG_S):
        await event.wait()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


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
    waiting = asyncio.ensure_future(_awaited(call))
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
    waiting = asyncio.ensure_future(_awaited(wire.uu("Wait")(text(""), timeout=LONG_S)))
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


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── traces ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_trace_travels(wire: Any) -> None:
    """A handler works for its caller's trace, and so does the layer below it."""
    with trace.begin("test", wire.state.recorder, sampled=False) as context:
        assert (await wire.uu("Trace")(text(""))).value == context.trace_id
        assert (await wire.uu("Relay")(text("Trace"))).value == context.trace_id
    assert len(wire.state.spans) == 0


async def test_a_sampled_call_is_recorded(wire: Any) -> None:
    """A sampled call leaves a span under the caller's, with its status."""
    with trace.begin("test", wire.state.recorder) as context:
        await wire.uu("Echo")(text(""))
        await failure(wire.uu("Fail")(text("")))
        await failure(wire.uu("SetCode")(text("")))
    spans = {span.name.rpartition("/")[2]: span for span in wire.state.spans.list(context.trace_id)}
    assert {name: span.status for name, span in spans.items()} == {
        "test": "OK", "Echo": "OK", "Fail": "NOT_FOUND", "SetCode": "OUT_OF_RANGE",
    }  # fmt: skip
    assert spans["Echo"].parent_span_id == context.span_id


async def test_a_call_without_a_trace_begins_one(wire: Any) -> None:
    """Each untraced call has a trace id of its own, and leaves no span."""
    first, second = [(await wire.uu("Trace")(text(""))).value for _ in range(2)]
    assert len(first) == len(second) == 32 and first != second
    assert len(wire.state.spans) == 0


# ── what every service offers ────────────────────────────────────────────────────────────────────────────────────


async def test_health_is_served(wire: Any) -> None:
    """Check and Watch answer SERVING for the whole and each service, NOT_FOUND for others."""
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    for name in ("", "lamina.test.v1.Peer", "lamina.common.v1.Layer"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_is_served(wire: Any) -> None:
    """Reflection lists the service, Layer and health."""
    make: Any = reflection_pb2_grpc.ServerReflectionStub
    stub = make(wire.channel)

    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    answers = [answer async for answer in stub.ServerReflectionInfo(ask())]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"lamina.test.v1.Peer", "lamina.common.v1.Layer", "grpc.health.v1.Health"} <= names


async def test_the_layer_introduces_itself(wire: Any) -> None:
    """Handshake tells layer, host, boot and capabilities in alphabetical order."""
    stub = layer_pb2_grpc.LayerStub(wire.channel)
    answer = await stub.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.7"))
    assert (answer.layer, answer.host, answer.boot_id, answer.engine) == ("peer", "h1", "boot-1", "model")
    assert list(answer.capabilities) == ["a", "b"]


async def test_a_closed_channel_refuses_calls(wire: Any) -> None:
    """After `close` a call fails instead of hanging."""
    echo = wire.uu("Echo")
    await wire.channel.close()
    with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError)):
        await echo(text("x"), timeout=LONG_S)


async def test_bad_metadata_are_refused(wire: Any) -> None:
    """A key that HTTP/2 does not take, and bytes under a text key, never leave the caller."""
    for pair in (("Upper Case", "x"), ("text", b"x"), ("raw-bin", "x")):
        with pytest.raises(ValueError, match="metadata was invalid"):
            await wire.uu("Echo")(text(""), metadata=(pair,), timeout=LONG_S)


def test_the_suite_covers_the_local_channel() -> None:
    """The in-process channel is a `grpc.aio.Channel`, so typed stubs take it."""
    assert issubclass(LocalChannel, grpc.aio.Channel)


async def _awaited(call: Any) -> Any:
    return await call
