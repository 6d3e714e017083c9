"""What is particular to the in-process channel: its loop, its life, its limits."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from lamina_kit.errors import Unimplemented
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.call import MAX_MESSAGE, LocalContext
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer
from lamina_kit.rpc.inproc.pipe import MAX_AHEAD, MAX_BYTES_AHEAD, Pipe
from lamina_kit.rpc.inproc.route import Route
from lamina_kit.virtual.latency import LEAST_NS, MOST_NS, drawn
from lamina_kit.virtual.loop import VirtualLoop

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Handlers:
    """Handlers without an interceptor around them."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.context: Any = None

    async def Echo(self, request: StringValue, context: Any) -> StringValue:
        """Returns what came."""
        return StringValue(value=f"{request.value} {VARIABLE.get()}".strip())

    async def Crash(self, request: StringValue, context: Any) -> StringValue:
        """Raises what gRPC does not know."""
        raise RuntimeError("boom")

    async def Sleep(self, request: StringValue, context: Any) -> StringValue:
        """Sleeps for the given seconds on the loop."""
        try:
            await passed(float(request.value))
        except asyncio.CancelledError:
            self.cancelled.append(request.value)
            raise
        return request

    async def Burst(self, request: StringValue, context: Any) -> None:
        """Sends what can be sent at once, and tells in the last message how much that was."""
        sent = 0
        while context.write_at_once(request):
            sent += 1
        await context.write(StringValue(value=str(sent)))
        self.context = context

    async def Count(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        """Yields for ever."""
        try:
            while True:
                yield request
        finally:
            self.cancelled.append("count")


def connected() -> tuple[Handlers, LocalServer, LocalChannel]:
    """Returns handlers, their server and a channel to it."""
    handlers, server = Handlers(), LocalServer()
    unary: Any = grpc.unary_unary_rpc_method_handler
    stream: Any = grpc.unary_stream_rpc_method_handler
    codecs = (StringValue.FromString, StringValue.SerializeToString)
    methods = {name: unary(getattr(handlers, name), *codecs) for name in ("Echo", "Crash", "Sleep")}
    streams = {name: stream(getattr(handlers, name), *codecs) for name in ("Count", "Burst")}
    server.add_registered_method_handlers("t.T", {**methods, **streams})
    return handlers, server, LocalChannel(server)


def method(channel: LocalChannel, name: str, kind: str = "unary_unary") -> Any:
    """Returns what a stub calls."""
    return getattr(channel, kind)(f"/t.T/{name}", StringValue.SerializeToString, StringValue.FromString)


async def passed(seconds: float) -> None:
    """Returns when so much of the loop's own time has passed."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


def text(value: str) -> StringValue:
    """Returns a message."""
    return StringValue(value=value)


def test_deadlines_are_the_loop_s_own_time() -> None:
    """On a loop in virtual time a day passes in an instant, and deadlines pass with it."""
    loop = VirtualLoop(1, strict=True)

    async def work() -> tuple[str, grpc.StatusCode, list[str]]:
        handlers, _, channel = connected()
        day = await method(channel, "Sleep")(text("86400"), timeout=100_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(channel, "Sleep")(text("86400"))
        await asyncio.sleep(0)
        return day.value, caught.value.code(), handlers.cancelled

    assert loop.run(work()) == ("86400", grpc.StatusCode.DEADLINE_EXCEEDED, ["86400"])
    assert loop.now_ns == 86_430 * 10**9


async def test_the_caller_s_context_does_not_leak() -> None:
    """A handler sees the server's context variables, not those of whoever calls."""
    _, _, channel = connected()
    VARIABLE.set("caller")
    assert (await method(channel, "Echo")(text("x"))).value == "x unset"


async def test_without_an_interceptor_a_crash_is_grpc_s_unknown() -> None:
    """A bare server says what grpc.aio says."""
    _, _, channel = connected()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(channel, "Crash")(text(""))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert "RuntimeError" in str(caught.value.details())


async def test_a_method_called_as_another_kind_is_refused() -> None:
    """A stream method is not called for one response, nor the other way round."""
    _, _, channel = connected()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(channel, "Count")(text(""))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError):
        await method(channel, "Echo", "unary_stream")(text("")).read()


