"""Calls that meet faults, over every channel: late, lost, made twice, failed, cut off."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import grpc
import pytest

from lamina_kit.clock import RealClock
from lamina_kit.faults.channel import FaultyChannel, Link, PlannedFaults
from lamina_kit.faults.plan import FaultPlan
from lamina_kit.rng import Rng
from lamina_kit.rpc import status
from lamina_kit.telemetry import trace

MS = 10**6


def faulty(wire: Any, *rules: dict[str, Any], clock: Any = None) -> Any:
    """Puts a plan between the tests and the peer; returns the wire."""
    plan = FaultPlan.parse({"rule": list(rules)}, Rng(1))
    faults = PlannedFaults(plan, "test", "peer", clock or RealClock(), wire.state.events)
    wire.channel = FaultyChannel(wire.channel, faults)
    return wire


def cuttable(wire: Any) -> Link:
    """Puts a link between the tests and the peer; returns it."""
    link = Link(RealClock())
    wire.channel = FaultyChannel(wire.channel, link)
    return link


def text(value: str) -> Any:
    """Returns a message."""
    from google.protobuf.wrappers_pb2 import StringValue

    return StringValue(value=value)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_call_without_a_fault_is_the_inner_one(wire: Any) -> None:
    """A rule that does not match changes nothing."""
    answer = await faulty(wire, {"kind": "drop", "method": "Peer/Wait"}).uu("Echo")(text("x"))
    assert answer.value == "x"


async def test_a_lost_request_is_the_deadline(wire: Any) -> None:
    """The handler never hears of a dropped call, and its caller waits until its deadline."""
    call = faulty(wire, {"kind": "drop"}).uu("Wait")(text("x"), timeout=0.05)
    assert (await error_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not wire.peer.begun.is_set()


async def test_a_delayed_call_is_carried_out_later(wire: Any) -> None:
    """It takes at least its delay, and its answer is the handler's."""
    clock = RealClock()
    call = faulty(wire, {"kind": "delay", "min_ns": 30 * MS}).uu("Echo")(text("late"))
    assert (await call).value == "late" and clock.now_ns() >= 30 * MS
    assert call.done() and not call.cancelled() and await call.code() is grpc.StatusCode.OK


