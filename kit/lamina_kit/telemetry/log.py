"""Logging: structlog, one line an event, on standard error.

`logger("mmu")` is what a layer logs with; `configure` is called by the shell, again when the configuration changes: it
holds for loggers made before. Events are named `noun.verb`; values go into keys, not into the sentence. Each line
carries the layer and the host that the work is done for, and the trace id of the work; a logger of a part of a layer
(`logger("session")`) is named in `part` then.

As JSON every line is one object with at least `event`, `level`, `layer`, `host`, `trace_id` and, in real time, `time`;
a traceback is the text of one key.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

from lamina_kit.telemetry import trace

# structlog draws tracebacks in colour where rich is installed, and imports it for that (60 ms, 5 MB). Our lines are
# plain with it and without it.
_RICH = "rich" not in sys.modules
if _RICH:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that a module cannot be imported
try:
    import structlog
finally:
    if _RICH:
        del sys.modules["rich"]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("console", "json")
Event = MutableMapping[str, Any]


def configure(
    *,
    json: bool = False,
    level: str = "info",
    stream: TextIO | None = None,
    wall_ns: Callable[[], int] | None = None,
    layer: str = "",
    host: str = "",
) -> None:
    """Sets up logging of the process: text for people or one JSON object a line, from `level` up.

    `wall_ns` gives the time on each line in Unix nanoseconds; without it lines have none, as tests like them. `layer`
    and `host` stand on lines of a process that serves one layer, where the work itself names none. Log records of other
    libraries go to the same place from `warning` up.
    """
    target = stream or sys.stderr
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _work(layer, host, complete=json),
    ]
    if wall_ns is not None:
        chain.append(_add_time(wall_ns))
    if json:
        chain.append(structlog.processors.format_exc_info)
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if json
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _configure_others(target, chain, renderer if json else None)


def logger(layer: str) -> Any:
    """Returns the logger of a layer, or of a part of it when bound further."""
    return structlog.get_logger(layer=layer)


def _configure_others(target: TextIO, chain: list[Any], renderer: Any) -> None:
    """Has log records of other libraries rendered as our own lines, or as plain text without a `renderer`."""
    logging.basicConfig(stream=target, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True)
    if renderer is None:
        return
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*chain, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)


def _work(layer: str, host: str, *, complete: bool) -> Callable[[Any, str, Event], Event]:
    """Returns what adds for whom and in which trace the work is done; `complete` lines have all keys."""

    def add(_logger: Any, _method: str, event: Event) -> Event:
        worker = trace.worker()
        known, at = (layer, host) if worker is None else (worker.layer, worker.host or host)
        if known and event.get("layer", known) != known:
            event["part"] = event["layer"]
        event["layer"] = known or event.get("layer", "")
        if at or complete:
            event.setdefault("host", at)
        current = trace.current()
        if current is not None or complete:
            event["trace_id"] = current.trace_id if current is not None else ""
        return event

    return add


def _add_time(wall_ns: Callable[[], int]) -> Callable[[Any, str, Event], Event]:
    from datetime import UTC, datetime

    def add(_logger: Any, _method: str, event: Event) -> Event:
        seconds, ns = divmod(wall_ns(), 10**9)
        event["time"] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"
        return event

    return add
