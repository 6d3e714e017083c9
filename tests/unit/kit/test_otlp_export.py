"""Exporting: batches, repetition, what is dropped and counted, and that no call ever waits for a collector."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.ports import take

from lamina_kit.clock import RealClock
from lamina_kit.layer.state import LayerState
from lamina_kit.operations import otlp_export
from lamina_kit.operations.otlp import Exported, Resource
from lamina_kit.operations.otlp_export import BATCH, Exporter, Pace
from lamina_kit.operations.settings import OperationsConfig
from lamina_kit.rng import Rng
from lamina_kit.telemetry import trace
from lamina_kit.telemetry.trace import SpanRecord

pytestmark = pytest.mark.real_time("threads and sockets")
FAST = Pace(gather_s=0.01, first_retry_s=0.01, longest_retry_s=0.02, give_up_s=30.0)


class Eventually(Protocol):
    """Waits until a condition holds."""

    async def __call__(self, condition: Any, what: str, within: float = 10.0) -> None: ...


class Collector:
    """A collector that keeps what it is sent; `answers` are statuses of the next requests, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.open = threading.Event()
        self.open.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Takes one export."""
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                collector.open.wait(30)
                if self.headers.get("Content-Encoding") == "gzip":
                    raw = gzip.decompress(raw)
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.requests.append((self.path, headers, json.loads(raw)))
                status, more, body = collector.answers.pop(0) if collector.answers else (200, {}, b"{}")
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Ends it."""
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[str]:
        """Returns the ids of all spans that came in requests that were answered well or not, in their order."""
        return [
            span["spanId"]
            for _, _, body in self.requests
            for resource in body.get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector."""
    found = Collector()
    yield found
    found.stop()


def exporter_to(url: str, pace: Pace = FAST, **more: Any) -> Exporter:
    """Returns an exporter that runs."""
    exporter = Exporter(OperationsConfig(otlp_endpoint=url, **more), pace)
    exporter.start()
    return exporter


def exported(number: int) -> Exported:
    """Returns a span with a number."""
    span = SpanRecord("a" * 32, f"{number:016x}", "", "mmu", "work", number, 1, "OK", (), number)
    return Exported(Resource("mmu", "h1", "1"), span, 0)


async def test_spans_of_sampled_calls_go_out_with_their_ids(collector: Collector, eventually: Eventually) -> None:
    """What a layer records is what the collector gets: ids, parent and attributes. Unsampled work sends nothing."""
    state = LayerState("mmu", "h1", RealClock(), Rng(1))
    exporter = exporter_to(collector.url)
    exporter.attach(state)
    with trace.begin("quiet", state.recorder, sampled=False), trace.span("inner"):
        pass
    with trace.begin("outer", state.recorder) as context, trace.span("inner", frame=7):
        pass
    await eventually(lambda: len(collector.spans()) == 2, "both spans arrived")
    exporter.stop()
    path, headers, body = collector.requests[0]
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/json"
    spans = {span["name"]: span for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]}
    assert {span["traceId"] for span in spans.values()} == {context.trace_id}
    assert spans["inner"]["parentSpanId"] == spans["outer"]["spanId"] == context.span_id
    assert spans["inner"]["attributes"] == [{"key": "frame", "value": {"stringValue": "7"}}]
    assert exporter.exported == 2


async def test_a_busy_collector_is_asked_again_and_gets_everything_once(
    collector: Collector, eventually: Eventually
) -> None:
    """429 and 503 mean later; the batch comes again whole, and is counted once."""
    collector.answers = [(503, {"Retry-After": "0"}, b""), (429, {}, b"busy"), (200, {}, b"{}")]
    exporter = exporter_to(collector.url)
    exporter.put(exported(1))
    await eventually(lambda: exporter.exported == 1, "the span was taken")
    exporter.stop()
    assert collector.spans() == [f"{1:016x}"] * 3
    assert (exporter.retries, exporter.dropped) == (2, {"queue_full": 0, "refused": 0, "unsent": 0})


async def test_what_a_collector_refuses_is_not_sent_again(collector: Collector, eventually: Eventually) -> None:
    """400 is for ever: the batch is counted as refused, and the next one is tried."""
    collector.answers = [(400, {}, b"no")]
    exporter = exporter_to(collector.url)
    exporter.put(exported(1))
    await eventually(lambda: exporter.dropped["refused"] == 1, "the refusal was counted")
    exporter.put(exported(2))
    await eventually(lambda: exporter.exported == 1, "the next span was taken")
    exporter.stop()
    assert (len(collector.requests), exporter.retries) == (2, 0)


async def test_a_part_that_was_not_taken_is_counted(collector: Collector, eventually: Eventually) -> None:
    """A collector may take a request and refuse some of its spans."""
    collector.open.clear()
    collector.answers = [(200, {}, b"{}"), (200, {}, b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"x"}}')]
    exporter = exporter_to(collector.url)
    exporter.put(exported(0))
    await eventually(lambda: not exporter._queue, "the first span is on its way")
    for number in (1, 2, 3):
        exporter.put(exported(number))
    collector.open.set()
    await eventually(lambda: exporter.exported == 2, "what was taken was counted")
    exporter.stop()
    assert exporter.dropped["refused"] == 2


async def test_a_full_queue_drops_and_never_waits(
    collector: Collector, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a collector hangs, the queue fills to its limit; what is beyond is counted, and the rest arrives later."""
    monkeypatch.setattr(otlp_export, "MAX_QUEUE", 100)
    collector.open.clear()
    exporter = exporter_to(collector.url)
    exporter.put(exported(0))
    await eventually(lambda: not exporter._queue, "the first span is on its way")
    for number in range(1, 151):
        exporter.put(exported(number))
    assert exporter.dropped["queue_full"] == 50
    collector.open.set()
    await eventually(lambda: exporter.exported == 101, "the queued spans were taken")
    exporter.stop()


async def test_many_spans_go_in_batches(collector: Collector) -> None:
    """No request has more spans than a batch; their order is kept; a stop sends what is left."""
    exporter = exporter_to(collector.url, Pace(gather_s=30.0))
    for number in range(BATCH * 2 + 5):
        exporter.put(exported(number))
    exporter.stop()
    assert collector.spans() == [f"{number:016x}" for number in range(BATCH * 2 + 5)]
    assert max(len(body["resourceSpans"][0]["scopeSpans"][0]["spans"]) for _, _, body in collector.requests) == BATCH


async def test_gzip_and_headers_are_sent_when_configured(collector: Collector) -> None:
    """The body is compressed and says so; headers of the configuration are decoded."""
    exporter = exporter_to(collector.url, otlp_compression="gzip", otlp_headers=("x-key=a%20b",))
    exporter.put(exported(1))
    exporter.stop()
    _, headers, _ = collector.requests[0]
    assert (headers["content-encoding"], headers["x-key"]) == ("gzip", "a b")
    assert collector.spans() == [f"{1:016x}"]


async def test_metrics_go_to_their_own_path_and_the_newest_win(collector: Collector, eventually: Eventually) -> None:
    """A snapshot holds every family of each layer; one that was not sent yet is replaced."""
    state = LayerState("mmu", "h1", RealClock(), Rng(1))
    exporter = exporter_to(collector.url)
    exporter.snapshot([state])
    await eventually(lambda: collector.requests, "the metrics arrived")
    exporter.stop()
    path, _, body = collector.requests[0]
    assert path == "/v1/metrics"
    (resource,) = body["resourceMetrics"]
    names = [found["name"] for found in resource["scopeMetrics"][0]["metrics"]]
    assert names == sorted(names)
    assert {"lamina_layer_info", "lamina_sessions", "lamina_clock_seconds"} <= set(names)


async def test_only_the_signals_with_an_endpoint_are_exported(collector: Collector) -> None:
    """With an endpoint for metrics alone, spans are not even queued."""
    state = LayerState("mmu", "h1", RealClock(), Rng(1))
    exporter = Exporter(OperationsConfig(otlp_metrics_endpoint=f"{collector.url}/own"), FAST)
    exporter.start()
    exporter.attach(state)
    exporter.snapshot([state])
    assert state.spans.sink is None
    exporter.stop()
    assert [path for path, _, _ in collector.requests] == ["/own"]


async def test_a_collector_that_is_away_costs_a_bounded_stop(eventually: Eventually) -> None:
    """Nobody listens: spans wait; a stop tries once more, gives up, and counts them."""
    exporter = exporter_to(f"http://127.0.0.1:{take(1)}")
    exporter.put(exported(1))
    await eventually(lambda: exporter.retries > 1, "it was tried again")
    exporter.stop()
    assert exporter.dropped["unsent"] == 1
    assert not exporter._thread.is_alive()


async def test_authorities_that_cannot_be_read_cost_no_span_uncounted(tmp_path: Path, eventually: Eventually) -> None:
    """A file of authorities that has gone is trouble like a collector that is away: tried again, and counted."""
    exporter = exporter_to("https://127.0.0.1:1", otlp_certificate=tmp_path / "gone.pem")
    exporter.put(exported(1))
    await eventually(lambda: exporter.retries > 1, "it was tried again")
    exporter.stop()
    assert exporter.dropped["unsent"] == 1


async def test_a_batch_that_cannot_be_sent_is_given_up_in_the_end(collector: Collector, eventually: Eventually) -> None:
    """A collector that names a pause beyond the age limit loses that batch, and gets the next one."""
    collector.answers = [(503, {"Retry-After": "3600"}, b"")]
    exporter = exporter_to(collector.url)
    exporter.put(exported(1))
    await eventually(lambda: exporter.dropped["unsent"] == 1, "the batch was given up")
    exporter.put(exported(2))
    await eventually(lambda: exporter.exported == 1, "the next one was taken")
    exporter.stop()
    assert (collector.spans(), exporter.retries) == ([f"{1:016x}", f"{2:016x}"], 0)


async def test_the_exporter_tells_of_itself(collector: Collector) -> None:
    """What was sent, dropped, repeated and waits is among the metrics."""
    exporter = exporter_to(collector.url)
    exporter.put(exported(1))
    exporter.stop()
    values = {found.name: found.samples[0].value for found in exporter.families()}
    assert values["lamina_otlp_spans_total"] == 1
    assert values["lamina_otlp_queue_spans"] == 0