async def test_a_stopped_server_is_unavailable() -> None:
    """Stopping refuses new calls and cancels those that run; starting takes calls again."""
    handlers, server, channel = connected()
    running = method(channel, "Sleep")(text("100"))
    stream = method(channel, "Count", "unary_stream")(text("x"))
    await stream.read()
    assert await server.wait_for_termination(0.001)
    await server.stop(0)
    assert not await server.wait_for_termination()
    for call in (running, method(channel, "Echo")(text("x"))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sorted(handlers.cancelled) == ["100", "count"]
    await server.start()
    assert (await method(channel, "Echo")(text("again"))).value.startswith("again")


def test_stopping_gives_running_calls_their_grace() -> None:
    """A call that ends within the grace ends well; one that does not is cancelled then."""
    loop = VirtualLoop(1, strict=True)

    async def work() -> list[Any]:
        _, server, channel = connected()
        calls = [method(channel, "Sleep")(text(seconds), timeout=1000) for seconds in ("5", "50")]
        await passed(1)
        await server.stop(10)
        return [await call.code() for call in calls]

    assert loop.run(work()) == [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE]


def test_a_call_takes_its_latency() -> None:
    """A channel with a latency lets each call begin so much later; deadlines and cancellations count from the call."""
    loop = VirtualLoop(1, strict=True)

    async def work() -> list[Any]:
        handlers, server, _ = connected()
        draws = iter([30_000, 10_000, 5 * 10**9, 5 * 10**9, 7_000])
        channel = LocalChannel(server, latency=lambda: next(draws))
        times: list[Any] = []

        async def call(name: str) -> None:
            await method(channel, "Echo")(text(name))
            times.append((name, loop.now_ns))

        await asyncio.gather(call("slow"), call("fast"))
        late = method(channel, "Sleep")(text("1"), timeout=2)
        times.append((await late.code(), loop.now_ns))
        dropped = method(channel, "Sleep")(text("1"), timeout=20)
        assert dropped.cancel()
        await asyncio.sleep(10)
        started = method(channel, "Echo")(text("x"))
        await server.stop(0)
        return [*times, await started.code(), handlers.cancelled]

    assert loop.run(work()) == [
        ("fast", 10_000),
        ("slow", 30_000),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 2 * 10**9 + 30_000),
        grpc.StatusCode.UNAVAILABLE,
        [],
    ]


def test_latencies_are_drawn_from_the_seed() -> None:
    """The same source gives the same ones, within their bounds."""
    first, again, other = drawn(Rng(1)), drawn(Rng(1)), drawn(Rng(2))
    values = [first() for _ in range(1000)]
    assert values == [again() for _ in range(1000)] != [other() for _ in range(1000)]
    assert min(values) >= LEAST_NS and max(values) <= MOST_NS and len(set(values)) > 900


async def test_leaving_a_stream_early_cancels_it_at_once() -> None:
    """Dropping the call object is enough; no garbage collection is waited for."""
    handlers, _, channel = connected()
    async for _ in method(channel, "Count", "unary_stream")(text("x")):
        break
    for _ in range(3):
        await asyncio.sleep(0)
    assert handlers.cancelled == ["count"]


