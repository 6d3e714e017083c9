"""Channels to services on sockets.

`connect("unix:/path")` or `connect("127.0.0.1:50052")` returns what generated stubs take; beyond the host it takes a
certificate (`security/transport.py`). Its calls are those of `grpc.aio` itself, with what Lamina adds: the current
trace in `traceparent`, a deadline on every unary call, 8 MiB messages, and a quick second attempt to connect when a
service restarts.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lamina_kit.errors import InvalidArgument
from lamina_kit.rpc.inproc.call import MAX_MESSAGE, pairs
from lamina_kit.rpc.inproc.local import DEFAULT_TIMEOUT_S
from lamina_kit.rpc.renewed_channel import RenewedChannel
from lamina_kit.security.credentials import of_channel
from lamina_kit.security.transport import PLAIN, Security, bare
from lamina_kit.telemetry import trace

Channel: TypeAlias = grpc.aio.Channel
"""What a stub is built on: a `LocalChannel` or one of `connect`."""

MAX_UNIX_PATH = 107
"""Longest path of a UNIX socket in bytes. Source: unix(7), sun_path."""

OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 32 << 10),
    ("grpc.enable_http_proxy", 0),
)
_CLIENT_OPTIONS = (
    *OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

_TLS_OPTIONS = tuple((key, value) for key, value in _CLIENT_OPTIONS if key != "grpc.min_reconnect_backoff_ms")
"""gRPC gives a connection the least pause between two attempts to stand: a handshake on a busy machine takes longer."""


def check_target(target: str) -> None:
    """Raises `InvalidArgument` unless `target` is `unix:/path` of at most 107 bytes, `host:port` or `tls:host:port`."""
    if target.startswith("unix:"):
        path = target.removeprefix("unix://").removeprefix("unix:")
        if len(path.encode()) > MAX_UNIX_PATH:
            raise InvalidArgument(
                f"The UNIX socket path {path} has {len(path.encode())} bytes; the system takes {MAX_UNIX_PATH}.",
                reason="SOCKET_PATH_TOO_LONG",
                next_step="Choose a shorter state directory.",
            )
        if path.startswith("/"):
            return
    else:
        host, _, port = bare(target).rpartition(":")
        if host and port.isascii() and port.isdigit() and int(port) <= 65535:
            return
    raise InvalidArgument(
        f"{target!r} is not an address.",
        reason="ADDRESS_INVALID",
        next_step="Give unix:/absolute/path or HOST:PORT, for example 127.0.0.1:50051.",
    )


def connect(target: str, *, default_timeout_s: float | None = DEFAULT_TIMEOUT_S, security: Security = PLAIN) -> Channel:
    """Returns a channel to a service on a socket; nothing is connected until the first call.

    To be called within the event loop that will use it; close it with `await channel.close()`.
    Raises `InvalidArgument` for what is no address, `FailedPrecondition` `TLS_REQUIRED` for one beyond the host without
    a certificate, and as `certificates.read` for one that cannot be used.
    """
    check_target(target)
    if not security.encrypts(target):
        return SocketChannel(grpc.aio.insecure_channel(target, options=_CLIENT_OPTIONS), default_timeout_s)
    files = security.tls
    assert files is not None

    def opened() -> grpc.aio.Channel:
        return grpc.aio.secure_channel(bare(target), of_channel(files), options=_TLS_OPTIONS)

    return SocketChannel(RenewedChannel(opened, files, target), default_timeout_s)


class SocketChannel(grpc.aio.Channel):
    """A `grpc.aio` channel whose calls carry the current trace, and a deadline where one is missing."""

    def __init__(self, inner: grpc.aio.Channel, default_timeout_s: float | None) -> None:
        self._inner: Any = inner
        self._default_timeout = default_timeout_s

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for one request and one response."""
        invoke = self._inner.unary_unary(method, request_serializer, response_deserializer, _registered_method)

        def call(request: Any, *, timeout: float | None = None, metadata: Any = None, **rest: Any) -> Any:
            if timeout is None:
                timeout = self._default_timeout
            return invoke(request, timeout=timeout, metadata=_traced(metadata), **rest)

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for one request and a stream of responses."""
        invoke = self._inner.unary_stream(method, request_serializer, response_deserializer, _registered_method)

        def call(request: Any, *, metadata: Any = None, **rest: Any) -> Any:
            return invoke(request, metadata=_traced(metadata), **rest)

        return call

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for a stream of requests and one response."""
        return _streaming(
            self._inner.stream_unary(method, request_serializer, response_deserializer, _registered_method)
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: Any = False,
    ) -> Any:
        """Returns what a stub calls for streams both ways."""
        return _streaming(
            self._inner.stream_stream(method, request_serializer, response_deserializer, _registered_method)
        )

    async def __aenter__(self) -> SocketChannel:
        return self

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        await self._inner.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the connection; calls in flight have `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the connection."""
        state: grpc.ChannelConnectivity = self._inner.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state of the connection is another one."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns once the connection stands."""
        await self._inner.channel_ready()


def _streaming(invoke: Any) -> Any:
    def call(request_iterator: Any = None, timeout: float | None = None, metadata: Any = None, **rest: Any) -> Any:
        return invoke(request_iterator, timeout=timeout, metadata=_traced(metadata), **rest)

    return call


def _traced(metadata: Any) -> Any:
    """Returns the metadata with the current trace, unless they name one; malformed ones are a `ValueError`."""
    given = pairs(metadata)
    context = trace.current()
    if context is None or any(key == trace.HEADER for key, _ in given):
        return given
    return (*given, (trace.HEADER, context.header))
