"""Logging: structlog, one line an event, on standard error.

`logger("mmu")` is what a layer logs with; `configure` is called once by the shell. Each line carries the layer and the
trace id of the work it belongs to. Events are named `noun.verb`; values go into keys, not into the sentence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

import structlog

from lamina_kit import trace


def configure(
    *,
    json: bool = False,
    level: str = "info",
    stream: TextIO | None = None,
    wall_ns: Callable[[], int] | None = None,
) -> None:
    """Sets up logging of the process: text for people or one JSON object a line, from `level` up.

    `wall_ns` gives the time on each line in Unix nanoseconds; without it lines have none, as tests like them. Log
    records of other libraries go to the same place from `warning` up.
    """
    target = stream or sys.stderr
    renderer = (
        structlog.processors.JSONRenderer(sort_keys=True) if json else structlog.dev.ConsoleRenderer(colors=False)
    )
    chain: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _add_trace]
    if wall_ns is not None:
        chain.append(_add_time(wall_ns))
    if json:
        chain.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=target, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True)


def logger(layer: str) -> Any:
    """Returns the logger of a layer, or of a part of it when bound further."""
    return structlog.get_logger().bind(layer=layer)


def _add_trace(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    current = trace.current()
    if current is not None:
        event["trace_id"] = current.trace_id
    return event


def _add_time(wall_ns: Callable[[], int]) -> Callable[[Any, str, dict[str, Any]], dict[str, Any]]:
    from datetime import UTC, datetime

    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        seconds, ns = divmod(wall_ns(), 10**9)
        event["time"] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"
        return event

    return add
