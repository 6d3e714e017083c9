"""Calls whose handlers run in the step of who awaits them: what they keep, and where it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from lamina_kit.rpc.inproc.inline import LIMIT_S, MAX_DEPTH, Turn
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer
from lamina_kit.virtual.loop import VirtualLoop

pytestmark = pytest.mark.real_time("on a virtual loop calls take turns")
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("inline_variable", default="unset")
CODECS = (StringValue.SerializeToString, StringValue.FromString)
LONG_S = 30.0


class Handlers:
    """Handlers that note when they run, and as whom."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.frames: list[int] = []
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.takes = asyncio.Event()
        self.again: Any = None
        self.context: Any = None

    async def Note(self, request: StringValue, context: Any) -> StringValue:
        """Answers without waiting."""
        self.order.append(request.value)
        self.tasks.append(asyncio.current_task())
        was = VARIABLE.get()
        VARIABLE.set("of the handler")
        return StringValue(value=was)

    async def Limited(self, request: StringValue, context: Any) -> StringValue:
        """Waits for long, but lets itself wait for a moment only."""
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return StringValue(value="over")
        return request

    async def Nested(self, request: StringValue, context: Any) -> StringValue:
        """Calls itself as often as the request says, and notes how high the stack is."""
        frame, height = sys._getframe(), 0
        while frame.f_back is not None:
            frame, height = frame.f_back, height + 1
        self.frames.append(height)
        left = int(request.value)
        return request if left == 0 else await self.again(StringValue(value=str(left - 1)))

    async def Take(self, requests: AsyncIterator[StringValue], context: Any) -> None:
        """Answers each message where it is written; "bad" is an error, "twice" answers twice."""

        def take(message: StringValue) -> None:
            if message.value == "bad":
                raise ValueError("a bad message")
            self.tasks.append(asyncio.current_task())
            for _ in range(1 + (message.value == "twice")):
                assert context.write_at_once(StringValue(value=f"{message.value} {VARIABLE.get()}"))

        VARIABLE.set("of the stream")
        self.context = weakref.ref(context)
        context.take_at_once(take)
        self.takes.set()
        async for request in requests:
            self.order.append(f"read {request.value}")
            take(request)


@pytest.fixture
def world() -> tuple[Handlers, Callable[..., Any], Callable[..., Any]]:
    """Returns the handlers, what makes a unary call's stub, and what makes a stream's."""
    handlers, server = Handlers(), LocalServer()
    codecs = (StringValue.FromString, StringValue.SerializeToString)
    names = ("Note", "Limited", "Nested")
    unary = {name: grpc.unary_unary_rpc_method_handler(getattr(handlers, name), *codecs) for name in names}
    stream = {"Take": grpc.stream_stream_rpc_method_handler(handlers.Take, *codecs)}
    server.add_registered_method_handlers("t.T", {**unary, **stream})
    channel = LocalChannel(server)

    def stub(name: str) -> Any:
        return channel.unary_unary(f"/t.T/{name}", *CODECS)

    handlers.again = stub("Nested")
    return handlers, stub, lambda: channel.stream_stream("/t.T/Take", *CODECS)()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets work run at once however long the machine takes for it."""
    monkeypatch.setattr("lamina_kit.rpc.inproc.inline.LIMIT_S", LONG_S)


def text(value: str) -> StringValue:
    """Returns a message."""
    return StringValue(value=value)


async def fresh() -> None:
    """Returns in a turn of the loop in which nothing has been run at once."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def ready(handlers: Handlers) -> None:
    """Returns when a stream's handler takes messages."""
    async with asyncio.timeout(LONG_S):
        await handlers.takes.wait()
    await fresh()


async def test_a_handler_that_does_not_wait_answers_in_the_same_turn(world: Any) -> None:
    """It is a task of its own with a context of its own all the same, and its caller goes on as before."""
    handlers, stub, _ = world
    caller = asyncio.current_task()
    VARIABLE.set("of the caller")
    await fresh()
    asyncio.get_running_loop().call_soon(handlers.order.append, "turn")
    assert (await stub("Note")(text("call"))).value == "unset"
    assert handlers.order == ["call"]
    assert VARIABLE.get() == "of the caller" and asyncio.current_task() is caller
    assert handlers.tasks[0] is not None and handlers.tasks[0] is not caller
    await asyncio.sleep(0)
    assert handlers.order == ["call", "turn"]


async def test_what_was_scheduled_behind_a_call_is_not_overtaken(world: Any) -> None:
    """A call that is not awaited at once takes its turn."""
    handlers, stub, _ = world
    await fresh()
    first, second = stub("Note")(text("1")), stub("Note")(text("2"))
    assert handlers.order == []
    await first
    assert handlers.order == ["1", "2"]
    await second


async def test_calls_begin_in_the_order_in_which_they_were_made(world: Any) -> None:
    """A call that is awaited at once does not overtake one that was not, nor a stream that was opened before it."""
    handlers, stub, stream = world
    await fresh()
    first, second = stub("Note")(text("1")), stub("Note")(text("2"))
    await second
    assert handlers.order == ["1", "2"]
    await first
    await fresh()
    call = stream()
    await stub("Note")(text("3"))
    assert handlers.takes.is_set()
    call.cancel()


