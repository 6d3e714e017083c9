"""The event log and its decisions."""

from __future__ import annotations

import contextvars
import json
from typing import Any

import pytest

from lamina_kit.clock import RealClock
from lamina_kit.rng import Rng
from lamina_kit.telemetry import trace
from lamina_kit.telemetry.events import MOST_TOLD, EventLog


@pytest.fixture
def log(manual_clock: Any) -> EventLog:
    """Returns an empty log on a clock that stands still."""
    return EventLog("mmu", "h1", manual_clock)


def test_events_are_numbered_and_ordered(log: EventLog) -> None:
    """Positions count from 1 without gaps; inputs are text, ordered by key."""
    log.record("hosts/h1/spaces/s", "page.evicted", cause="hosts/h1/vms/v", zeta=1, alpha="x")
    entry = log.record("hosts/h1/spaces/t", "page.mapped")
    assert entry.sequence == 2
    first = log.list()[0]
    assert (first.sequence, first.host, first.layer, first.cause) == (1, "h1", "mmu", "hosts/h1/vms/v")
    assert first.inputs == (("alpha", "x"), ("zeta", "1"))


def test_the_same_inputs_are_kept_once(log: EventLog) -> None:
    """Events that say the same share it, others do not, and what is remembered for that is bounded."""
    first, second = (log.record("o", "page.faulted", outcome="copied", access="write") for _ in range(2))
    assert first.inputs is second.inputs and first.inputs == (("access", "write"), ("outcome", "copied"))
    for number in range(2 * MOST_TOLD):
        assert log.record("o", "e", number=number).inputs == (("number", str(number)),)
    assert len(log._told) <= MOST_TOLD


async def test_time_is_the_clock_s(log: EventLog, manual_clock: Any) -> None:
    """An event has the stack's time at which it was recorded."""
    await manual_clock.advance(1234)
    assert log.record("o", "e").time_ns == 1234


def test_the_ids_of_a_trace_are_made_for_who_looks(log: EventLog, manual_clock: Any) -> None:
    """Events name the trace of their call; its ids are made when somebody reads them, and are always the same."""
    made: list[int] = []

    class Counting(trace.Recorder):
        def ids_of_root(self, number: int) -> tuple[str, str]:
            made.append(number)
            return super().ids_of_root(number)

    def one_call(recorder: trace.Recorder) -> None:
        trace.enter(recorder.new_root(), recorder)
        log.record("o", "e")
        log.record("o", "e", cause="hosts/h1/vms/v")

    recorder = Counting("mmu", manual_clock, Rng(1), trace.SpanRing())
    for _ in range(2):
        contextvars.copy_context().run(one_call, recorder)
    assert made == []
    first, named, second, _ = log.list()
    same = trace.Recorder("mmu", manual_clock, Rng(1), trace.SpanRing())
    assert [second.cause, first.cause] == [same.ids_of_root(2)[0], same.ids_of_root(1)[0]]
    assert named.cause == "hosts/h1/vms/v" and json.loads(first.json_line())["cause"] == first.cause
    assert made == [2, 1]
    with trace.begin("demo", recorder) as root:
        assert log.record("o", "e").origin == root.trace_id


def test_events_are_listed_by_object_and_page(log: EventLog) -> None:
    """`after` and `limit` page through one object or all."""
    for number in range(10):
        log.record(f"o{number % 2}", "e", number=number)
    assert [entry.sequence for entry in log.list(after=3, limit=3)] == [4, 5, 6]
    assert [entry.sequence for entry in log.list("o1", limit=2)] == [2, 4]
    assert log.list(after=10) == []


def test_decisions_are_the_entries_with_a_rule(log: EventLog) -> None:
    """The newest decision about an object comes first."""
    log.record("o", "victim.chosen", rule="lru", frame=1)
    log.record("o", "page.mapped")
    log.record("other", "victim.chosen", rule="lru")
    log.record("o", "victim.chosen", rule="second-chance", frame=2)
    assert [entry.rule for entry in log.decisions("o")] == ["second-chance", "lru"]
    assert len(log.decisions("o", limit=1)) == 1 and log.decisions("nobody") == []


def test_old_events_are_lost(manual_clock: Any) -> None:
    """The log is bounded; positions go on counting."""
    log = EventLog("mmu", "h1", manual_clock, limit=3)
    for _ in range(10):
        log.record("o", "e")
    assert len(log) == 3
    assert [entry.sequence for entry in log.list()] == [8, 9, 10]


def test_the_export_is_the_same_bytes(log: EventLog) -> None:
    """One JSON object a line, keys in one order, and nothing that depends on the process."""
    log.record("o", "e", rule="r", b=1, a="ü")
    line = log.json_lines()
    assert line.endswith("\n") and line.isascii()
    assert list(json.loads(line)) == [
        "sequence", "time_ns", "host", "layer", "object", "event", "cause", "rule", "inputs",
    ]  # fmt: skip
    assert json.loads(line)["inputs"] == {"a": "ü", "b": "1"}


def test_a_sink_sees_each_event_as_it_happens(log: EventLog) -> None:
    """One sink for several logs gets their events in the order in which they happen."""
    other = EventLog("vswitch", "h1", RealClock())
    seen: list[tuple[str, str]] = []
    for each in (log, other):
        each.sink = lambda entry: seen.append((entry.layer, entry.object))
    log.record("a", "e")
    other.record("b", "e")
    log.record("c", "e")
    assert seen == [("mmu", "a"), ("vswitch", "b"), ("mmu", "c")]
