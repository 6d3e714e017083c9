"""The endpoint that Prometheus asks: `GET /metrics` and `GET /healthz` over HTTP/1.1, on asyncio.

It answers one small request a connection, and nothing else: no body, no other method, no other path. It runs on a real
loop; a stack in virtual time is asked from outside, beside its loop, which leaves its history alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import Callable, Iterable

from lamina_kit.errors import FailedPrecondition
from lamina_kit.operations.metrics_text import CONTENT_TYPE, render
from lamina_kit.telemetry import log
from lamina_kit.telemetry.metrics import Family

MAX_HEAD = 8 << 10
"""Bytes of a request's line and headers."""
MAX_CONNECTIONS = 16
MAX_LINGER = 64 << 10
LINGER_S = 0.5
PATIENCE_S = 5.0
"""How long a client may take to send its request, and to take the answer."""
PLAIN = "text/plain; charset=utf-8"
REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip

_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*) HTTP/([0-9])\.([0-9])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class MetricsServer:
    """Serves what `families` returns; `missing` names what does not serve, empty when all is well."""

    def __init__(self, families: Callable[[], Iterable[Family]], missing: Callable[[], str]) -> None:
        self._families = families
        self._missing = missing
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._log = log.logger("metrics")
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listens; `address` is then HOST:PORT with the real port.

        Raises:
            FailedPrecondition: `PORT_IN_USE` or `ADDRESS_UNUSABLE`.
        """
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            raise FailedPrecondition(
                f"Metrics cannot be served on {host}:{port}: "
                + (f"port {port} is in use." if used else f"{error.strerror or error}."),
                reason="PORT_IN_USE" if used else "ADDRESS_UNUSABLE",
                next_step="Stop what uses it, or choose another address: --metrics HOST:PORT, or metrics_listen.",
                port=port,
            ) from error
        own = self._server.sockets[0].getsockname()
        self.address = f"[{own[0]}]:{own[1]}" if ":" in own[0] else f"{own[0]}:{own[1]}"

    async def stop(self) -> None:
        """Ends it with its connections. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._connections)
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer, whole = await self._answer(reader, full=len(self._connections) > MAX_CONNECTIONS)
                writer.write(answer)
                await writer.drain()
                if not whole:
                    await _linger(reader, writer)
                writer.close()
                await writer.wait_closed()
        except OSError as error:  # TimeoutError is one
            self._log.debug("metrics.client_left", error=type(error).__name__)
        finally:
            self._connections.pop(task, None)
            writer.transport.abort()  # what a client that does not read has not taken would be kept for ever

    async def _answer(self, reader: asyncio.StreamReader, *, full: bool) -> tuple[bytes, bool]:
        """Reads one request. Returns the whole response, and whether nothing of the request is left unread."""
        method, whole = "GET", True
        try:
            if full:
                raise _Refused(503, f"{MAX_CONNECTIONS} clients are being served.")
            method, path = await _request(reader)
            if method not in ("GET", "HEAD"):
                raise _Refused(405, f"{method} is not offered here; GET and HEAD are.")
            status, kind, body = self._page(path)
        except _Refused as refused:
            status, kind, body, whole = refused.status, PLAIN, f"{refused}\n", False
        return _response(status, kind, body.encode(), with_body=method != "HEAD"), whole

    def _page(self, path: str) -> tuple[int, str, str]:
        if path == "/metrics":
            try:
                return 200, CONTENT_TYPE, render(self._families())
            except Exception as error:
                self._log.error("metrics.failed", exc_info=error)
                raise _Refused(500, "The metrics cannot be shown; the log says why.") from error
        if path == "/healthz":
            missing = self._missing()
            return (503, PLAIN, f"not serving: {missing}\n") if missing else (200, PLAIN, "ok\n")
        raise _Refused(404, "There are /metrics and /healthz here.")


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what a refused client still sends, for a moment: closing on it would take the answer from the client."""
    if writer.can_write_eof():
        writer.write_eof()
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while taken < MAX_LINGER and (data := await reader.read(MAX_HEAD)):
                taken += len(data)


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Returns method and path of a request. Source: RFC 9112, sections 2 to 6."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _Refused(431, f"The request's head has more than {MAX_HEAD} bytes.") from error
    except asyncio.IncompleteReadError as error:
        raise _Refused(400, "The request is cut.") from error
    line, *headers = head[:-4].decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _Refused(400, "The first line is no HTTP request.")
    method, target, major, minor = found.groups()
    if major != "1":
        raise _Refused(505, "This is HTTP/1.1.")
    values: dict[str, str] = {}
    for header in headers:
        pair = _HEADER.fullmatch(header)
        if pair is None:
            raise _Refused(400, "A header is malformed.")
        name = pair[1].lower()
        if name in values and name in ("host", "content-length"):
            raise _Refused(400, f"The header {name} comes twice.")
        values[name] = pair[2].strip()
    if minor != "0" and "host" not in values:
        raise _Refused(400, "The header host is missing.")
    if "transfer-encoding" in values or values.get("content-length", "0") != "0":
        raise _Refused(400, "A request has no body here.")
    return method, target.partition("?")[0]


def _response(status: int, kind: str, body: bytes, *, with_body: bool) -> bytes:
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    head += "Allow: GET, HEAD\r\n" if status == 405 else ""
    head += "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    return head.encode("latin-1") + (body if with_body else b"")
