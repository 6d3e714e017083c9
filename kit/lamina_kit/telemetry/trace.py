"""Trace context, spans and the ring that keeps them.

A call names its trace in the metadata key `traceparent` (W3C Trace Context): `00-TRACE-PARENT-FLAGS`. The trace id
always travels and is logged. Spans are recorded only when the caller asked for it with the *sampled* flag: an unsampled
call allocates none, since two spans cost more than a call.

    with trace.begin("demo", recorder):                 # a root; sampled
        await stub.Create(request)                      # every layer on the way records its spans
    with trace.span("fault.swap_in", frame=frame):      # inside a handler; free of charge when unsampled
        ...

`docs/adr/0006-causes.md` says how causes travel where no call does.
"""

from __future__ import annotations

import builtins
import contextvars
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng

HEADER = "traceparent"
MAX_SPANS = 10_000
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_MAX_HEADER = 256


class TraceContext:
    """The trace that current work belongs to, and the span that is its parent there. Immutable.

    `trace_id` has 32 and `span_id` 16 lower-case hexadecimal digits; `header` is the `traceparent` to send on.
    """

    __slots__ = ("header", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, sampled: bool, header: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.header = header or f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TraceContext) and self.header == other.header

    def __hash__(self) -> int:
        return hash(self.header)

    def __repr__(self) -> str:
        return f"TraceContext({self.header})"

    @property
    def origin(self) -> str | TraceContext:
        """Returns the trace id, or this context where the id is yet to be made: its `trace_id` makes it when asked."""
        return self.trace_id

    def unsampled(self) -> TraceContext:
        """Returns the same trace without the wish to record it, for work that outlives the request."""
        return TraceContext(self.trace_id, self.span_id, False) if self.sampled else self


class _LateRoot(TraceContext):
    """The context of a new, unsampled trace, whose ids are made when somebody asks for them; most calls never do.

    They follow from the number of the root alone: whether a log line showed them must change no other id.
    """

    __slots__ = ("_number", "_recorder")

    def __init__(self, recorder: Recorder, number: int) -> None:
        self._recorder = recorder
        self._number = number
        self.sampled = False

    @property
    def origin(self) -> TraceContext:
        """Returns itself: the id may never be asked for."""
        return self

    def __getattr__(self, name: str) -> str:
        if name in ("trace_id", "span_id", "header"):
            TraceContext.__init__(self, *self._recorder.ids_of_root(self._number), False)
        value: str = object.__getattribute__(self, name)
        return value


def parse(header: str | bytes) -> TraceContext | None:
    """Returns the context in a `traceparent` value, or None when it is malformed.

    A malformed one is ignored, as the specification wants: it comes from outside and must not fail the call. Version
    ff, all-zero ids and values over 256 characters are malformed; later versions are read by their first four fields.
    """
    if isinstance(header, bytes):
        header = header.decode("ascii", "replace")
    return _parse(header) if len(header) <= _MAX_HEADER else None


@lru_cache(maxsize=256)
def _parse(header: str) -> TraceContext | None:
    """Remembers the latest: a program that runs makes all its calls in one trace."""
    match = _FORM.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    if version == "ff" or (version == "00" and len(header) != 55) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), header[:55] if version == "00" else "")


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    """Returns the context that call metadata name, or None."""
    for key, value in metadata or ():
        if key == HEADER:
            return _parse(value) if type(value) is str and len(value) <= _MAX_HEADER else parse(value)
    return None


@dataclass(frozen=True)
class SpanRecord:
    """One finished span; times in nanoseconds since the stack's start, attributes ordered by key.

    `order` counts the starts of a layer's spans: in virtual time many start in the same nanosecond.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    layer: str
    name: str
    start_time_ns: int
    duration_ns: int
    status: str
    attributes: tuple[tuple[str, str], ...]
    order: int


class SpanRing:
    """The latest 10,000 spans of a layer; older ones are lost. `sink`, when set, is given each one as it ends."""

    def __init__(self, limit: int = MAX_SPANS) -> None:
        self.sink: Callable[[SpanRecord], None] | None = None
        self._spans: deque[SpanRecord] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: SpanRecord) -> None:
        """Keeps a span."""
        self._spans.append(span)
        if self.sink is not None:
            self.sink(span)

    def list(self, trace_id: str = "") -> builtins.list[SpanRecord]:
        """Returns the spans of one trace, or all, in the order of their start."""
        chosen = [span for span in self._spans if not trace_id or span.trace_id == trace_id]
        return sorted(chosen, key=lambda span: span.order)


class Recorder:
    """Makes spans for one layer: its name, its host, its clock, its source of ids and its ring."""

    def __init__(self, layer: str, clock: Clock, rng: Rng, ring: SpanRing, host: str = "") -> None:
        self.layer = layer
        self.host = host
        self.clock = clock
        self.ring = ring
        self._rng = rng
        self._started = 0
        self._roots = 0

    def next_order(self) -> int:
        """Returns the number of the span that starts now."""
        self._started += 1
        return self._started

    @property
    def started(self) -> int:
        """How many spans have started."""
        return self._started

    def new_root(self) -> TraceContext:
        """Returns the context of a new, unsampled trace."""
        self._roots += 1
        return _LateRoot(self, self._roots)

    def ids_of_root(self, number: int) -> tuple[str, str]:
        """Returns the trace id and span id of the root with a number, from 1."""
        rng = self._rng.child(f"root/{number}")
        return f"{rng.getrandbits(128) | 1:032x}", f"{rng.getrandbits(64) | 1:016x}"

    def new_trace_id(self) -> str:
        """Returns 32 hexadecimal digits, not all zero."""
        return f"{self._rng.getrandbits(128) | 1:032x}"

    def new_span_id(self) -> str:
        """Returns 16 hexadecimal digits, not all zero."""
        return f"{self._rng.getrandbits(64) | 1:016x}"


_context: contextvars.ContextVar[TraceContext | None] = contextvars.ContextVar("lamina_trace", default=None)
_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("lamina_recorder", default=None)


current: Callable[[], TraceContext | None] = _context.get
"""Returns the trace that this task works for, or None. The variable's own method: it is called at every event."""


