"""The ordered event log of a layer, and the decisions in it.

Every layer writes what happens to its objects into one log: position, time, object, event, cause. A *decision* (victim
page, output port, node chosen …) also names the rule and the inputs that decided it; `Explain` returns those. The same
seed and configuration give the same log, byte for byte, so `json_lines` is what two runs are compared by.
"""

from __future__ import annotations

import builtins
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from lamina_kit.clock import Clock
from lamina_kit.telemetry import trace

MAX_EVENTS = 50_000
MOST_TOLD = 1024
"""Inputs of events that are remembered, to be kept once: most events of a busy layer say the same."""


@dataclass(slots=True)
class EventRecord:
    """One entry. `sequence` counts from 1 without gaps; `time_ns` is since the stack's start; inputs ordered by key.

    Nobody changes one; it is not frozen because that would cost more than all else of making it. `origin` is the cause,
    or the trace that is the cause: the ids of most traces are never looked at, and making them costs as much as a call.
    """

    sequence: int
    time_ns: int
    host: str
    layer: str
    object: str
    event: str
    origin: str | trace.TraceContext
    rule: str
    inputs: tuple[tuple[str, str], ...]

    @property
    def cause(self) -> str:
        """Returns what led to it: the name of an object, or a trace id; empty when nothing is known."""
        origin = self.origin
        return origin if isinstance(origin, str) else origin.trace_id

    def json_line(self) -> str:
        """Returns the entry as one JSON object and a line end, keys in one fixed order, ASCII only."""
        return (
            json.dumps(
                {
                    "sequence": self.sequence,
                    "time_ns": self.time_ns,
                    "host": self.host,
                    "layer": self.layer,
                    "object": self.object,
                    "event": self.event,
                    "cause": self.cause,
                    "rule": self.rule,
                    "inputs": dict(self.inputs),
                },
                ensure_ascii=True,
                separators=(",", ":"),
            )
            + "\n"
        )


class EventLog:
    """The latest 50,000 events, and as many decisions, of one layer on one host. `sink`, when set, is given each one.

    The composer sets one sink for all layers of a stack: it sees their events in the order in which they happen.
    """

    def __init__(
        self,
        layer: str,
        host: str,
        clock: Clock,
        limit: int = MAX_EVENTS,
        sink: Callable[[EventRecord], None] | None = None,
    ) -> None:
        self.sink = sink
        self._layer = layer
        self._host = host
        self._clock = clock
        self._events: deque[EventRecord] = deque(maxlen=limit)
        self._decisions: deque[EventRecord] = deque(maxlen=limit)  # kept apart: details must not push them out
        self._sequence = 0
        self._told: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
        self.counts: dict[str, int] = {}
        """How many entries of each kind there were, the forgotten ones among them. Kinds are words of the code: few."""

    def __len__(self) -> int:
        return len(self._events)

    def record(self, object: str, event: str, *, cause: str = "", rule: str = "", **inputs: object) -> EventRecord:
        """Appends what happened to `object` (a resource name): `event` as `noun.verb`, for example `page.evicted`.

        `cause` names the object or trace that led to it; without one it is the trace of the call that is being served,
        if any. With a `rule` the entry is a decision, and `inputs` are what
        decided; without, they are details. Inputs are kept as text: give integers and names, not floats or sets.
        """
        origin: str | trace.TraceContext = cause
        if not cause and (context := trace.current()) is not None:
            origin = context.origin
        self._sequence += 1
        told = self._told_once(inputs) if inputs else ()
        entry = EventRecord(
            self._sequence, self._clock.now_ns(), self._host, self._layer, object, event, origin, rule, told
        )
        self.counts[event] = self.counts.get(event, 0) + 1
        self._events.append(entry)
        if rule:
            self._decisions.append(entry)
        if self.sink is not None:
            self.sink(entry)
        return entry

    def _told_once(self, inputs: dict[str, object]) -> tuple[tuple[str, str], ...]:
        """Returns inputs as text by key; what was told lately is not kept twice, nor looked at by the collector."""
        told = tuple(sorted(zip(inputs, map(str, inputs.values()), strict=True)))
        told = self._told.setdefault(told, told)
        if len(self._told) > MOST_TOLD:
            self._told.clear()
        return told

    def decisions(self, object: str, limit: int = 20) -> builtins.list[EventRecord]:
        """Returns up to `limit` decisions about `object`, newest first."""
        chosen = (entry for entry in reversed(self._decisions) if entry.object == object)
        return builtins.list(islice(chosen, limit))

    def list(self, object: str = "", *, after: int = 0, limit: int = 100) -> builtins.list[EventRecord]:
        """Returns up to `limit` events behind position `after`, oldest first; of one object, or of all."""
        chosen = (entry for entry in self._events if entry.sequence > after and (not object or entry.object == object))
        return builtins.list(islice(chosen, limit))

    def json_lines(self) -> str:
        """Returns the log as one JSON object a line."""
        return "".join(entry.json_line() for entry in self._events)
