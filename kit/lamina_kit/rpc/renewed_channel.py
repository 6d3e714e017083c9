"""A channel whose certificate is renewed under it.

gRPC reads a client's certificate once, when the channel is made. A process lives longer than a certificate, and so do
the stubs that layers made of their channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from lamina_kit.errors import LaminaError
from lamina_kit.security.transport import TlsFiles
from lamina_kit.telemetry import log


class RenewedChannel(grpc.aio.Channel):
    """A channel that is opened anew when the files have changed; calls under way end on the one they began on.

    `open` opens one with the present certificate, `target` is for the log.
    """

    def __init__(self, open: Callable[[], Any], files: TlsFiles, target: str) -> None:
        self._open = open
        self._files = files
        self._target = target
        self._stamp = files.stamp()
        self._inner: Any = open()
        self._old: list[Any] = []
        self._log = log.logger("tls")

    def _now(self) -> Any:
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                fresh = self._open()
            except LaminaError as error:
                self._log.error("certificate.not_taken", reason=error.reason, target=self._target)
            else:
                self._old.append(self._inner)
                self._inner = fresh
                self._log.info("certificate.renewed", file=str(self._files.cert), target=self._target)
        return self._inner

    def _method(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        made: tuple[Any, Any] = (None, None)

        def invoke(*given: Any, **named: Any) -> Any:
            nonlocal made
            inner = self._now()
            if made[0] is not inner:
                made = (inner, getattr(inner, kind)(*arguments))
            return made[1](*given, **named)

        return invoke

    def unary_unary(self, *arguments: Any) -> Any:
        """Returns what a stub calls for one request and one response."""
        return self._method("unary_unary", arguments)

    def unary_stream(self, *arguments: Any) -> Any:
        """Returns what a stub calls for one request and a stream of responses."""
        return self._method("unary_stream", arguments)

    def stream_unary(self, *arguments: Any) -> Any:
        """Returns what a stub calls for a stream of requests and one response."""
        return self._method("stream_unary", arguments)

    def stream_stream(self, *arguments: Any) -> Any:
        """Returns what a stub calls for streams both ways."""
        return self._method("stream_stream", arguments)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the connections; calls in flight have `grace` seconds."""
        for channel in (*self._old, self._inner):
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the newest connection."""
        state: grpc.ChannelConnectivity = self._now().get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state of the newest connection is another one."""
        await self._now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns once the newest connection stands."""
        await self._now().channel_ready()
