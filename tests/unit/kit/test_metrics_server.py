"""The metrics endpoint: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lamina_kit.errors import FailedPrecondition, Unimplemented
from lamina_kit.operations import metrics_server
from lamina_kit.operations.metrics_server import MAX_CONNECTIONS, MetricsServer
from lamina_kit.telemetry.metrics import Family, gauge

real_time = pytest.mark.real_time("sockets")
HOST = "Host: h\r\n"


class Served:
    """An endpoint under test; `missing` is what its health says."""

    def __init__(self) -> None:
        self.missing = ""
        self.fail = False
        self.server = MetricsServer(self.families, lambda: self.missing)

    def families(self) -> list[Family]:
        """Returns one family, or fails."""
        if self.fail:
            raise RuntimeError("broken")
        return [gauge("lamina_level", "Level.", 3)]

    async def ask(self, request: str) -> tuple[str, dict[str, str], str]:
        """Sends a request. Returns status line, headers and body of the answer."""
        reader, writer = await self.connect()
        writer.write(request.encode("latin-1"))
        writer.write_eof()
        raw = (await reader.read()).decode()
        writer.close()
        head, _, body = raw.partition("\r\n\r\n")
        line, *headers = head.split("\r\n")
        return line, {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}, body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects."""
        host, _, port = self.server.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """An endpoint on a free port."""
    found = Served()
    await found.server.start("127.0.0.1", 0)
    yield found
    await found.server.stop()


@real_time
async def test_metrics_are_served_in_the_format_that_prometheus_reads(served: Served) -> None:
    """Status, type, length and text are right; a query is ignored; the connection ends with the answer."""
    for path in ("/metrics", "/metrics?name[]=x"):
        line, headers, body = await served.ask(f"GET {path} HTTP/1.1\r\n{HOST}\r\n")
        assert line == "HTTP/1.1 200 OK"
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert int(headers["content-length"]) == len(body)
        assert headers["connection"] == "close"
        assert body == "# HELP lamina_level Level.\n# TYPE lamina_level gauge\nlamina_level 3\n"


@real_time
async def test_head_is_get_without_the_body(served: Served) -> None:
    """The headers are those of the page."""
    line, headers, body = await served.ask(f"HEAD /metrics HTTP/1.1\r\n{HOST}\r\n")
    assert (line, body) == ("HTTP/1.1 200 OK", "")
    assert int(headers["content-length"]) > 0


