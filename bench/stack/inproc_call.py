"""An in-process call beside the same call over a UNIX socket, interleaved in one run.

    python bench/stack/inproc_call.py [--calls 4000] [--rounds 7]

Both go through the same generated stub and servicer, the same interceptor, a deadline of 5 s and one metadata pair, and
are unsampled. The absolute figures depend on the machine and on what else runs there; the ratios are what counts: to
the socket, and to a bare asyncio task. The aim is at most 15 µs on an idle machine. The last lines show what a sampled
call and a streamed message cost.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit.clock import RealClock
from lamina_kit.layer.service import local, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel, connect
from lamina_kit.telemetry import trace

AIM_US = 15.0
METADATA = (("lamina-session", "h1/bench/1"),)
REQUEST = layer_pb2.ListSpansRequest(trace_id="0" * 32)


class Bench:
    """A service that answers at once."""

    layer = "bench"
    service_names: tuple[str, ...] = ()

    def register(self, server: Any) -> None:
        """Adds nothing: the kit's own registration is replaced below."""

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


class Answers(layer_pb2_grpc.LayerServicer):
    """Answers with what it was asked."""

    async def ListSpans(self, request: layer_pb2.ListSpansRequest, context: Any) -> layer_pb2.ListSpansResponse:
        """Returns one span."""
        return layer_pb2.ListSpansResponse(spans=[layer_pb2.Span(trace_id=request.trace_id)])

    async def OpenSession(
        self, request: layer_pb2.OpenSessionRequest, context: Any
    ) -> AsyncIterator[layer_pb2.SessionEvent]:
        """Sends `epoch` messages."""
        for number in range(request.epoch):
            yield layer_pb2.SessionEvent(opened=layer_pb2.SessionOpened(adopted_objects=number))


class Peer(Bench):
    """Registers `Answers` under a name of its own, so that it does not meet the layer's own service."""

    def register(self, server: Any) -> None:
        """Adds the methods of `Answers` as `bench.Layer`."""
        add: Any = layer_pb2_grpc.add_LayerServicer_to_server
        add(Answers(), _Renamed(server))


class _Renamed:
    """Takes a generated registration and passes it on under another service name."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Passes nothing on: the registered handlers are enough."""

    def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
        """Passes the methods on as `bench.Layer`."""
        import grpc

        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Layer", handlers),))


def stub(channel: Channel) -> tuple[Any, Any]:
    """Returns the unary method and the streaming method of `bench.Layer`."""
    unary = channel.unary_unary(
        "/bench.Layer/ListSpans",
        request_serializer=layer_pb2.ListSpansRequest.SerializeToString,
        response_deserializer=layer_pb2.ListSpansResponse.FromString,
    )
    stream = channel.unary_stream(
        "/bench.Layer/OpenSession",
        request_serializer=layer_pb2.OpenSessionRequest.SerializeToString,
        response_deserializer=layer_pb2.SessionEvent.FromString,
    )
    return unary, stream


async def unary_us(call: Any, count: int) -> float:
    """Returns microseconds a call."""
    start = time.perf_counter()
    for _ in range(count):
        await call(REQUEST, timeout=5, metadata=METADATA)
    return (time.perf_counter() - start) / count * 1e6


async def stream_us(call: Any, count: int) -> float:
    """Returns microseconds a message of a stream."""
    start = time.perf_counter()
    async for _ in call(layer_pb2.OpenSessionRequest(epoch=count)):
        pass
    return (time.perf_counter() - start) / count * 1e6


async def floor_us(count: int) -> float:
    """Returns microseconds that asyncio alone takes for a task and the wait for its result: no call can cost less."""
    loop = asyncio.get_running_loop()

    async def answer(waiter: asyncio.Future[None]) -> None:
        waiter.set_result(None)

    start = time.perf_counter()
    for _ in range(count):
        waiter = loop.create_future()
        task = loop.create_task(answer(waiter))
        await waiter
        await task
    return (time.perf_counter() - start) / count * 1e6


async def main(calls: int, rounds: int) -> None:
    """Measures and prints."""
    clock = RealClock()
    state = LayerState("bench", "h1", clock, Rng(1))
    inside, sampled, outside, streamed, streamed_outside, floor = [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        served = await serve(Peer(), [f"unix:{path}"], state)
        near, far = local(Peer(), state), connect(f"unix:{path}")
        (near_call, near_stream), (far_call, far_stream) = stub(near), stub(far)
        await unary_us(near_call, 100)
        await unary_us(far_call, 20)
        for _ in range(rounds):
            inside.append(await unary_us(near_call, calls))
            floor.append(await floor_us(calls))
            outside.append(await unary_us(far_call, max(calls // 40, 10)))
            with trace.begin("bench", state.recorder):
                sampled.append(await unary_us(near_call, calls // 4))
            streamed.append(await stream_us(near_stream, calls))
            streamed_outside.append(await stream_us(far_stream, calls // 4))
        await far.close()
        await served.stop(0)
    middle = statistics.median
    print(f"in process, unary      {middle(inside):8.1f} µs (best {min(inside):.1f}; aim ≤ {AIM_US:g})")
    print(f"UNIX socket, unary     {middle(outside):8.1f} µs (best {min(outside):.1f})")
    print(f"ratio                  {middle(outside) / middle(inside):8.1f} × faster in process")
    print(f"asyncio alone          {middle(floor):8.1f} µs: the call is {middle(inside) / middle(floor):.1f} × that")
    print(f"in process, sampled    {middle(sampled):8.1f} µs")
    print(f"in process, streamed   {middle(streamed):8.1f} µs a message")
    print(f"UNIX socket, streamed  {middle(streamed_outside):8.1f} µs a message")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.calls, arguments.rounds))