async def test_a_cancelled_caller_need_not_wait_for_the_handler() -> None:
    """A handler that takes its time to clean up does not hold its caller."""
    handlers, _, channel = connected()
    task = asyncio.ensure_future(_awaited(method(channel, "Sleep")(text("100"))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert handlers.cancelled == ["100"]


async def test_a_call_that_never_began_leaves_nothing_behind() -> None:
    """A call cancelled before its handler's first step is forgotten by the server, which can then stop."""
    _, server, channel = connected()
    call = method(channel, "Sleep")(text("100"))
    assert call.cancel()
    async with asyncio.timeout(5):
        await server.stop(0)
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_writing_to_a_handler_that_has_returned_does_not_block() -> None:
    """Whoever writes on while responses are unread gets through, and learns from the status how it ended."""
    server = LocalServer()

    async def once(requests: Any, context: Any) -> None:
        await context.write(text("only"))

    make: Any = grpc.stream_stream_rpc_method_handler
    handler = make(once, StringValue.FromString, StringValue.SerializeToString)
    server.add_registered_method_handlers("t.T", {"Once": handler})
    call = method(LocalChannel(server), "Once", "stream_stream")()
    async with asyncio.timeout(5):
        for _ in range(200):
            await call.write(text("x"))
        assert (await call.read()).value == "only"
        assert await call.read() is grpc.aio.EOF
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(text("x"))


async def test_an_unknown_option_of_a_call_is_refused() -> None:
    """A misspelt option does not vanish."""
    _, _, channel = connected()
    with pytest.raises(TypeError):
        method(channel, "Echo")(text(""), time_out=1)


async def test_the_local_server_has_no_ports() -> None:
    """Asking it to listen says what to use instead."""
    server = LocalServer()
    with pytest.raises(Unimplemented, match="serve"):
        server.add_insecure_port("127.0.0.1:0")
    with pytest.raises(Unimplemented):
        server.add_secure_port("127.0.0.1:0", None)


async def test_the_channel_says_its_state() -> None:
    """READY from the start, SHUTDOWN once closed; nothing else ever happens to it."""
    _, _, channel = connected()
    async with channel:
        await channel.channel_ready()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_pipe_is_bounded_by_messages_and_bytes() -> None:
    """A writer that is ahead waits until the reader takes something."""
    pipe = Pipe(asyncio.get_running_loop())
    for _ in range(MAX_AHEAD):
        assert await pipe.put(b"x")
    waiting = asyncio.ensure_future(pipe.put(b"y"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await pipe.get() == b"x"
    assert await waiting
    large = Pipe(asyncio.get_running_loop())
    assert await large.put(bytes(MAX_BYTES_AHEAD))
    blocked = asyncio.ensure_future(large.put(b"z"))
    await asyncio.sleep(0)
    assert not blocked.done()
    large.abort()
    assert not await blocked and large.drained


async def test_a_closed_pipe_delivers_what_is_there() -> None:
    """After `close` the reader gets the rest and then the end; a writer is told."""
    pipe = Pipe(asyncio.get_running_loop())
    await pipe.put(b"a")
    pipe.close()
    assert not await pipe.put(b"b")
    assert [await pipe.get(), await pipe.get(), await pipe.get()] == [b"a", None, None]


async def test_a_reader_that_gives_up_loses_no_message() -> None:
    """A cancelled reader passes its turn to the next."""
    pipe = Pipe(asyncio.get_running_loop())
    first, second = asyncio.ensure_future(pipe.get()), asyncio.ensure_future(pipe.get())
    await asyncio.sleep(0)
    await pipe.put(b"m")
    first.cancel()
    assert await second == b"m"
    with pytest.raises(asyncio.CancelledError):
        await first


def test_importing_the_kit_is_quick() -> None:
    """`import lamina_kit` loads nothing else, and its pure modules load neither gRPC nor numba nor protobuf."""
    code = (
        "import sys; before = set(sys.modules); import lamina_kit; more = set(sys.modules) - before - {'lamina_kit'};"
        "import lamina_kit.errors, lamina_kit.names, lamina_kit.checks, lamina_kit.effects, lamina_kit.bus.run_page;"
        "import lamina_kit.paging, lamina_kit.rng, lamina_kit.clock, lamina_kit.engines, lamina_kit.config;"
        "heavy = {'grpc', 'numba', 'numpy', 'google.protobuf', 'structlog'} & set(sys.modules);"
        "raise SystemExit(f'{more} {heavy}' if heavy or more else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def _awaited(call: Any) -> Any:
    return await call


async def test_what_is_written_at_once_is_bounded_and_in_order() -> None:
    """As many messages go without waiting as the pipe holds; `write` continues behind them; after the end none goes."""
    handlers, _, channel = connected()
    received = [message.value async for message in method(channel, "Burst", "unary_stream")(StringValue(value="x"))]
    assert received == ["x"] * MAX_AHEAD + [str(MAX_AHEAD)]
    assert not handlers.context.write_at_once(StringValue(value="late"))


async def test_what_is_too_large_is_left_to_write() -> None:
    """A message beyond the limit is not sent at once: `write` says what is wrong with it."""
    call = method(connected()[2], "Burst", "unary_stream")(StringValue(value="x" * (MAX_MESSAGE - 8)))
    assert len((await call.read()).value) > MAX_BYTES_AHEAD
    assert (await call.read()).value == "1"
    context = LocalContext(Route("/t.T/None", None), (), asyncio.get_running_loop(), None)
    context.responses = Pipe(asyncio.get_running_loop())
    assert not context.write_at_once(bytes(MAX_MESSAGE + 1)) and context.write_at_once(bytes(MAX_MESSAGE))
