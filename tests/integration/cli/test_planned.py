"""Calls that are in the contracts and wait for their engine, on both wires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from lamina_cli.client.home import LAYERS
from lamina_cli.stack.embedded import Stack, private_stack
from lamina_kit.rpc import planned
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """Returns a private stack."""
    async with private_stack() as made:
        yield made


def contract(layer: str) -> list[Any]:
    """Returns the planned RPCs of a layer."""
    adapters = ("lamina.cri.v1",) if layer == "container-runtime" else ()
    services = planned.services([f"lamina.{layer.replace('-', '_')}.v1", *adapters])
    return [method for service in services for method in service.methods if planned.waits_for(method)]


async def refusal(channel: Any, method: Any) -> Any:
    """Calls an RPC with an empty request and returns the error."""
    kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    request = GetMessageClass(method.input_type)
    call = getattr(channel, "_".join(kind))(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(iter([request()]) if method.client_streaming else request())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if method.server_streaming:
            await call.read()
        else:
            await call
    return rpc_error(caught.value)


async def test_every_planned_call_says_what_it_waits_for(stack: Stack) -> None:
    """Each answers UNIMPLEMENTED with its reason and its systems, in process; a layer with all served has none."""
    assert sum(bool(contract(layer)) for layer in LAYERS) > 1
    for layer in LAYERS:
        for method in contract(layer):
            error = await refusal(stack.channels[layer], method)
            assert (error.code, error.reason) == ("UNIMPLEMENTED", planned.REASON), (method.full_name, str(error))
            assert error.metadata["systems"] == planned.waits_for(method)


async def test_a_planned_call_says_so_over_a_socket(stack: Stack) -> None:
    """A call of each kind answers over a socket as it does in process, and reflection lists its service."""
    targets = await stack.serve(dict.fromkeys(LAYERS, "127.0.0.1:0"))
    seen = set()
    for layer, target in targets.items():
        async with connect(target) as channel:
            for method in contract(layer):
                kind = (method.client_streaming, method.server_streaming)
                if (layer, kind) not in seen:
                    seen.add((layer, kind))
                    assert (await refusal(channel, method)).reason == planned.REASON, method.full_name
    assert len({kind for _, kind in seen}) > 2