@real_time
async def test_health_says_who_does_not_serve(served: Served) -> None:
    """200 while everything serves, else 503 with the name."""
    assert (await served.ask(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n"))[2] == "ok\n"
    served.missing = "mmu"
    line, _, body = await served.ask(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n")
    assert (line, body) == ("HTTP/1.1 503 Service Unavailable", "not serving: mmu\n")


@real_time
@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (f"GET / HTTP/1.1\r\n{HOST}\r\n", 404),
        (f"GET /metrics/ HTTP/1.1\r\n{HOST}\r\n", 404),
        (f"POST /metrics HTTP/1.1\r\n{HOST}\r\n", 405),
        ("GET /metrics HTTP/1.1\r\n\r\n", 400),
        ("GET /metrics\r\n\r\n", 400),
        ("get metrics HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (f"GET /metrics HTTP/1.1\r\n{HOST}{HOST}\r\n", 400),
        (f"GET /metrics HTTP/1.1\r\n{HOST}Broken\r\n\r\n", 400),
        (f"GET /metrics HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n", 400),
        (f"GET /metrics HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc", 400),
        (f"GET /metrics HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /metrics HT", 400),
        (f"GET /metrics HTTP/2.0\r\n{HOST}\r\n", 505),
        (f"GET /metrics HTTP/1.1\r\n{HOST}X: {'a' * metrics_server.MAX_HEAD}\r\n\r\n", 431),
        ("GET /metrics HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_what_is_no_request_for_a_page_is_refused(served: Served, request_text: str, status: int) -> None:
    """Each wrong request has its status, and the endpoint goes on."""
    line, headers, _ = await served.ask(request_text)
    assert line.split()[1] == str(status)
    assert ("allow" in headers) == (status == 405)
    assert (await served.ask(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n"))[0] == "HTTP/1.1 200 OK"


@real_time
async def test_a_defect_is_an_error_of_the_server_and_tells_nothing_else(served: Served) -> None:
    """The page fails, its reason is in the log, and the endpoint goes on."""
    served.fail = True
    line, _, body = await served.ask(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n")
    assert line.startswith("HTTP/1.1 500")
    assert "broken" not in body
    served.fail = False
    assert (await served.ask(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n"))[0] == "HTTP/1.1 200 OK"


@real_time
async def test_a_client_that_says_nothing_is_left(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection of a silent client ends without an answer."""
    monkeypatch.setattr(metrics_server, "PATIENCE_S", 0.05)
    reader, writer = await served.connect()
    writer.write(b"GET /met")
    assert await reader.read() == b""
    writer.close()


@real_time
async def test_a_client_that_does_not_read_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """What it has not taken in time is dropped with the connection; it is not kept for as long as it likes."""
    monkeypatch.setattr(metrics_server, "PATIENCE_S", 0.5)
    monkeypatch.setattr(metrics_server, "render", lambda families: "x" * (32 << 20))
    writers: list[asyncio.StreamWriter] = []
    respond = served.server._connected

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await respond(reader, writer)

    monkeypatch.setattr(served.server, "_connected", connected)
    await served.server.stop()
    await served.server.start("127.0.0.1", 0)
    host, _, port = served.server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n".encode())
        await eventually(lambda: writers and writers[0].transport.get_write_buffer_size(), "the answer is on its way")
        await eventually(lambda: not writers[0].transport.get_write_buffer_size(), "what it did not take is dropped")
        assert writers[0].transport.is_closing()


@real_time
async def test_clients_beyond_the_limit_are_told_so(served: Served) -> None:
    """Silent connections take no more than their share; the next client hears 503."""
    held = [await served.connect() for _ in range(MAX_CONNECTIONS)]
    line, _, _ = await served.ask(f"GET /metrics HTTP/1.1\r\n{HOST}\r\n")
    assert line == "HTTP/1.1 503 Service Unavailable"
    for _, writer in held:
        writer.close()


@real_time
async def test_a_port_in_use_is_named(served: Served) -> None:
    """A second endpoint on the same port says which port it is and what to do."""
    port = int(served.server.address.rpartition(":")[2])
    with pytest.raises(FailedPrecondition) as caught:
        await Served().server.start("127.0.0.1", port)
    assert caught.value.reason == "PORT_IN_USE"
    assert str(port) in caught.value.message
    assert "--metrics" in caught.value.next_step


@real_time
async def test_an_address_that_is_not_ours_is_refused() -> None:
    """An address of no interface cannot be listened on."""
    with pytest.raises(FailedPrecondition) as caught:
        await Served().server.start("192.0.2.1", 0)
    assert caught.value.reason == "ADDRESS_UNUSABLE"


@real_time
async def test_stopping_frees_the_port_and_ends_connections(served: Served) -> None:
    """After a stop, which may come twice, the port is free and open connections are gone."""
    port = int(served.server.address.rpartition(":")[2])
    reader, writer = await served.connect()
    await served.server.stop()
    await served.server.stop()
    assert await reader.read() == b""
    writer.close()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


async def test_no_endpoint_is_opened_in_virtual_time() -> None:
    """On a virtual loop the endpoint is refused with the reason: its sockets live on a real loop beside."""
    with pytest.raises(Unimplemented) as caught:
        await Served().server.start("127.0.0.1", 0)
    assert caught.value.reason == "VIRTUAL_LOOP_WITHOUT_OUTSIDE"
