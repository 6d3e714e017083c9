"""Lets the calls of a socket server run, and ends them in order when it stops.

    gate = Gate("mmu"); server = grpc.aio.server(interceptors=[gate, …])     # the outermost
    await gate.shut(grace_s)                # UNAVAILABLE SHUTTING_DOWN from here on; returns when no call runs
    await server.stop(None)

Health checks pass while it shuts: whoever asks is to hear NOT_SERVING. A watch of health ends like every stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health

from lamina_kit.errors import LaminaError
from lamina_kit.rpc import status
from lamina_kit.rpc.inflight import InFlight, shutting_down
from lamina_kit.rpc.interceptor import as_coroutine, as_writer

ALWAYS = (f"/{health.SERVICE_NAME}/Check",)


class Gate(grpc.aio.ServerInterceptor):
    """The gate of one server. `layer` is named to callers that are sent away."""

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._calls = InFlight()
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def shut(self, grace_s: float) -> None:
        """Refuses new calls, waits up to `grace_s` for those with one response, ends the rest. Idempotent."""
        await self._calls.drain(self._refusal, grace_s)
        await self._calls.close(self._refusal)

    def hasten(self) -> None:
        """Ends the wait of `shut`."""
        self._calls.hasten()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Returns the handler of a method behind the gate, for a `grpc.aio` server."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method in ALWAYS:
            return handler
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, self.wrap(method, handler))
            self._wrapped[method] = known
        return known[1]

    def wrap(self, method: str, handler: Any) -> Any:
        """Returns the handler of a method behind the gate, for a `LocalServer`."""
        streams = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if stream else "unary" for stream in streams)
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        behaviour: Any = getattr(handler, kind)
        lasting: bool = handler.response_streaming
        if not inspect.iscoroutinefunction(behaviour):
            behaviour = as_writer(behaviour) if lasting else as_coroutine(behaviour)

        async def answer(argument: Any, context: Any) -> Any:
            try:
                with self._calls.held(lasting):
                    return await behaviour(argument, context)
            except LaminaError as error:
                await status.abort(context, error)

        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _refusal(self) -> LaminaError:
        return shutting_down(self._layer)
