"""Exports spans and metrics to an OpenTelemetry collector, beside the work and never in its way.

    loop                                           thread
    span ends ─▶ queue of 8192 ──── 512 at a time ──▶ JSON ─▶ POST /v1/traces
                 full: dropped, counted
    snapshot  ─▶ the latest one ────────────────────▶ JSON ─▶ POST /v1/metrics

A collector that is away or busy (no connection, 429, 502, 503, 504) is asked again after a pause that doubles, or that
it names, until the batch is a minute old; then, as with any other refusal, the batch is given up and counted. Values of
metrics are cumulative, so a newer snapshot makes up for a lost one. The thread lives in real time; a stack in virtual
time only appends to the queue.
"""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lamina_kit.layer.state import LayerState, version
from lamina_kit.operations import otlp
from lamina_kit.operations.otlp import Exported, Resource, Snapshot
from lamina_kit.operations.settings import OperationsConfig
from lamina_kit.telemetry import log
from lamina_kit.telemetry.metrics import Family, by_label, counter, gauge
from lamina_kit.telemetry.trace import SpanRecord

MAX_QUEUE = 8192
BATCH = 512
FLUSH_S = 5.0
"""How long the last batches may take when the exporter stops."""
MAX_ANSWER = 64 << 10
RETRYABLE = (429, 502, 503, 504)


@dataclass(frozen=True)
class Pace:
    """Seconds: how long spans wait for company, pauses before a repetition, age at which a batch is given up."""

    gather_s: float = 1.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 16.0
    give_up_s: float = 60.0


USUAL = Pace()


