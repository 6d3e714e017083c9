"""Calls are counted by method and code, with durations on the layer's clock, on whatever way they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from tests.virtual_time import clock_of_loop

from lamina_kit.errors import NotFound
from lamina_kit.layer.service import local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.rpc.inproc.local import LocalChannel
from lamina_kit.telemetry.metrics import Family

METHODS = {"Wait": False, "Refuse": False, "Abort": False, "Crash": False, "Watch": True}


class Probe:
    """A service whose calls end in all ways."""

    layer = "probe"
    service_names = ("t.Probe",)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the methods."""
        handlers = {}
        for name, streams in METHODS.items():
            make: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
            handlers[name] = make(getattr(self, name), StringValue.FromString, StringValue.SerializeToString)
        server.add_registered_method_handlers("t.Probe", handlers)

    async def Wait(self, request: StringValue, context: Any) -> StringValue:
        """Takes as many milliseconds as the request says."""
        await clock_of_loop().sleep_ns(int(request.value) * 1_000_000)
        return request

    async def Refuse(self, request: StringValue, context: Any) -> StringValue:
        """Refuses."""
        raise NotFound("There is none.", reason="NOTHING")

    async def Abort(self, request: StringValue, context: Any) -> StringValue:
        """Aborts as plain gRPC does."""
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        return request

    async def Crash(self, request: StringValue, context: Any) -> StringValue:
        """Fails by a defect."""
        raise KeyError("defect")

    async def Watch(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        """Streams until the caller leaves."""
        yield request
        await asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Has nothing to open."""

    async def stop(self) -> None:
        """Has nothing to close."""


@pytest.fixture
async def state() -> LayerState:
    """Returns the state of a layer on the clock of the loop."""
    return LayerState("probe", "h1", clock_of_loop(), Rng(3))


async def call(channel: LocalChannel, name: str, text: str = "0", within: float = 5.0) -> Any:
    """Makes one call."""
    stub: Any = channel.unary_unary(
        f"/t.Probe/{name}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return await stub(StringValue(value=text), timeout=within)


def family(state: LayerState, name: str) -> Family:
    """Returns one family of a layer."""
    return next(found for found in state.metrics.families() if found.name == name)


def codes(state: LayerState) -> dict[tuple[str, str], int | float]:
    """Returns the counts of calls by method and code."""
    samples = family(state, "lamina_calls_total").samples
    return {(dict(s.labels)["method"].rpartition("/")[2], dict(s.labels)["code"]): s.value for s in samples}


async def test_calls_are_counted_by_their_end(state: LayerState) -> None:
    """Success, a refusal, an abort, a defect and a caller that leaves each have their code."""
    channel = local(Probe(), state)
    await call(channel, "Wait")
    await call(channel, "Wait")
    for name in ("Refuse", "Abort", "Crash"):
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, name)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(channel, "Wait", "60000", within=0.01)
    await state.clock.sleep_ns(1)
    assert codes(state) == {
        ("Wait", "OK"): 2,
        ("Wait", "CANCELLED"): 1,
        ("Refuse", "NOT_FOUND"): 1,
        ("Abort", "DATA_LOSS"): 1,
        ("Crash", "INTERNAL"): 1,
    }
    assert all(sample.value == 0 for sample in family(state, "lamina_calls_open").samples)


async def test_durations_are_by_the_clock_of_the_layer(state: LayerState) -> None:
    """A call of 20 ms falls between 10 and 30 ms; in virtual time exactly 20 ms are summed."""
    await call(local(Probe(), state), "Wait", "20")
    found = family(state, "lamina_call_duration_seconds")
    (waited,) = found.distributions
    assert waited.count == 1
    assert waited.counts[found.bounds.index(30_000_000)] == 1
    assert waited.sum == 20_000_000
    assert dict(waited.labels) == {"layer": "probe", "host": "h1", "method": "t.Probe/Wait"}


async def test_a_stream_is_open_until_it_ends_and_has_no_duration(state: LayerState) -> None:
    """How long a stream lasts is its caller's affair; that there is one is shown."""
    channel = local(Probe(), state)
    make: Any = channel.unary_stream(
        "/t.Probe/Watch",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    stream = make(StringValue(value="x"))
    assert (await stream.read()).value == "x"
    assert [s.value for s in family(state, "lamina_calls_open").samples] == [1]
    stream.cancel()
    await state.clock.sleep_ns(1)
    assert [s.value for s in family(state, "lamina_calls_open").samples] == [0]
    assert codes(state) == {("Watch", "CANCELLED"): 1}
    assert family(state, "lamina_call_duration_seconds").distributions == ()


async def test_counts_go_on_through_a_host_s_loss_of_power_and_sources_do_not(state: LayerState) -> None:
    """The next start of a layer counts on, shows its own sessions, and asks no service object of the start before."""
    channel = local(Probe(), state)
    await call(channel, "Wait")
    state.metrics.add(lambda: [Family("lamina_old", "gauge", "Of the service object of this start.")])
    following = state.next_start()
    await call(channel, "Wait")
    assert codes(following) == {("Wait", "OK"): 2}
    names = [found.name for found in following.metrics.families()]
    assert "lamina_old" not in names
    assert names.count("lamina_sessions") == 1


async def test_every_layer_tells_sessions_events_and_spans(state: LayerState) -> None:
    """What the kit keeps for a layer is shown without the layer's doing."""
    state.events.record("hosts/h1", "page.evicted")
    held = state.sessions.hold("h1/tester", 1)
    await anext(held)
    values = {
        (found.name, *(value for key, value in sample.labels if key in ("state", "event"))): sample.value
        for found in state.metrics.families()
        for sample in found.samples
    }
    assert values["lamina_events_total", "page.evicted"] == 1
    assert values["lamina_sessions", "open"] == 1
    assert values["lamina_spans_total",] == 0
    await held.aclose()  # type: ignore[attr-defined]
    state.close()
