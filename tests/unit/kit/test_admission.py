"""How the calls of a server end when it stops, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lamina_kit.errors import Unavailable
from lamina_kit.rpc.admission import Admission
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer
from lamina_kit.rpc.status import rpc_error
from lamina_kit.virtual.loop import VirtualLoop

GRACE_S = 3.0
SERVING = health_pb2.HealthCheckResponse.SERVING


class Slow(health_pb2_grpc.HealthServicer):
    """Answers after as many seconds as the request names, and streams for ever. Stands for any service."""

    def __init__(self) -> None:
        self.cleaned = 0

    async def Check(self, request: Any, context: Any) -> Any:
        """Answers late."""
        try:
            await asyncio.sleep(float(request.service))
        finally:
            self.cleaned += 1
        return health_pb2.HealthCheckResponse(status=SERVING)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Never ends by itself."""
        try:
            while True:
                yield health_pb2.HealthCheckResponse(status=SERVING)
                await asyncio.sleep(1)
        finally:
            self.cleaned += 1


class World:
    """A server in this process with a admission, and its stub."""

    def __init__(self) -> None:
        assert isinstance(asyncio.get_running_loop(), VirtualLoop), "the times of these tests are the loop's"
        self.admission = Admission("mmu")
        self.service = Slow()
        server = LocalServer(self.admission.wrap)
        health_pb2_grpc.add_HealthServicer_to_server(self.service, server)
        self.channel = LocalChannel(server)
        self.stub: Any = health_pb2_grpc.HealthStub(self.channel)

    def call(self, seconds: float) -> asyncio.Future[Any]:
        """Begins a call with one response."""
        request = health_pb2.HealthCheckRequest(service=str(seconds))
        call: asyncio.Future[Any] = asyncio.ensure_future(self.stub.Check(request))
        return call

    async def watch(self) -> Any:
        """Begins a stream, and returns it once it has said something."""
        stream = self.stub.Watch(health_pb2.HealthCheckRequest())
        assert (await stream.read()).status == SERVING
        return stream


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Returns a server in this process, which takes calls."""
    made = World()
    yield made
    await made.channel.close()


async def refused(call: Any) -> None:
    """Checks that a call ended as its caller is to see it: who, why, and what to do."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = rpc_error(caught.value)
    assert isinstance(error, Unavailable) and error.reason == "SHUTTING_DOWN"
    assert "mmu" in error.message and error.next_step


async def test_a_call_that_ends_in_the_grace_is_answered(world: World) -> None:
    """It has its answer, and the server waits not a moment longer than for it."""
    call, loop = world.call(2), asyncio.get_running_loop()
    await asyncio.sleep(0)
    before = loop.time()
    await world.admission.shut(GRACE_S)
    assert 1.9 < loop.time() - before < 2.1
    assert (await call).status == SERVING


async def test_a_call_that_lasts_longer_is_ended_after_the_grace(world: World) -> None:
    """It is cancelled then, cleans up, and its caller is told why."""
    call, loop = world.call(60), asyncio.get_running_loop()
    await asyncio.sleep(0)
    before = loop.time()
    await world.admission.shut(GRACE_S)
    assert GRACE_S <= loop.time() - before < GRACE_S + 0.1
    await refused(call)
    assert world.service.cleaned == 1


async def test_streams_are_told_and_ended(world: World) -> None:
    """What a stream had said arrives, then the reason; nobody waits for an end that it does not have."""
    stream, loop = await world.watch(), asyncio.get_running_loop()
    before = loop.time()
    await world.admission.shut(GRACE_S)
    assert loop.time() - before < 0.1

    async def rest() -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass

    await refused(rest())
    assert world.service.cleaned == 1


async def test_new_calls_are_refused_while_old_ones_end(world: World) -> None:
    """From the first moment of the grace on, streams and calls with one response alike."""
    old = world.call(2)
    await asyncio.sleep(0)
    shut = asyncio.ensure_future(world.admission.shut(GRACE_S))
    await asyncio.sleep(0.5)
    await refused(world.call(0))
    await refused(world.stub.Watch(health_pb2.HealthCheckRequest()).read())
    assert not shut.done()
    await shut
    assert (await old).status == SERVING


async def test_the_grace_can_be_cut_short(world: World) -> None:
    """Whoever hastens ends it for all calls."""
    calls, loop = [world.call(60), world.call(70)], asyncio.get_running_loop()
    await asyncio.sleep(0)
    before = loop.time()
    loop.call_later(1, world.admission.hasten)
    await world.admission.shut(3600)
    assert loop.time() - before < 1.1
    for call in calls:
        await refused(call)


async def test_an_idle_server_shuts_at_once(world: World) -> None:
    """Nothing is waited for, however long the grace, and a second time neither."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    await world.admission.shut(3600)
    await world.admission.shut(3600)
    assert loop.time() == before


async def test_a_caller_that_left_is_not_waited_for(world: World) -> None:
    """A call that was cancelled by its caller ends as that, before and during the grace."""
    call = world.call(60)
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await call
    loop = asyncio.get_running_loop()
    before = loop.time()
    await world.admission.shut(GRACE_S)
    assert loop.time() - before < 0.1
