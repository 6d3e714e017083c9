"""The arbiter's rules, event by event."""

from __future__ import annotations

import pytest

from lamina_hardware.domain.contexts.context import Context, ContextState, Handle
from lamina_hardware.domain.contexts.run_groups import ROOT, RunGroup, Share
from lamina_hardware.engines.interface import Stopped
from lamina_hardware.engines.model.engine import ContextWish, Ended, ModelEngine
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import FailedPrecondition, ResourceExhausted

MS = 1_000_000
BUDGET = int(ExitReason.BUDGET)


def context(engine: ModelEngine, domain: str = "", group: str = ROOT) -> Context:
    """Makes a context."""
    return engine.create_context(ContextWish(group, domain, 0, 0, False, True, "", "me"))


def begin(engine: ModelEngine, made: Context, now: int = 0, budget: int = 0) -> None:
    """Begins a run."""
    engine.begin(engine.idle(made.handle), budget, 0, None, now)


def test_cores_are_given_lowest_first_and_kept() -> None:
    """The first contexts get cores 0 and 1; one that ran goes back to its core."""
    engine = ModelEngine(2, 8)
    first, second = context(engine), context(engine)
    for made in (first, second):
        begin(engine, made)
    one, two = engine.arbiter.grant(0), engine.arbiter.grant(0)
    assert one is not None and two is not None
    assert (one.core, two.core, one.moved) == (0, 1, True)
    assert engine.arbiter.grant(0) is None
    engine.settle(two.run, Stopped(1, 10), MS, MS)
    begin(engine, second, MS)
    again = engine.arbiter.grant(MS)
    assert again is not None
    assert (again.core, again.moved, again.run.wait_ns) == (1, False, 0)


def test_a_domain_waits_for_its_own() -> None:
    """A second context of a domain waits though a core is idle, and others pass it."""
    engine = ModelEngine(2, 8)
    first, second, other = context(engine, "vm"), context(engine, "vm"), context(engine)
    for made in (first, second, other):
        begin(engine, made)
    grants = [engine.arbiter.grant(0) for _ in range(3)]
    assert [grant.run.context if grant else None for grant in grants] == [first, other, None]
    assert grants[0] is not None
    engine.settle(grants[0].run, Stopped(1, 10), MS, MS)
    after = engine.arbiter.grant(MS)
    assert after is not None
    assert (after.run.context, after.run.wait_ns, after.moved) == (second, MS, True)


def test_a_domain_that_moved_must_forget() -> None:
    """A context whose domain ran on another core meanwhile is told that it moved, though its own core is the same."""
    engine = ModelEngine(2, 8)
    first, second, blocker = context(engine, "vm"), context(engine, "vm"), context(engine)
    begin(engine, first)
    grant = engine.arbiter.grant(0)
    assert grant is not None
    engine.settle(grant.run, Stopped(1, 1), 0, 0)
    begin(engine, blocker)
    engine.arbiter.grant(0)
    begin(engine, second)
    grant = engine.arbiter.grant(0)
    assert grant is not None and grant.core == 1
    engine.settle(grant.run, Stopped(1, 1), 0, 0)
    begin(engine, first)
    grant = engine.arbiter.grant(0)
    assert grant is not None
    assert (grant.core, grant.moved) == (1, True)


def test_a_slice_ends_behind_those_who_wait() -> None:
    """A run whose slice is over waits behind the others; its budget ends it for good."""
    engine = ModelEngine(1, 8)
    first, second = context(engine), context(engine)
    begin(engine, first, budget=250)
    begin(engine, second)
    grant = engine.arbiter.grant(0)
    assert grant is not None
    assert engine.work(grant, 100).budget == 100
    assert engine.settle(grant.run, Stopped(BUDGET, 100), MS, MS)[0] is None
    between = engine.arbiter.grant(MS)
    assert between is not None and between.run.context is second
    engine.settle(between.run, Stopped(1, 5), MS, 2 * MS)
    grant = engine.arbiter.grant(2 * MS)
    assert grant is not None
    work = engine.work(grant, 200)
    assert (work.budget, work.consumed) == (250, 100)
    ended, _ = engine.settle(grant.run, Stopped(BUDGET, 248), MS, 3 * MS)
    assert ended is not None
    assert (ended.reason, ended.run.consumed, ended.run.wait_ns) == (BUDGET, 248, MS)
    assert first.state is ContextState.IDLE


def test_throttled_groups_wait_for_their_period() -> None:
    """With a quota used up nothing is granted, and the arbiter says when to ask again."""
    engine = ModelEngine(1, 8)
    engine.groups.create(RunGroup("g", ROOT, Share(), quota_ns=MS, period_ns=10 * MS))
    made = context(engine, group="g")
    begin(engine, made)
    grant = engine.arbiter.grant(0)
    assert grant is not None
    engine.work(grant, 100)
    _, throttled = engine.settle(grant.run, Stopped(BUDGET, 100), 2 * MS, 2 * MS)
    assert [group.name for group in throttled] == ["g"]
    assert engine.arbiter.grant(3 * MS) is None
    assert engine.arbiter.next_period(3 * MS) == 10 * MS
    assert engine.arbiter.grant(10 * MS) is None
    assert engine.arbiter.grant(20 * MS) is not None


def test_cancelling() -> None:
    """A waiting run ends at once, a running one when its core stops, an idle context at its next run."""
    engine = ModelEngine(1, 8)
    first, second = context(engine), context(engine)
    begin(engine, first)
    grant = engine.arbiter.grant(0)
    begin(engine, second)
    assert grant is not None
    waiting = engine.cancel(second, MS)
    assert isinstance(waiting, Ended) and waiting.reason == int(ExitReason.CANCELED)
    assert engine.cancel(first, MS) is grant.run
    ended, _ = engine.settle(grant.run, Stopped(0, 5, paused=True), MS, MS)
    assert ended is not None and ended.reason == int(ExitReason.CANCELED)
    assert engine.cancel(first, MS) is None
    assert engine.begin(engine.idle(first.handle), 0, 0, None, MS).cancelled


def test_handles_go_stale() -> None:
    """A removed context's handle is refused, also when its slot is used again."""
    engine = ModelEngine(1, 1)
    made = context(engine)
    with pytest.raises(ResourceExhausted):
        context(engine)
    engine.remove_context(made)
    again = context(engine)
    assert again.handle == Handle(1, 2)
    assert again.key != made.key
    with pytest.raises(FailedPrecondition):
        engine.contexts.get(made.handle)
    with pytest.raises(FailedPrecondition):
        engine.contexts.get(Handle(-1, 1))
