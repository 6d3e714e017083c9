"""gRPC in one process: generated code, unchanged, without sockets.

    server = LocalServer()
    add_SpacesServicer_to_server(servicer, server)
    stub = SpacesStub(LocalChannel(server))

Both ends behave as those of `grpc.aio` do, and one suite (`tests/contract/kit`) runs over both. Messages are serialized
both ways, so nothing is aliased; each call runs in a task of its own with a context of its own, so nothing of the
caller but its metadata reaches the handler, and a deadline or a cancellation does. Time is the running loop's, whatever
loop that is; there are no threads. In real time a handler's first step runs where its call is awaited (`inline.py`).
The pieces: `call.py` (state, handler's end), `client.py` (caller's end), `dispatch.py` (between them), `pipe.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc

from lamina_kit.errors import Unimplemented
from lamina_kit.rpc.inproc.call import MAX_MESSAGE, LocalContext, Pairs, pairs, too_large
from lamina_kit.rpc.inproc.client import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from lamina_kit.rpc.inproc.dispatch import handle, until_done
from lamina_kit.rpc.inproc.inline import Turn
from lamina_kit.rpc.inproc.pipe import Pipe
from lamina_kit.rpc.inproc.route import Route
from lamina_kit.telemetry import trace

Wrap = Callable[[str, Any], Any]
"""Takes a method (`/pkg.Service/Method`) and its handler; returns the handler to use in its place."""

Latency = Callable[[], int]
"""Returns how long the next call takes to its handler, in nanoseconds, not below 0."""

DEFAULT_TIMEOUT_S = 30.0
"""Deadline of a unary call whose caller gives none."""

CLEANUP_S = 5.0
"""How long a cancelled handler may clean up before `stop` goes on without it."""

_LOG = logging.getLogger(__name__)


class LocalServer(grpc.aio.Server):
    """Handlers of one service, called by `LocalChannel`s of the same event loop.

    `wrap` is applied to every handler, as interceptors are on a socket server (`interceptor.py`).
    """

    def __init__(self, wrap: Wrap | None = None) -> None:
        self._wrap = wrap
        self._handlers: dict[str, Any] = {}
        self._generic: list[Any] = []
        self._context = contextvars.copy_context()
        self._active: dict[LocalContext, None] = {}
        self._terminated = asyncio.Event()
        self.stopped = False

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Registers the methods of a generated servicer; of two handlers of one method the last stands, as in gRPC."""
        for method, handler in method_handlers.items():
            self._add(f"/{service_name}/{method}", handler)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Registers handlers that are asked method by method."""
        self._generic.extend(generic_rpc_handlers)

    def handler(self, method: str) -> Any | None:
        """Returns the handler of `/pkg.Service/Method`, or None."""
        found = self._handlers.get(method)
        if found is None:
            details = SimpleNamespace(method=method, invocation_metadata=())
            for generic in self._generic:
                if (handler := generic.service(details)) is not None:
                    return self._add(method, handler)
        return found

    def _add(self, method: str, handler: Any) -> Any:
        self._handlers[method] = self._wrap(method, handler) if self._wrap else handler
        return self._handlers[method]

    def route(self, method: str) -> Route:
        """Returns the method taken apart; one that this server does not have has no kind."""
        return Route(method, self.handler(method))

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, rpc: LocalContext, route: Route, request: bytes | None) -> None:
        """Starts a call's handler in its own task; a request is given when the method takes one."""
        self._active[rpc] = None
        rpc.active = self._active
        rpc.task = rpc.loop.create_task(handle(rpc, route, request), context=self._context.copy())

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Takes calls again after `stop`; a new server takes them at once."""
        self.stopped = False
        self._terminated.clear()

    async def stop(self, grace: float | None) -> None:
        """Refuses new calls, waits up to `grace` seconds for those that run, and cancels the rest."""
        self.stopped = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (grace or 0.0)
        for rpc in list(self._active):
            if rpc.task is not None and deadline > loop.time():
                await until_done(rpc.task, deadline - loop.time())
        for rpc in list(self._active):
            rpc.give_up(grpc.StatusCode.UNAVAILABLE, "The in-process server has stopped.")
            if rpc.started and rpc.task is not None:
                await until_done(rpc.task, CLEANUP_S)
        for rpc in self._active:
            _LOG.error("the handler of %s does not end though it was cancelled", rpc.method)
        self._terminated.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 (grpc.aio has it)
        """Returns False once the server has stopped, True when `timeout` seconds passed before, as grpc.aio does."""
        try:
            async with asyncio.timeout(timeout):
                await self._terminated.wait()
        except TimeoutError:
            return True
        return False

    def add_insecure_port(self, address: str) -> NoReturn:
        """Refuses: this server has no ports."""
        raise Unimplemented(
            f"An in-process server cannot listen on {address}.",
            reason="LOCAL_WITHOUT_PORTS",
            next_step="Use lamina_kit.layer.service.serve.",
        )

    def add_secure_port(self, address: str, server_credentials: Any) -> NoReturn:
        """Refuses: this server has no ports."""
        self.add_insecure_port(address)


class LocalChannel(grpc.aio.Channel):
    """A channel to a `LocalServer`: give it to a generated stub.

    A unary call without `timeout=` gets the default deadline. The current trace travels in `traceparent`. `latency`
    gives the nanoseconds that a call takes to reach its handler (`virtual/latency.py`); without it, it begins at once.
    """

    def __init__(
        self,
        server: LocalServer,
        default_timeout_s: float | None = DEFAULT_TIMEOUT_S,
        *,
        latency: Latency | None = None,
    ) -> None:
        self._server = server
        self._latency = latency
        self._default_timeout = default_timeout_s
        self._closed = False
        self._routes: dict[str, Route] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: Turn | None = None

    @property
    def server(self) -> LocalServer:
        """The server at the other end, for whoever composes both: stopping it is what a process's death looks like."""
        return self._server

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for one request and one response."""
        serialize, deserialize = request_serializer or bytes, response_deserializer or bytes

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            credentials: Any = None,
            wait_for_ready: Any = None,
            compression: Any = None,
        ) -> UnaryUnaryCall:
            if timeout is None:
                timeout = self._default_timeout
            return UnaryUnaryCall(self._open(method, metadata, timeout, serialize(request), _UNARY_UNARY), deserialize)

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for one request and a stream of responses."""
        serialize, deserialize = request_serializer or bytes, response_deserializer or bytes

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            credentials: Any = None,
            wait_for_ready: Any = None,
            compression: Any = None,
        ) -> UnaryStreamCall:
            return UnaryStreamCall(
                self._open(method, metadata, timeout, serialize(request), _UNARY_STREAM), deserialize
            )

        return call

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for a stream of requests and one response."""
        serialize, deserialize = request_serializer or bytes, response_deserializer or bytes

        def call(
            request_iterator: Any = None,
            timeout: float | None = None,
            metadata: Any = None,
            credentials: Any = None,
            wait_for_ready: Any = None,
            compression: Any = None,
        ) -> StreamUnaryCall:
            opened = StreamUnaryCall(self._open(method, metadata, timeout, None, _STREAM_UNARY), deserialize)
            opened.send(serialize, request_iterator)
            return opened

        return call

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for streams both ways."""
        serialize, deserialize = request_serializer or bytes, response_deserializer or bytes

        def call(
            request_iterator: Any = None,
            timeout: float | None = None,
            metadata: Any = None,
            credentials: Any = None,
            wait_for_ready: Any = None,
            compression: Any = None,
        ) -> StreamStreamCall:
            opened = StreamStreamCall(self._open(method, metadata, timeout, None, _STREAM_STREAM), deserialize)
            opened.send(serialize, request_iterator)
            return opened

        return call

    def _open(
        self, method: str, metadata: Any, timeout: float | None, raw: bytes | None, kind: tuple[bool, bool]
    ) -> LocalContext:
        """Begins a call of a kind (streams in, streams out); one that cannot begin ends at once with its status."""
        loop = asyncio.get_running_loop()
        route = self._routes.get(method) or self._find(method)
        rpc = LocalContext(route, self._outgoing(metadata), loop, timeout)
        if self._loop is not loop:
            self._loop, self._turn = loop, Turn.of(loop) if self._latency is None else None
        if kind != _UNARY_UNARY or self._turn is None:
            rpc.limit()
        else:
            rpc.turn = self._turn  # most of these calls end in the step that awaits them, and need no timer
        streams_in, streams_out = kind
        if streams_in:
            rpc.requests = Pipe(loop)
        if streams_out:
            rpc.responses = Pipe(loop)
        if self._closed or self._server.stopped or route.kind != kind:
            rpc.conclude(*self._refusal(route))
        elif timeout is not None and timeout <= 0:
            rpc.give_up(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif raw is not None and len(raw) > MAX_MESSAGE:
            rpc.conclude(grpc.StatusCode.RESOURCE_EXHAUSTED, too_large(len(raw)))
        elif self._latency is None:
            self._server.begin(rpc, route, raw)
        else:
            loop.call_later(self._latency() / 1e9, self._arrive, rpc, route, raw)
        return rpc

    def _arrive(self, rpc: LocalContext, route: Route, raw: bytes | None) -> None:
        """Begins a call that was on its way; its caller may have given up, and the server may have stopped."""
        if rpc.concluded:
            return
        if self._server.stopped:
            rpc.conclude(*self._refusal(route))
        else:
            self._server.begin(rpc, route, raw)

    def _find(self, method: str) -> Route:
        route = self._server.route(method)
        if route.kind is not None:
            self._routes[method] = route
        return route

    def _refusal(self, route: Route) -> tuple[grpc.StatusCode, str]:
        """Returns the status of a call that cannot begin."""
        if self._closed:
            return grpc.StatusCode.CANCELLED, "Channel closed!"
        if self._server.stopped:
            return grpc.StatusCode.UNAVAILABLE, "The in-process server has stopped."
        if route.kind is None:
            return grpc.StatusCode.UNIMPLEMENTED, "Method not found!"
        return grpc.StatusCode.UNIMPLEMENTED, "The method has another kind of call."

    def _outgoing(self, metadata: Any) -> Pairs:
        given = pairs(metadata) if metadata else ()
        context = trace.current()
        if context is None or (given and any(key == trace.HEADER for key, _ in given)):
            return given
        return (*given, (trace.HEADER, context.header))

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Refuses further calls on this channel; those that run go on, and end with their call objects."""
        self._closed = True

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns READY, or SHUTDOWN once closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns at once when the state is another one; otherwise waits for ever: nothing changes by itself."""
        if self.get_state() is last_observed_state:
            await asyncio.get_running_loop().create_future()

    async def channel_ready(self) -> None:
        """Returns at once."""


_UNARY_UNARY, _UNARY_STREAM, _STREAM_UNARY, _STREAM_STREAM = (False, False), (False, True), (True, False), (True, True)