def is_sampled() -> bool:
    """Returns whether what this task does is to be recorded."""
    context = _context.get()
    return context is not None and context.sampled


def worker() -> Recorder | None:
    """Returns the recorder of the layer that this task works for, or None."""
    return _recorder.get()


@contextmanager
def working_for(recorder: Recorder) -> Iterator[None]:
    """Has what runs inside, and the tasks that it starts, work for a layer: log lines name it and its host."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def enter(context: TraceContext | None, recorder: Recorder) -> None:
    """Makes `context` the current one of this task. For interceptors: a handler's task ends with the call."""
    _context.set(context)
    _recorder.set(recorder)


def follow(context: TraceContext, recorder: Recorder | None = None) -> None:
    """Makes `context` the current one of a task that goes on with the work of another one, for the same layer."""
    _context.set(context)
    if recorder is not None:
        _recorder.set(recorder)


class Span:
    """A span in progress, as a context manager; leaving it by an error notes the error's code as its status."""

    __slots__ = ("_attributes", "_name", "_order", "_own", "_parent", "_recorder", "_start", "_token", "status")

    def __init__(self, recorder: Recorder, parent: TraceContext, name: str, attributes: dict[str, object]) -> None:
        self._recorder = recorder
        self._parent = parent
        self._name = name
        self._attributes = attributes
        self._own = TraceContext(parent.trace_id, recorder.new_span_id(), True)
        self.status = "OK"

    def __enter__(self) -> Span:
        self._token = _context.set(self._own)
        self._order = self._recorder.next_order()
        self._start = self._recorder.clock.now_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _context.reset(self._token)
        if error is not None and self.status == "OK":
            self.status = status_of(error)
        self._recorder.ring.add(
            SpanRecord(
                trace_id=self._own.trace_id,
                span_id=self._own.span_id,
                parent_span_id=self._parent.span_id,
                layer=self._recorder.layer,
                name=self._name,
                start_time_ns=self._start,
                duration_ns=self._recorder.clock.now_ns() - self._start,
                status=self.status,
                attributes=tuple(sorted((key, str(value)) for key, value in self._attributes.items())),
                order=self._order,
            )
        )

    def set(self, **attributes: object) -> None:
        """Adds attributes that were not known at the start."""
        self._attributes.update(attributes)

    def end_as(self, status: str) -> None:
        """Gives the span another status than `OK`, for work that failed without raising."""
        self.status = status


class _Unrecorded:
    """Stands for every span of an unsampled trace; there is one."""

    __slots__ = ()

    def __enter__(self) -> _Unrecorded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Records nothing."""

    def set(self, **attributes: object) -> None:
        """Records nothing."""

    def end_as(self, status: str) -> None:
        """Records nothing."""


_UNRECORDED = _Unrecorded()


def span(name: str, **attributes: object) -> AbstractContextManager[Span | _Unrecorded]:
    """Returns a context manager that records a span under the current one, when the current trace is sampled."""
    context = _context.get()
    if context is None or not context.sampled:
        return _UNRECORDED
    recorder = _recorder.get()
    return _UNRECORDED if recorder is None else Span(recorder, context, name, attributes)


@contextmanager
def begin(name: str, recorder: Recorder, *, sampled: bool = True, **attributes: object) -> Iterator[TraceContext]:
    """Starts a trace: calls made inside belong to it. When sampled, its root span is recorded too."""
    root = TraceContext(recorder.new_trace_id(), "", sampled)
    recorder_token = _recorder.set(recorder)
    try:
        if sampled:
            with Span(recorder, root, name, attributes) as whole:
                yield whole._own
        else:
            token = _context.set(TraceContext(root.trace_id, recorder.new_span_id(), False))
            try:
                yield _context.get() or root
            finally:
                _context.reset(token)
    finally:
        _recorder.reset(recorder_token)


def status_of(error: BaseException) -> str:
    """Returns the gRPC code name that an exception ends as."""
    if isinstance(error, LaminaError):
        return error.code
    code = getattr(error, "code", None)
    if callable(code):
        return str(getattr(code(), "name", "UNKNOWN"))
    return "CANCELLED" if type(error).__name__ == "CancelledError" else "INTERNAL"
