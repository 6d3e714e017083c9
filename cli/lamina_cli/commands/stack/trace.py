"""`lamina trace`: prints a recorded trace as a tree, or lists the traces that are recorded."""

from __future__ import annotations

import argparse

from lamina_cli.client import span_tree
from lamina_cli.client.client import Client, command
from lamina_cli.output import printing
from lamina_kit.errors import NotFound


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("trace_id", nargs="?", default="", help="the trace; without it, traces are listed")
    command(parser, trace, lists=True)


async def trace(client: Client, args: argparse.Namespace) -> None:
    """Prints a trace, or lists all."""
    spans = await span_tree.collect(client, args.trace_id)
    if args.trace_id and not spans:
        raise NotFound(
            f"no layer recorded spans of trace {args.trace_id}",
            reason="TRACE_UNKNOWN",
            next_step="record one with `--trace` on any command, and list what there is with `lamina trace`",
        )
    if args.output == "json":
        printing.as_json(spans)
        return
    if args.trace_id:
        print("\n".join(span_tree.draw(spans)))
        return
    by_trace: dict[str, list[object]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    printing.table(
        ("TRACE", "SPANS", "LAYERS", "FIRST"),
        (
            (trace_id, len(group), ",".join(span_tree.layers_of(group)), group[0].name)  # type: ignore[arg-type,attr-defined]
            for trace_id, group in by_trace.items()
        ),
    )
