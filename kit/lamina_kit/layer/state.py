"""The service that every layer serves beside its own, `lamina.common.v1.Layer`, and the state behind it.

`service.local` and `service.serve` register it for every layer: a layer's own `register` does not.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import InvalidArgument, NotFound
from lamina_kit.faults.table import FaultTable
from lamina_kit.layer.owner_session import REVISION, check_revision
from lamina_kit.layer.sessions import Sessions
from lamina_kit.rng import Rng
from lamina_kit.rpc.meter import CallMeter
from lamina_kit.telemetry.events import EventLog, EventRecord
from lamina_kit.telemetry.metrics import NS, Family, Registry, Sample, by_label, counter, gauge, tally
from lamina_kit.telemetry.trace import MAX_SPANS, Recorder, SpanRecord, SpanRing

SERVICE_NAME = "lamina.common.v1.Layer"
MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_DECISIONS = 100
DEFAULT_DECISIONS = 20

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_REVISION = re.compile(r"[0-9]{1,5}\.[0-9]{1,5}")
_MAX_OBJECT = 1024


@dataclass
class LayerState:
    """What a layer says of itself and keeps for others to look at.

    `boot_id` identifies the start of the host's hardware; layers above hardware set it from their handshake below.
    """

    layer: str
    host: str
    clock: Clock
    rng: Rng
    engine: str = "model"
    boot_id: str = ""
    capabilities: tuple[str, ...] = ()
    revision: str = REVISION
    spans: SpanRing = field(default_factory=SpanRing)
    events: EventLog = field(init=False)
    sessions: Sessions = field(init=False)
    recorder: Recorder = field(init=False)
    faults: FaultTable = field(init=False)
    metrics: Registry = field(init=False)
    calls: CallMeter = field(init=False)
    _starts: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.events = EventLog(self.layer, self.host, self.clock)
        self.sessions = Sessions(self.clock)
        rng = self.rng.child(f"{self.host}/{self.layer}/trace")
        self.recorder = Recorder(self.layer, self.clock, rng, self.spans, self.host)
        self.faults = FaultTable(self.host, self.clock, self.rng.child(f"{self.host}/{self.layer}/faults"), self.events)
        self.metrics = Registry(layer=self.layer, host=self.host)
        self.calls = CallMeter(self.clock)
        self._add_metrics()

    def next_start(self) -> LayerState:
        """Returns the state for the next start in this process.

        Records and counts go on; sessions, faults and the layer's own metrics begin anew.
        """
        state = copy.copy(self)
        state.boot_id = ""
        state.sessions = Sessions(self.clock)
        state._starts = self._starts + 1
        rng = self.rng.child(f"{self.host}/{self.layer}/faults/{state._starts}")  # the events of before name theirs
        state.faults = FaultTable(self.host, self.clock, rng, self.events)
        state.metrics.clear()
        state._add_metrics()
        return state

    def _add_metrics(self) -> None:
        self.metrics.add(self.calls.families)
        self.metrics.add(self._families)

    def _families(self) -> Iterable[Family]:
        """Yields what every layer tells of itself."""
        about = (("engine", self.engine), ("revision", self.revision), ("version", version()))
        yield Family("lamina_layer_info", "gauge", "Always 1; the labels say what answers.", (Sample(about, 1),))
        broken = self.faults.list(active_only=True)
        yield gauge("lamina_layer_faults", "Faults in force that were injected on purpose.", len(broken))
        states = tally((self.sessions.state(owner).value for owner in self.sessions.owners()), ("open", "broken"))
        yield by_label("lamina_sessions", "Owner sessions by state.", "state", states)
        kinds, text = self.events.counts, "Entries of the event log by kind."
        yield by_label("lamina_events_total", text, "event", kinds, "counter")
        yield counter("lamina_spans_total", "Spans that sampled calls recorded.", self.recorder.started)
        yield Family(
            "lamina_clock_seconds",
            "gauge",
            "Time of the stack since its start.",
            (Sample((("mode", self.clock.mode),), self.clock.now_ns()),),
            scale=NS,
        )

    def close(self) -> None:
        """Stops what runs by the clock: sessions' grace and faults' durations. For the composer, at the end."""
        self.sessions.close()
        self.faults.close()


@functools.cache
def version() -> str:
    """Returns the version of the installed Lamina distribution; `0+source` when it runs from a bare checkout."""
    try:
        return metadata.version("lamina")
    except metadata.PackageNotFoundError:
        return "0+source"


class LayerServicer(layer_pb2_grpc.LayerServicer):
    """Serves a `LayerState`."""

    def __init__(self, state: LayerState) -> None:
        self._state = state

    async def Handshake(self, request: layer_pb2.HandshakeRequest, context: Any) -> layer_pb2.HandshakeResponse:
        """Checks the caller's revision and introduces this layer."""
        with Checks() as check:
            check.that(0 < len(request.caller) <= 63, "caller", "is not 1 to 63 characters")
            check.that(_REVISION.fullmatch(request.revision) is not None, "revision", "is not MAJOR.MINOR")
        check_revision(request.revision, request.caller)
        state = self._state
        return layer_pb2.HandshakeResponse(
            layer=state.layer,
            revision=state.revision,
            engine=state.engine,
            host=state.host,
            boot_id=state.boot_id,
            capabilities=sorted(state.capabilities),
            version=version(),
            time_ns=state.clock.now_ns(),
            clock=state.clock.mode,
        )

    async def OpenSession(
        self, request: layer_pb2.OpenSessionRequest, context: Any
    ) -> AsyncIterator[layer_pb2.SessionEvent]:
        """Holds a session for as long as the stream lives."""
        held = self._state.sessions.hold(request.owner, request.epoch, fresh=request.fresh)
        try:
            async for kind, number in held:
                if kind == "opened":
                    yield layer_pb2.SessionEvent(opened=layer_pb2.SessionOpened(adopted_objects=number))
                else:
                    yield layer_pb2.SessionEvent(replaced=layer_pb2.SessionReplaced(epoch=number))
        finally:
            await held.aclose()  # type: ignore[attr-defined]

    async def ListSpans(self, request: layer_pb2.ListSpansRequest, context: Any) -> layer_pb2.ListSpansResponse:
        """Lists recorded spans."""
        with Checks() as check:
            check.that(
                not request.trace_id or _TRACE_ID.fullmatch(request.trace_id) is not None,
                "trace_id",
                "is not 32 lower-case hexadecimal digits",
            )
            check.range("page_size", request.page_size, 0, MAX_SPANS)
        size, after = request.page_size or MAX_SPANS, _position(request.page_token)
        found = [span for span in self._state.spans.list(request.trace_id) if span.order > after]
        token = str(found[size - 1].order) if len(found) > size else ""
        return layer_pb2.ListSpansResponse(spans=[_span(span) for span in found[:size]], next_page_token=token)

    async def ListEvents(self, request: layer_pb2.ListEventsRequest, context: Any) -> layer_pb2.ListEventsResponse:
        """Lists a page of the event log."""
        with Checks() as check:
            check.that(request.page_size >= 0, "page_size", f"is {request.page_size}, below 0")
            check.max_bytes("object", request.object, _MAX_OBJECT)
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        found = self._state.events.list(request.object, after=_position(request.page_token), limit=size + 1)
        token = str(found[size - 1].sequence) if len(found) > size else ""
        return layer_pb2.ListEventsResponse(events=[_event(entry) for entry in found[:size]], next_page_token=token)

    async def Explain(self, request: layer_pb2.ExplainRequest, context: Any) -> layer_pb2.ExplainResponse:
        """Returns the decisions about one object."""
        with Checks() as check:
            check.that(bool(request.object), "object", "is empty")
            check.max_bytes("object", request.object, _MAX_OBJECT)
            check.range("page_size", request.page_size, 0, MAX_DECISIONS)
        found = self._state.events.decisions(request.object, request.page_size or DEFAULT_DECISIONS)
        if not found:
            raise NotFound(
                f"The {self._state.layer} layer has recorded no decision about {request.object}.",
                reason="NOTHING_RECORDED",
                next_step="Check the name, or ask the layer that decided; old decisions are forgotten.",
                object=request.object,
            )
        return layer_pb2.ExplainResponse(decisions=[_event(entry) for entry in found])


def _position(token: str) -> int:
    """Returns the log position that a page token of ours stands for."""
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise InvalidArgument("page_token was not issued by this layer.", reason="PAGE_TOKEN_INVALID")
    return int(token)


def _attributes(entries: Sequence[tuple[str, str]]) -> list[layer_pb2.Attribute]:
    return [layer_pb2.Attribute(key=key, value=value) for key, value in entries]


def _span(span: SpanRecord) -> layer_pb2.Span:
    return layer_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        layer=span.layer,
        name=span.name,
        start_time_ns=span.start_time_ns,
        duration_ns=span.duration_ns,
        status=span.status,
        attributes=_attributes(span.attributes),
    )


def _event(entry: EventRecord) -> layer_pb2.Event:
    return layer_pb2.Event(
        sequence=entry.sequence,
        time_ns=entry.time_ns,
        host=entry.host,
        layer=entry.layer,
        object=entry.object,
        event=entry.event,
        cause=entry.cause,
        rule=entry.rule,
        inputs=_attributes(entry.inputs),
    )
