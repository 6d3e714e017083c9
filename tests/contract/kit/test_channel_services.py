"""What every service has beside its own calls, over every channel: traces, health, reflection, `Layer`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from tests.contract.kit.wire_calls import failure, text

from lamina_kit.telemetry import trace

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
