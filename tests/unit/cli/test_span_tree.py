"""Traces as trees."""

from __future__ import annotations

from lamina.common.v1 import layer_pb2

from lamina_cli.client import span_tree


def make_span(span_id: str, parent: str, layer: str, name: str, start: int = 0) -> layer_pb2.Span:
    """Returns a span of 1 µs."""
    return layer_pb2.Span(
        trace_id="1" * 32,
        span_id=span_id,
        parent_span_id=parent,
        layer=layer,
        name=name,
        start_time_ns=start,
        duration_ns=1000,
        status="OK",
    )


def test_children_hang_below_their_parents() -> None:
    """Each span stands below its parent, deeper by one step, the last one with the closing branch."""
    lines = span_tree.draw(
        [
            make_span("a", "", "orchestrator", "apply"),
            make_span("b", "a", "mmu", "fault"),
            make_span("c", "b", "hardware", "shootdown"),
            make_span("d", "a", "mmu", "map"),
        ]
    )
    assert lines == [
        "orchestrator  apply  1.0 µs",
        "├─ mmu  fault  1.0 µs",
        "│  └─ hardware  shootdown  1.0 µs",
        "└─ mmu  map  1.0 µs",
    ]


def test_a_span_whose_parent_was_lost_is_a_root() -> None:
    """A span with an unknown parent is drawn, not dropped."""
    assert span_tree.draw([make_span("b", "gone", "mmu", "fault")]) == ["mmu  fault  1.0 µs"]


def test_many_alike_are_counted() -> None:
    """Of many siblings of one name three are drawn and the others are counted."""
    spans = [make_span("root", "", "runtime", "start")]
    spans += [make_span(f"c{number}", "root", "mmu", "fault") for number in range(10)]
    lines = span_tree.draw(spans)
    assert len(lines) == 5
    assert lines[-1] == "└─ … and 7 more calls of these kinds, 7.0 µs"


def test_layers_are_listed_in_the_order_of_their_ports() -> None:
    """The layers that took part are named once each, bottom up."""
    spans = [make_span("a", "", "orchestrator", "x"), make_span("b", "a", "mmu", "y"), make_span("c", "a", "mmu", "z")]
    assert span_tree.layers_of(spans) == ["mmu", "orchestrator"]
