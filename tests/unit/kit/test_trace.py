"""Trace context, spans, the ring."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest

from lamina_kit.errors import NotFound
from lamina_kit.rng import Rng
from lamina_kit.telemetry import trace
from lamina_kit.telemetry.trace import Recorder, SpanRing, TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def recorder(manual_clock: Any) -> Recorder:
    """Returns a recorder on a clock that stands still."""
    return Recorder("mmu", manual_clock, Rng(1), SpanRing())


def test_a_traceparent_is_parsed_and_sent_on() -> None:
    """Ids and the sampled flag are read; the header goes on as it came."""
    header = f"00-{TRACE}-{SPAN}-01"
    context = trace.parse(header)
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled, context.header) == (TRACE, SPAN, True, header)
    unsampled = trace.parse(f"00-{TRACE}-{SPAN}-02")
    assert unsampled is not None and not unsampled.sampled
    assert trace.parse(header.encode()) == context


def test_a_later_version_is_read_by_its_first_fields() -> None:
    """A version of the future may carry more; it is sent on as version 00."""
    context = trace.parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings")
    assert context is not None and context.header == f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 1000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_traceparent_is_ignored(header: Any) -> None:
    """What comes from outside never fails a call."""
    assert trace.parse(header) is None


def test_metadata_name_the_trace() -> None:
    """The first traceparent counts; without one there is none."""
    header = f"00-{TRACE}-{SPAN}-01"
    assert trace.from_metadata((("a", "b"), ("traceparent", header))) == TraceContext(TRACE, SPAN, True)
    assert trace.from_metadata((("a", "b"),)) is None and trace.from_metadata(None) is None


def test_spans_nest(recorder: Recorder) -> None:
    """A span's parent is the one around it; attributes are ordered by key."""
    with trace.begin("root", recorder, word="x") as context, trace.span("inner", zeta=1, alpha=2) as span:
        span.set(late=3)
    root, inner = recorder.ring.list(context.trace_id)
    assert (root.name, root.parent_span_id, root.attributes) == ("root", "", (("word", "x"),))
    assert inner.parent_span_id == root.span_id and inner.layer == "mmu"
    assert inner.attributes == (("alpha", "2"), ("late", "3"), ("zeta", "1"))
    assert trace.current() is None


def test_a_span_notes_how_it_ended(recorder: Recorder) -> None:
    """An error gives the span its code and goes on; `end_as` is for failures that do not raise."""
    with trace.begin("root", recorder), pytest.raises(NotFound), trace.span("a"):
        raise NotFound("x", reason="GONE")
    with trace.begin("root", recorder), trace.span("b") as span:
        span.end_as("OUT_OF_RANGE")
    statuses = {span.name: span.status for span in recorder.ring.list()}
    assert statuses == {"root": "OK", "a": "NOT_FOUND", "b": "OUT_OF_RANGE"}


def test_an_unsampled_trace_records_nothing(recorder: Recorder) -> None:
    """Its id still travels; every span is one and the same object."""
    with trace.begin("root", recorder, sampled=False) as context:
        first, second = trace.span("a"), trace.span("b", x=1)
        assert first is second
        with first as span:
            span.set(y=2)
            span.end_as("INTERNAL")
        current = trace.current()
        assert current is not None and current.trace_id == context.trace_id and not current.sampled
    assert len(recorder.ring) == 0
    assert trace.span("outside") is first


def test_a_late_root_draws_its_ids_once(recorder: Recorder) -> None:
    """The trace of an untraced call has ids as soon as somebody asks, and keeps them."""
    root = recorder.new_root()
    assert not root.sampled
    assert root.header == f"00-{root.trace_id}-{root.span_id}-00"
    assert len(root.trace_id) == 32 and root.trace_id == root.trace_id
    assert recorder.new_root().trace_id != root.trace_id


def test_the_ring_is_bounded(recorder: Recorder) -> None:
    """Old spans are lost, never memory."""
    ring = SpanRing(limit=10)
    bounded = Recorder("mmu", recorder.clock, Rng(2), ring)
    with trace.begin("root", bounded):
        for number in range(100):
            with trace.span(f"s{number}"):
                pass
    assert len(ring) == 10
    assert [span.name for span in ring.list()][-1] in ("root", "s99")


def test_the_same_seed_gives_the_same_ids(manual_clock: Any) -> None:
    """Trace and span ids follow from the seed."""
    rings = [SpanRing(), SpanRing()]
    for ring in rings:
        with trace.begin("root", Recorder("mmu", manual_clock, Rng(9), ring)), trace.span("a"):
            pass
    assert rings[0].list() == rings[1].list()


def test_work_that_outlives_its_request_keeps_the_trace_and_records_nothing(recorder: Recorder) -> None:
    """The unsampled form of a context has its ids without the flag; an unsampled one is its own."""
    with trace.begin("request", recorder) as context:
        later = context.unsampled()
    assert (later.trace_id, later.span_id, later.sampled) == (context.trace_id, context.span_id, False)
    assert later.unsampled() is later
    root = recorder.new_root()
    assert root.unsampled() is root


def test_a_task_follows_the_trace_of_another_one(recorder: Recorder) -> None:
    """After `follow` calls and events belong to that trace, and to the layer if one is given."""
    context, other = contextvars.Context(), TraceContext(TRACE, SPAN, False)
    context.run(trace.follow, other, recorder)
    assert context.run(trace.current) is other and context.run(trace.worker) is recorder
    context.run(trace.follow, TraceContext(TRACE, "1" * 16, False))
    assert context.run(trace.worker) is recorder
    assert trace.current() is None
