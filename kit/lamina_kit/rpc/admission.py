"""Lets in the calls of a socket server whose users may call, and ends what runs in order when it stops.

    admission = Admission("mmu", callers); server = grpc.aio.server(interceptors=[admission, …])     # the outermost
    await admission.shut(grace_s)               # UNAVAILABLE SHUTTING_DOWN from here on; returns when no call runs
    await server.stop(None)

Health is everybody's to know: `security/callers.py` is not asked for it. Its checks pass while the server shuts, so
that whoever asks hears NOT_SERVING; a watch of it ends like every stream.
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
from lamina_kit.security.callers import Callers

ALWAYS = (f"/{health.SERVICE_NAME}/Check",)
ANYBODY = (*ALWAYS, f"/{health.SERVICE_NAME}/Watch")


class Admission(grpc.aio.ServerInterceptor):
    """Knows the calls of one server, and ends them. `layer` is named to callers that are sent away.

    Without `callers` anybody may call.
    """

    def __init__(self, layer: str, callers: Callers | None = None) -> None:
        self._layer = layer
        self._callers = callers
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
        """Returns the handler of a method, its calls known here, for a `grpc.aio` server."""
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
        """Returns the handler of a method, its calls known here, for a `LocalServer`."""
        streams = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if stream else "unary" for stream in streams)
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        behaviour: Any = getattr(handler, kind)
        lasting: bool = handler.response_streaming
        callers = None if method in ANYBODY else self._callers
        if not inspect.iscoroutinefunction(behaviour):
            behaviour = as_writer(behaviour) if lasting else as_coroutine(behaviour)

        async def answer(argument: Any, context: Any) -> Any:
            try:
                if callers is not None:
                    callers.check(context)
                with self._calls.held(lasting):
                    return await behaviour(argument, context)
            except LaminaError as error:
                await status.abort(context, error)

        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _refusal(self) -> LaminaError:
        return shutting_down(self._layer)
