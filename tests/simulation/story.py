"""The demo in virtual time, told in a process of its own: what it wrote down, and how its causes are followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIMIT_S = 110


def demo(log: Path, seed: int, environ: Mapping[str, str] | None = None, *words: str) -> bytes:
    """Tells the story in virtual time; every check has to hold. Returns the event log."""
    options = ("--clock", "virtual", "--seed", str(seed), "--event-log", str(log))
    done = subprocess.run(
        [sys.executable, "-m", "lamina_cli.main", "demo", *options, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, **(environ or {})},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "✗" not in done.stdout
    return log.read_bytes()


class History:
    """An event log that is read along its causes.

    A cause is the name of an object or a trace id. A name leads to what happened to that object at the same instant
    (before the event, if something did), or else to what last happened to it. A trace id leads to the step that says
    that it began this trace; without one the trace is the caller's, and the chain ends.
    """

    def __init__(self, log: bytes) -> None:
        self.events: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
        self._steps: dict[str, int] = {
            e["inputs"]["trace"]: at for at, e in reversed(list(enumerate(self.events))) if is_step(e)
        }

    def of(self, layer: str, event: str = "") -> list[int]:
        """Returns the positions of a layer's events, or of those of one kind."""
        return [at for at, e in enumerate(self.events) if e["layer"] == layer and event in ("", e["event"])]

    def chain(self, at: int) -> list[dict[str, Any]]:
        """Returns an event, what caused it, what caused that, and so on; none stands there twice."""
        seen: dict[int, None] = {}
        while at >= 0 and at not in seen:
            seen[at] = None
            at = self._cause(at)
        return [self.events[position] for position in seen]

    def _cause(self, at: int) -> int:
        event = self.events[at]
        if event["cause"] in self._steps:
            return self._steps[event["cause"]]
        about = [position for position, other in enumerate(self.events) if other["object"] == event["cause"]]
        before = [position for position in about if position < at]
        if before and self.events[before[-1]]["time_ns"] == event["time_ns"]:
            return before[-1]
        meanwhile = [p for p in about if p > at and self.events[p]["time_ns"] == event["time_ns"]]
        if meanwhile and event["cause"] != event["object"]:
            return meanwhile[0]
        return before[-1] if before else -1


def is_step(event: Mapping[str, Any]) -> bool:
    """Whether an event says that a step of the orchestrator began, and under which trace."""
    return (event["layer"], event["event"]) == ("orchestrator", "step.begun")