class Exporter:
    """One exporter to the endpoints of a configuration, from `start` to `stop`.

    `now_s` is the monotonic time by which it waits. All methods but those of the thread are called on one loop.
    """

    def __init__(
        self, config: OperationsConfig, pace: Pace = USUAL, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._pace = pace
        self._now_s = now_s
        self._queue: deque[Exported] = deque()
        self._snapshots: Sequence[Snapshot] | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._until = 0.0  # when a flush must have ended
        self._thread = threading.Thread(target=self._run, name="otlp-export", daemon=True)
        self._well = True
        self._log = log.logger("otlp")
        self.exported = 0
        self.dropped = {"queue_full": 0, "refused": 0, "unsent": 0}
        self.retries = 0

    @property
    def interval_s(self) -> float:
        """Seconds between two snapshots of the metrics."""
        return self._config.otlp_interval_ms / 1000

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def attach(self, state: LayerState) -> None:
        """Has every span of a layer exported that ends from now on."""
        if not self._config.endpoint("traces"):
            return
        resource, clock = Resource(state.layer, state.host, version()), state.clock

        def export(span: SpanRecord) -> None:
            self.put(Exported(resource, span, clock.wall_ns() - clock.now_ns()))

        state.spans.sink = export

    def put(self, span: Exported) -> None:
        """Queues a span; drops it when the queue is full."""
        if len(self._queue) >= MAX_QUEUE:
            self.dropped["queue_full"] += 1
            return
        self._queue.append(span)
        if len(self._queue) >= BATCH:
            self._wake.set()

    def snapshot(self, states: Iterable[LayerState]) -> None:
        """Has the metrics of layers exported as they are now; replaces a snapshot that was not sent yet."""
        if not self._config.endpoint("metrics"):
            return
        found = []
        for state in states:
            now = state.clock.wall_ns()
            resource = Resource(state.layer, state.host, version())
            found.append(Snapshot(resource, state.metrics.families(), now - state.clock.now_ns(), now))
        self._snapshots = found
        self._wake.set()

    def stop(self, within_s: float = FLUSH_S) -> None:
        """Sends what is queued for up to `within_s` seconds, and ends the thread. Blocks; idempotent."""
        if not self._stopping.is_set():
            self._until = self._now_s() + within_s
            self._stopping.set()
            self._wake.set()
        self._thread.join(within_s + 1.0)
        if self._thread.is_alive():
            self._log.warning("otlp.flush_cut", queued=len(self._queue))

    def families(self) -> Iterable[Family]:
        """Yields the exporter's own metrics."""
        yield counter("lamina_otlp_spans_total", "Spans that the collector took.", self.exported)
        text = "Spans that were not exported, by reason."
        yield by_label("lamina_otlp_spans_dropped_total", text, "reason", self.dropped, "counter")
        yield gauge("lamina_otlp_queue_spans", "Spans that wait to be exported.", len(self._queue))
        yield counter("lamina_otlp_retries_total", "Requests to the collector that were repeated.", self.retries)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pace.gather_s)
            self._wake.clear()
            stopping = self._stopping.is_set()
            try:
                self._send_all()
            except Exception as error:
                self._log.error("otlp.failed", exc_info=error)
            if stopping:
                return

    def _send_all(self) -> None:
        snapshots, self._snapshots = self._snapshots, None
        if snapshots is not None:
            self._deliver("metrics", otlp.metrics(snapshots))
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            lost, reason = self._deliver("traces", otlp.traces(batch), len(batch))
            self.exported += len(batch) - lost
            if reason:
                self.dropped[reason] += lost

    def _deliver(self, signal: str, body: otlp.Json, count: int = 0) -> tuple[int, str]:
        """Sends one request, again where that may help. Returns how many spans were lost, and why."""
        data = json.dumps(body, separators=(",", ":")).encode()
        began, pause = self._now_s(), self._pace.first_retry_s
        while not self._stopping.is_set() or self._now_s() < self._until:
            problem, retry_s, rejected = self._post(signal, data)
            if not problem:
                self._tell_well(signal)
                return rejected, "refused" if rejected else ""
            self._tell_ill(signal, problem)
            if retry_s is None:
                return count, "refused"
            wait = max(retry_s, pause)
            pause = min(pause * 2, self._pace.longest_retry_s)
            if self._stopping.is_set() or self._now_s() + wait > began + self._pace.give_up_s:
                break  # at the end each batch has one try
            self.retries += 1
            self._stopping.wait(wait)
        return count, "unsent"

    def _post(self, signal: str, data: bytes) -> tuple[str, float | None, int]:
        """Returns (what went wrong, seconds after which to repeat or None for never, rejected spans)."""
        config = self._config
        limit = config.otlp_timeout_ms / 1000
        if self._stopping.is_set():
            limit = max(0.1, min(limit, self._until - self._now_s()))
        url = urlsplit(config.endpoint(signal))
        headers = {"Content-Type": "application/json", "User-Agent": f"lamina/{version()}", **config.headers()}
        if config.otlp_compression == "gzip":
            data, headers["Content-Encoding"] = gzip.compress(data, 6), "gzip"
        connection: http.client.HTTPConnection | None = None
        try:
            connection = self._connection(url, limit)  # which reads the file of the authorities anew
            connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), data, headers)
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}", 0.0, 0
        finally:
            if connection is not None:
                connection.close()
        if 200 <= answer.status < 300:
            return "", None, _rejected(text) if signal == "traces" else 0
        retry = _seconds(answer.getheader("Retry-After")) if answer.status in RETRYABLE else None
        return f"status {answer.status}: {text[:200].decode(errors='replace')}", retry, 0

    def _connection(self, url: Any, limit_s: float) -> http.client.HTTPConnection:
        if url.scheme == "https":
            authorities = self._config.otlp_certificate
            context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
            return http.client.HTTPSConnection(url.hostname, url.port, timeout=limit_s, context=context)
        return http.client.HTTPConnection(url.hostname, url.port, timeout=limit_s)

    def _tell_ill(self, signal: str, problem: str) -> None:
        """Logs the first failure of a row."""
        if self._well:
            self._well = False
            self._log.warning("otlp.not_taken", signal=signal, endpoint=_place(self._config, signal), problem=problem)

    def _tell_well(self, signal: str) -> None:
        if not self._well:
            self._well = True
            self._log.info("otlp.taken_again", signal=signal, endpoint=_place(self._config, signal))


def _place(config: OperationsConfig, signal: str) -> str:
    """Returns an endpoint without what may be secret in its URL."""
    url = urlsplit(config.endpoint(signal))
    return f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}{url.path}"


def _rejected(text: bytes) -> int:
    """Returns how many spans a collector that answered well did not take."""
    try:
        return int(json.loads(text or b"{}").get("partialSuccess", {}).get("rejectedSpans", 0))
    except (ValueError, AttributeError, TypeError):
        return 0  # an answer that is no JSON still says that the request was taken


def _seconds(header: str | None) -> float:
    """Returns what `Retry-After` asks for; 0 when it names a date or nothing."""
    return float(header) if header and header.isascii() and header.isdigit() and len(header) < 10 else 0.0
