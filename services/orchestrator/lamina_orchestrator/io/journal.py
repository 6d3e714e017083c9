"""Where the engine's decisions and spans go: the layer's event log and its span ring."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lamina_kit.layer.state import LayerState
from lamina_kit.telemetry import trace
from lamina_orchestrator.domain.kinds.plain_object import Key


class LayerJournal:
    """A journal over the state of the layer; see `interface.Journal`."""

    def __init__(self, layer: LayerState) -> None:
        self._layer = layer

    def request(self) -> str:
        """The trace of the call that is being served now; empty outside a call."""
        context = trace.current()
        return context.trace_id if context is not None else ""

    def note(self, key: Key, event: str, cause: str, inputs: dict[str, Any]) -> None:
        """Records what happened to an object."""
        self._layer.events.record(key.resource_name, event, cause=cause, **inputs)

    def decide(self, key: Key, event: str, rule: str, cause: str, inputs: dict[str, Any]) -> None:
        """Records a decision about an object."""
        self._layer.events.record(key.resource_name, event, cause=cause, rule=rule, **inputs)

    def span(self, traceparent: str, name: str, **attributes: object) -> AbstractContextManager[object]:
        """A span of the trace that an object names, if that is sampled."""
        context = trace.parse(traceparent) if traceparent else None
        if context is None or not context.sampled:
            return nullcontext()
        return trace.Span(self._layer.recorder, context, name, dict(attributes))
