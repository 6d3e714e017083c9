"""What a layer says of the layers below that it calls: whether it reaches them."""

from __future__ import annotations

from typing import Any

from lamina_cli.layers import CALLS


async def without(checker: Any, layer: str, timeout_s: float) -> list[str]:
    """Returns the layers below that a layer calls and does not reach, as its health service `checker` says.

    Raises `grpc.aio.AioRpcError` when the layer itself does not answer within `timeout_s` seconds.
    """
    import grpc
    from grpc_health.v1 import health_pb2

    from lamina_kit.layer.service import BELOW

    found = []
    for below in CALLS[layer]:
        try:
            health = await checker.Check(health_pb2.HealthCheckRequest(service=BELOW + below), timeout=timeout_s)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.NOT_FOUND:  # a program that serves the contract without telling this
                continue
            raise
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            found.append(below)
    return found