async def test_a_delay_beyond_the_deadline_is_the_deadline(wire: Any) -> None:
    """The handler is not called any more."""
    error = await error_of(faulty(wire, {"kind": "delay", "min_ns": 10**10}).uu("Wait")(text("x"), timeout=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not wire.peer.begun.is_set()


async def test_a_failing_call_before_its_execution(wire: Any) -> None:
    """It is not carried out; it looks like a broken connection, or has the code and reason of the rule."""
    error = await error_of(faulty(wire, {"kind": "fail"}).uu("Wait")(text("x")))
    assert status.rpc_error(error).reason == "RPC_UNAVAILABLE"
    named = {"kind": "fail", "code": "RESOURCE_EXHAUSTED", "reason": "NO_ROOM"}
    wire.channel = wire.channel.inner
    error = await error_of(faulty(wire, named).uu("Wait")(text("x")))
    assert (error.code().name, status.rpc_error(error).reason) == ("RESOURCE_EXHAUSTED", "NO_ROOM")
    assert not wire.peer.begun.is_set()


async def test_a_lost_answer_is_after_its_execution(wire: Any) -> None:
    """The handler has run to its end when the caller sees UNAVAILABLE."""
    call = faulty(wire, {"kind": "fail", "after": True}).uu("Metadata")
    error = await error_of(call(text("x"), metadata=(("mark", "1"),)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert wire.peer.seen, "the handler did not run"


async def test_a_duplicate_runs_the_handler_twice(wire: Any, eventually: Any) -> None:
    """Both run, each with a span of its own in the caller's trace; the caller gets one answer."""
    call = faulty(wire, {"kind": "duplicate", "min_ns": MS}).uu("Echo")
    with trace.begin("root", wire.state.recorder) as context:
        assert (await call(text("x"))).value == "x"

    def runs() -> int:
        return [span.name for span in wire.state.spans.list(context.trace_id)].count("lamina.test.v1.Peer/Echo")

    await eventually(lambda: runs() == 2, "the second run")


async def test_cancelling_a_delayed_call(wire: Any) -> None:
    """A caller that gives up is cancelled at once and the handler not called."""
    call = faulty(wire, {"kind": "delay", "min_ns": 10**12}).uu("Wait")(text("x"))
    waiter = asyncio.ensure_future(_await(call))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert call.cancelled() and await call.code() is grpc.StatusCode.CANCELLED


async def _await(call: Any) -> Any:
    return await call


@pytest.mark.parametrize("kind", ["drop", "fail"])
async def test_a_stream_breaks_at_once(wire: Any, kind: str) -> None:
    """A stream that is lost or fails ends with UNAVAILABLE before any message."""
    call = faulty(wire, {"kind": kind}).us("Count")(text("3"))
    assert (await error_of(call.read())).code() is grpc.StatusCode.UNAVAILABLE
    assert await call.code() is grpc.StatusCode.UNAVAILABLE and call.done()


async def test_a_stream_breaks_after_a_while(wire: Any, manual_clock: Any) -> None:
    """Messages come until then; the handler is cancelled; iterating raises UNAVAILABLE, not a cancellation."""
    call = faulty(wire, {"kind": "drop", "min_ns": 50 * MS}, clock=manual_clock).ss("Hang")()
    assert (await call.read()).value == "here"
    await manual_clock.advance(50 * MS)
    assert (await error_of(call.read())).code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(wire.peer.ended.wait(), 30)
    assert not call.cancelled()


async def test_a_delayed_stream_takes_messages_meanwhile(wire: Any) -> None:
    """Writing and iterating wait for the stream to begin, and lose nothing."""
    call = faulty(wire, {"kind": "delay", "min_ns": 20 * MS}).ss("Talk")()
    await call.write(text("a"))
    await call.done_writing()
    assert [message.value async for message in call] == ["A"]
    given = faulty(wire, {"kind": "delay", "min_ns": MS}).su("Join")(iter([text("a"), text("b")]))
    assert (await given).value == "a,b"


async def test_a_cut_link_breaks_streams_and_loses_calls(wire: Any) -> None:
    """Streams break at once, calls see their deadline; once mended both work again."""
    link = cuttable(wire)
    stream = wire.ss("Hang")()
    assert (await stream.read()).value == "here"
    assert link.cut() == 1
    assert (await error_of(stream.read())).code() is grpc.StatusCode.UNAVAILABLE
    assert (await error_of(wire.uu("Echo")(text("x"), timeout=0.02))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await error_of(wire.us("Count")(text("1")).read())).code() is grpc.StatusCode.UNAVAILABLE
    link.mend()
    assert (await wire.uu("Echo")(text("x"))).value == "x"
    assert [message.value async for message in wire.us("Count")(text("2"))] == ["0", "1"]


async def test_a_waiter_sees_the_cut(wire: Any) -> None:
    """Someone who waits for a message when the link is cut gets the error then."""
    link = cuttable(wire)
    stream = wire.ss("Hang")()
    await stream.read()
    waiting = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    link.cut()
    assert (await error_of(waiting)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_dropped_stream_is_cancelled(wire: Any) -> None:
    """Nothing of a link or a plan keeps a stream that its caller has let go."""
    cuttable(wire)
    stream = wire.us("Endless")(text("x"))
    await stream.read()
    kept = weakref.ref(stream)
    if wire.name != "local":
        stream.cancel()  # grpc.aio keeps the inner call alive in a reference cycle
    del stream
    assert kept() is None
    await asyncio.wait_for(wire.peer.ended.wait(), 30)


async def test_a_broken_stream_calls_back(wire: Any, eventually: Any) -> None:
    """Callbacks of a stream that never began, and of one that did, are called once it broke."""
    link = cuttable(wire)
    seen: list[Any] = []
    stream = wire.ss("Hang")()
    await stream.read()
    stream.add_done_callback(seen.append)
    link.cut()
    lost = wire.us("Count")(text("1"))
    lost.add_done_callback(seen.append)
    await error_of(stream.read())
    await eventually(lambda: len(seen) == 2, "both callbacks")
    assert lost in seen and stream in seen


async def test_each_fault_is_an_event(wire: Any) -> None:
    """The log of the caller's layer names the method, the rule and what was done."""
    await faulty(wire, {"kind": "delay", "min_ns": 3}).uu("Echo")(text("x"))
    (event,) = wire.state.events.list("lamina.test.v1.Peer/Echo")
    inputs = dict(event.inputs)
    assert (event.event, event.rule) == ("rpc.delay", "fault plan, rule 1")
    assert (inputs["caller"], inputs["layer"], inputs["delay_ns"]) == ("test", "peer", "3")
