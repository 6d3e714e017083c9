"""The `lamina` command with a home of its own, a collector of OTLP, and ways to look at what a stack tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.ports import take

PORTS = 12
"""Six for the layers, six for their metrics."""
SMALL = ("--memory", "256MiB")


class Lamina:
    """The command on a home of its own, with a configuration file and variables that a test chooses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "lamina.toml"
        self.file.write_text("")
        self.port = free_ports()
        self.metrics_port = self.port + 6
        self.variables: dict[str, str] = {}

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs one command, which has to end with the status `expect`. Returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "lamina_cli.main", *words],
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, "LAMINA_HOME": str(self.home), **self.variables},
        )
        assert done.returncode == expect, f"{words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Starts a stack with metrics and the configuration file."""
        address = f"127.0.0.1:{self.metrics_port}"
        return self.run(
            "up", "--port", str(self.port), "--metrics", address, "--config", str(self.file), *SMALL, *words
        )

    def configure(self, text: str) -> None:
        """Writes the configuration file."""
        self.file.write_text(text)

    def get(self, path: str = "/metrics", offset: int = 0) -> str:
        """Returns a page of the metrics endpoint, whatever its status."""
        url = f"http://127.0.0.1:{self.metrics_port + offset}{path}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def values(self, offset: int = 0) -> dict[str, float]:
        """Returns the values of all metrics by name and labels, as they stand on the page."""
        lines = [line for line in self.get(offset=offset).splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def log(self, name: str = "log") -> list[str]:
        """Returns the lines of a log of the stack."""
        return (self.home / "default" / name).read_text().splitlines()


def free_ports() -> int:
    """Returns the first of some ports in a row that nobody listens on."""
    return take(PORTS)


@pytest.fixture
def lamina(tmp_path: Path) -> Iterator[Lamina]:
    """The command; a stack that the test left up is stopped."""
    command = Lamina(tmp_path)
    yield command
    if (tmp_path / "default" / "stack.json").exists():
        command.run("down")


class Collector:
    """Keeps the requests of exporters by path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Takes one export."""
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                collector.requests.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns all spans, each with the name of its layer."""
        return [
            (attribute(resource["resource"], "service.name"), span)
            for path, body in list(self.requests)
            if path == "/v1/traces"
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def metrics(self) -> set[tuple[str, str]]:
        """Returns the names of all metrics, each with the name of its layer."""
        return {
            (attribute(resource["resource"], "service.name"), metric["name"])
            for path, body in list(self.requests)
            if path == "/v1/metrics"
            for resource in body["resourceMetrics"]
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
        }


def attribute(holder: dict[str, Any], key: str) -> str:
    """Returns the text of an attribute."""
    return next((str(a["value"]["stringValue"]) for a in holder["attributes"] if a["key"] == key), "")


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of OTLP."""
    made = Collector()
    yield made
    made.stop()
