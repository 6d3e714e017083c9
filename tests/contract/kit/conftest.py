"""The peer that the channel suite talks to, and the wires over which it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from tests.contract.kit.gateway_stack import Gate, gate
from tests.contract.kit.wire_calls import text

from lamina_kit.clock import RealClock
from lamina_kit.errors import Internal, InvalidArgument, NotFound, Violation
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.log import EventTally
from lamina_kit.gateway.pace import Pace
from lamina_kit.gateway.ports import serve_port
from lamina_kit.layer.service import local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel, connect
from lamina_kit.rpc.inproc.local import LocalChannel
from lamina_kit.telemetry import trace
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop

SERVICE = "lamina.test.v1.Peer"


class Peer:
    """A service with a method for each kind of call and each style, and notes of what happened to its handlers."""

    layer = "peer"
    service_names = (SERVICE,)

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.called_back = asyncio.Event()
        self.outcome = ""
        self.seen: list[Any] = []
        self.below: Channel | None = None

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""

    def register(self, server: grpc.aio.Server) -> None:
        """Adds a handler for each method below, as generated code does."""
        codecs: Any = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": StringValue.SerializeToString,
        }
        kinds: dict[Any, tuple[Any, ...]] = {
            grpc.unary_unary_rpc_method_handler: (
                self.Echo, self.Fail, self.Crash, self.Wait, self.SetCode, self.Abort, self.Big, self.Trace,
                self.Relay, self.Metadata, self.Plain, self.Missing, self.Remaining, self.Inner,
            ),
            grpc.unary_stream_rpc_method_handler: (
                self.Count, self.CountWriting, self.Endless, self.FailLater, self.EndlessWriting, self.FailWriting,
            ),
            grpc.stream_unary_rpc_method_handler: (self.Join, self.JoinReading, self.Hasty),
            grpc.stream_stream_rpc_method_handler: (self.Talk, self.TalkWriting, self.Hang, self.Quit),
        }  # fmt: skip
        handlers = {method.__name__: make(method, **codecs) for make, methods in kinds.items() for method in methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _until_cancelled(self) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        finally:
            self.ended.set()

    async def Echo(self, request: StringValue, context: Any) -> StringValue:
        return text(request.value)

    async def Metadata(self, request: StringValue, context: Any) -> StringValue:
        self.seen = list(context.invocation_metadata())
        await context.send_initial_metadata((("early", "1"), ("early-bin", b"\x00\xff")))
        context.set_trailing_metadata((("late", "2"), ("late-bin", b"\x01")))
        return text("done")

    async def Fail(self, request: StringValue, context: Any) -> StringValue:
        if request.value == "fields":
            raise InvalidArgument(
                "Two fields are wrong.",
                reason="REQUEST_INVALID",
                violations=[Violation("a.b", "is empty"), Violation("c", "is ünsound")],
            )
        context.set_trailing_metadata((("kept", "yes"),))
        raise NotFound("No vm web-1 on h1.", reason="VM_NOT_FOUND", next_step="List them.", vm="web-1", host="h1")

    async def Crash(self, request: StringValue, context: Any) -> StringValue:
        raise RuntimeError("the secret detail")

    async def Missing(self, request: StringValue, context: Any) -> StringValue:
        raise NotImplementedError

    async def Inner(self, request: StringValue, context: Any) -> StringValue:
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner
        return request

    async def Wait(self, request: StringValue, context: Any) -> StringValue:
        context.add_done_callback(lambda done: self.called_back.set())
        await self._until_cancelled()
        return request

    async def Remaining(self, request: StringValue, context: Any) -> StringValue:
        left = context.time_remaining()
        return text("none" if left is None else f"{left:.3f}")

    async def SetCode(self, request: StringValue, context: Any) -> StringValue:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("set, not raised")
        return text("dropped")

    async def Abort(self, request: StringValue, context: Any) -> StringValue:
        context.set_trailing_metadata((("kept", "yes"),))
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "by hand", (("why", "so"),))
        raise AssertionError("abort returned")

    async def Big(self, request: StringValue, context: Any) -> StringValue:
        return text("x" * int(request.value))

    async def Trace(self, request: StringValue, context: Any) -> StringValue:
        current = trace.current()
        return text(current.trace_id if current else "")

    def Plain(self, request: StringValue, context: Any) -> StringValue:
        return text(f"plain {request.value}")

    async def Relay(self, request: StringValue, context: Any) -> StringValue:
        assert self.below is not None
        below = method(self.below, request.value, "unary_unary")
        answer: StringValue = await below(text("x"))
        return answer

    async def Count(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        for number in range(int(request.value)):
            yield text(str(number))

    async def CountWriting(self, request: StringValue, context: Any) -> None:
        for number in range(int(request.value)):
            await context.write(text(str(number)))

    async def Endless(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        number = 0
        try:
            while True:
                yield text(f"{number}{request.value}")
                number += 1
        finally:
            self.outcome = f"closed after {number}"
            self.ended.set()

    async def EndlessWriting(self, request: StringValue, context: Any) -> None:
        try:
            while True:
                await context.write(text(request.value))
        finally:
            self.ended.set()

    async def FailLater(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield text("first")
        raise NotFound("No more.", reason="STREAM_ENDED_EARLY")

    async def FailWriting(self, request: StringValue, context: Any) -> None:
        await context.write(text("first"))
        raise Internal("No more.", reason="STREAM_BROKE")

    async def Join(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return text(",".join([request.value async for request in requests]))

    async def JoinReading(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        parts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            parts.append(request.value)
        return text(",".join(parts))

    async def Hasty(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        async for request in requests:
            return text(request.value)
        return text("nothing")

    async def Talk(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield text(request.value.upper())

    async def TalkWriting(self, requests: AsyncIterator[StringValue], context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(text(request.value.upper()))

    async def Hang(self, requests: AsyncIterator[StringValue], context: Any) -> None:
        await context.write(text("here"))
        await self._until_cancelled()

    async def Quit(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield request
            return


def method(channel: Channel, name: str, kind: str) -> Any:
    """Returns what a stub would call for a method of the peer."""
    make: Any = getattr(channel, kind)
    return make(
        f"/{SERVICE}/{name}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )


@dataclass
class Wire:
    """A peer and a channel to it."""

    name: str
    peer: Peer
    state: LayerState
    channel: Channel

    def uu(self, name: str) -> Any:
        """Returns a method that takes one request and returns one response."""
        return method(self.channel, name, "unary_unary")

    def us(self, name: str) -> Any:
        """Returns a method that takes one request and streams responses."""
        return method(self.channel, name, "unary_stream")

    def su(self, name: str) -> Any:
        """Returns a method that takes a stream and returns one response."""
        return method(self.channel, name, "stream_unary")

    def ss(self, name: str) -> Any:
        """Returns a method with streams both ways."""
        return method(self.channel, name, "stream_stream")


@asynccontextmanager
async def through_gateway(address: str) -> AsyncIterator[Wire]:
    """Yields a peer on a virtual loop, behind a gateway that lets time pass as fast as real time while calls wait."""
    loop = VirtualLoop(7)
    peer, below = Peer(), Peer()
    state = LayerState("peer", "h1", VirtualClock(loop), Rng(7), boot_id="boot-1", capabilities=("b", "a"))
    gateway = Gateway(loop, Pace("stepped"), None, EventTally())

    async def start() -> LocalChannel:
        peer.below = local(below, LayerState("below", "h1", state.clock, Rng(8)))
        return local(peer, state)

    gateway.add({"peer": (await gateway.within(start)).server})
    served = await serve_port(gateway, peer, [address], state)
    async with connect(served.addresses[0]) as channel:
        yield Wire("gateway", peer, state, channel)
    await gateway.shut(0)
    await served.stop(0)
    await gateway.stop(peer.stop)
    assert not gateway.failed.done()


@pytest.fixture
async def stepped(short_dir: Path) -> AsyncIterator[Gate]:
    """A service on a stepped clock that callers do not make go, behind a gateway."""
    async with gate(short_dir) as found:
        yield found


@pytest.fixture(params=["local", "unix", "tcp", "gateway"])
async def wire(request: pytest.FixtureRequest, short_dir: Path) -> AsyncIterator[Wire]:
    """Yields the same peer over the in-process channel, a UNIX socket, a TCP socket, and behind a gateway."""
    if request.param == "gateway":
        async with through_gateway(f"unix:{short_dir}/peer.sock") as wire:
            yield wire
        return
    peer, below = Peer(), Peer()
    state = LayerState("peer", "h1", RealClock(), Rng(7), boot_id="boot-1", capabilities=("b", "a"))
    peer.below = local(below, LayerState("below", "h1", state.clock, Rng(8)))
    if request.param == "local":
        yield Wire("local", peer, state, local(peer, state))
        return
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{short_dir}/peer.sock"
    served = await serve(peer, [address], state)
    async with connect(served.addresses[0]) as channel:
        yield Wire(request.param, peer, state, channel)
    await served.stop(0)
