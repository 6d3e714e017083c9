"""A recorded trace as a tree of spans across the layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamina_cli.client.home import LAYERS
from lamina_cli.output.printing import duration

if TYPE_CHECKING:
    from lamina.common.v1 import layer_pb2

    from lamina_cli.client.client import Client

MOST_ALIKE = 3
"""So many siblings of one name are drawn; the rest is counted in one line."""


async def collect(client: Client, trace_id: str) -> list[layer_pb2.Span]:
    """Returns the spans that the layers recorded of a trace (of all traces if `trace_id` is empty), by start."""
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc

    spans: list[layer_pb2.Span] = []
    for at, layer in itertools.product(client.everywhere(), LAYERS):
        stub = at.stub(layer, layer_pb2_grpc.LayerStub)
        spans += (await stub.ListSpans(layer_pb2.ListSpansRequest(trace_id=trace_id))).spans
    unique = {span.span_id: span for span in spans}
    return sorted(unique.values(), key=lambda span: (span.start_time_ns, span.layer, span.span_id))


def draw(spans: Iterable[layer_pb2.Span]) -> list[str]:
    """Returns the lines of the tree; a span whose parent is not among them is a root."""
    ordered = list(spans)
    known = {span.span_id for span in ordered}
    children: dict[str, list[layer_pb2.Span]] = {}
    for span in ordered:
        parent = span.parent_span_id if span.parent_span_id in known else ""
        children.setdefault(parent, []).append(span)
    lines: list[str] = []
    _draw(children, "", "", lines)
    return lines


def _draw(children: dict[str, list[layer_pb2.Span]], parent: str, indent: str, lines: list[str]) -> None:
    shown, hidden = _thin(children.get(parent, []))
    for position, span in enumerate(shown):
        final = position == len(shown) - 1 and not hidden
        root = not parent
        branch = "" if root else ("└─ " if final else "├─ ")
        status = "" if span.status == "OK" else f"  {span.status}"
        about = "  ".join(f"{item.key}={item.value}" for item in span.attributes)
        lines.append(
            f"{indent}{branch}{span.layer}  {span.name}  {duration(span.duration_ns)}{status}"
            + (f"  {about}" if about else "")
        )
        _draw(children, span.span_id, indent if root else indent + ("   " if final else "│  "), lines)
    if hidden:
        total = sum(span.duration_ns for span in hidden)
        lines.append(f"{indent}└─ … and {len(hidden)} more calls of these kinds, {duration(total)}")


def _thin(spans: list[layer_pb2.Span]) -> tuple[list[layer_pb2.Span], list[layer_pb2.Span]]:
    seen: dict[tuple[str, str], int] = {}
    shown: list[layer_pb2.Span] = []
    hidden: list[layer_pb2.Span] = []
    for span in spans:
        key = (span.layer, span.name)
        seen[key] = seen.get(key, 0) + 1
        (shown if seen[key] <= MOST_ALIKE else hidden).append(span)
    return shown, hidden


def layers_of(spans: Iterable[layer_pb2.Span]) -> list[str]:
    """Returns the layers that took part, in the order of their ports."""
    took_part = {span.layer for span in spans}
    return [layer for layer in LAYERS if layer in took_part]