async def test_a_call_that_was_made_in_the_turn_before_may_be_awaited(world: Any) -> None:
    """The loop has counted what is ready in the turn that is under way, its handler too, and finds as many."""
    handlers, stub, _ = world
    calls: list[Any] = []
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async def late() -> None:
        await calls.pop()
        loop.call_later(0, over.set)  # nothing gets ready by it in this turn

    await fresh()
    other = asyncio.create_task(late())
    await stub("Note")(text("1"))  # the time of this turn is set
    calls.append(stub("Note")(text("2")))
    async with asyncio.timeout(LONG_S):
        await over.wait()
    assert handlers.order == ["1", "2"]
    await other


async def test_a_timeout_inside_a_handler_ends_the_handler_s_wait_alone(world: Any) -> None:
    """The task that a handler's first step ran in is the one that it goes on in."""
    _, stub, _ = world
    await fresh()
    assert (await stub("Limited")(text("x"), timeout=LONG_S)).value == "over"
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_handler_that_waits_meets_its_deadline(world: Any) -> None:
    """The deadline of a call whose handler began at once is kept as any other."""
    handlers, stub, _ = world
    handlers.again = lambda request: asyncio.Event().wait()
    await fresh()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub("Nested")(text("1"), timeout=0.01)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_on_its_way_meets_its_deadline() -> None:
    """A channel that takes its time has begun no handler yet, and the deadline counts from the call all the same."""
    server = LocalServer()
    server.add_registered_method_handlers("t.T", {"Note": grpc.unary_unary_rpc_method_handler(Handlers().Note)})
    channel = LocalChannel(server, latency=lambda: int(2 * LONG_S * 1e9))
    async with asyncio.timeout(LONG_S):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/Note", *CODECS)(text("x"), timeout=0.01)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("unhurried")
async def test_a_chain_of_handlers_does_not_grow_the_stack_without_bound(world: Any) -> None:
    """From some depth on calls take turns, on a stack of their own."""
    handlers, stub, _ = world
    await fresh()
    await stub("Nested")(text("0"))
    lowest = handlers.frames.pop()
    await stub("Nested")(text("1"))
    each = max(handlers.frames) - lowest
    handlers.frames.clear()
    await stub("Nested")(text("200"))
    assert len(handlers.frames) == 201
    assert max(handlers.frames) <= lowest + MAX_DEPTH * each


async def test_a_storm_of_calls_lets_others_run(world: Any) -> None:
    """However many calls a task makes without waiting, what else is ready has its turn within a bound."""
    _, stub, _ = world
    loop, turns = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    loop.call_soon(turn)
    async with asyncio.timeout(LONG_S):
        while turns < 5:
            await stub("Note")(text("x"))
    assert turns >= 5


def test_the_time_of_a_turn_is_bounded() -> None:
    """Work is run at once for a while only, and again after the loop has been through all that was ready."""

    class Loop:
        now = 0.0
        scheduled: list[Callable[[], object]]

        def __init__(self) -> None:
            self.scheduled = []

        def time(self) -> float:
            return self.now

        def call_soon(self, callback: Callable[[], object]) -> None:
            self.scheduled.append(callback)

    loop: Any = Loop()
    turn = Turn()
    for _ in range(3):
        for part in (0.0, 0.5, 0.9):
            loop.now += part * LIMIT_S / 2
            assert turn.begin(loop)
            turn.end()
        loop.now += LIMIT_S
        assert not turn.begin(loop)
        (over,) = loop.scheduled
        loop.scheduled.clear()
        over()
    for _ in range(MAX_DEPTH):
        assert turn.begin(loop)
    assert not turn.begin(loop)
    turn.end()
    assert turn.begin(loop)


def test_a_virtual_loop_has_no_such_turn() -> None:
    """There the seed orders what is ready, and a call is a part of that."""
    assert Turn.of(VirtualLoop(1)) is None


@pytest.mark.usefixtures("unhurried")
async def test_a_message_is_taken_where_it_is_written(world: Any) -> None:
    """A stream's handler that asks for it is given messages in its own context; the answer is there at once."""
    handlers, _, stream = world
    call = stream()
    await ready(handlers)
    asyncio.get_running_loop().call_soon(handlers.order.append, "turn")
    await call.write(text("a"))
    assert (await call.read()).value == "a of the stream"
    await call.write(text("twice"))
    assert [(await call.read()).value for _ in range(2)] == ["twice of the stream"] * 2
    assert handlers.order == [] and handlers.tasks[0] is asyncio.current_task()
    call.cancel()


async def test_messages_keep_their_order_whoever_takes_them(world: Any) -> None:
    """What was written before the handler took messages, is read, and nothing overtakes it."""
    handlers, _, stream = world
    call = stream()
    sent = [str(number) for number in range(40)]
    for value in sent[:10]:
        await call.write(text(value))
    await ready(handlers)
    for value in sent[10:]:
        await call.write(text(value))
    await call.done_writing()
    assert [message.value.partition(" ")[0] async for message in call] == sent
    assert handlers.order[:10] == [f"read {value}" for value in sent[:10]]


async def test_an_error_of_a_message_that_was_taken_ends_the_call(world: Any) -> None:
    """The handler sees it where it reads, as if it had read the message itself."""
    handlers, _, stream = world
    call = stream()
    await ready(handlers)
    await call.write(text("bad"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNKNOWN and "a bad message" in str(caught.value.details())
    assert handlers.order == []


async def test_a_stream_that_ended_is_gone(world: Any) -> None:
    """What took its messages does not keep it: it is in no reference cycle."""
    handlers, _, stream = world
    call = stream()
    await ready(handlers)
    gc.disable()
    try:
        await call.write(text("a"))
        await call.done_writing()
        assert len([message async for message in call]) == 1
        del call
        await fresh()
        assert handlers.context() is None
    finally:
        gc.enable()
