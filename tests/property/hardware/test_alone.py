"""A run that nobody waits beside takes a short way; what it leaves behind is what arbitration would."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest

from lamina_hardware.domain.contexts.arbiter import Run
from lamina_hardware.domain.contexts.context import Context, ContextState
from lamina_hardware.domain.contexts.run_groups import ROOT, Change, RunGroup, Share
from lamina_hardware.engines.interface import Stopped
from lamina_hardware.engines.model.engine import ContextWish, ModelEngine
from lamina_kit.bus.run_page import ExitReason

CORES, SLICE = 2, 1000
BUDGET = int(ExitReason.BUDGET)
REASONS = (int(ExitReason.SYSCALL), int(ExitReason.IO), int(ExitReason.IO), BUDGET)


class World:
    """An engine with groups and contexts, driven as the dispatcher drives it; `short` lets runs go the short way."""

    def __init__(self, seed: int, short: bool) -> None:
        rng = random.Random(seed)
        self.short, self.taken = short, 0
        self.engine = ModelEngine(CORES, 8)
        names = [ROOT]
        for n in range(4):
            cores = frozenset({rng.randrange(CORES)}) if n == 2 else frozenset()
            quota = 50_000 if n == 3 else 0
            group = RunGroup(f"g{n}", rng.choice(names), Share(rng.choice((50, 100, 300))), quota_ns=quota, cores=cores)
            names.append(self.engine.groups.create(group).name)
        self.contexts = [
            self.engine.create_context(ContextWish(rng.choice(names), domain, 0, 0, False, True, "", ""))
            for domain in ("", "", "vm", "vm")
        ]
        self.ends: list[tuple[int, int, int, int, int]] = []
        self.slices: list[tuple[int, int, bool]] = []

    def begin(self, context: Context, budget: int, stopped: Stopped, now: int, took: int) -> None:
        """Begins a run, whose first slice, if it gets a core now, stops so."""
        engine = self.engine
        if self.short and engine.is_alone(context):
            self.taken += 1
            run = Run(context, budget, 0, None, 0, now)
            work = engine.begin_alone(run, SLICE, now)
            assert (work.context, work.run_page, work.consumed) == (context.key, context.run_page, 0)
            assert work.budget == (budget if 0 < budget <= SLICE else SLICE)
            self.slices.append((work.context, run.core, work.moved))
            ended = engine.end_alone(run, stopped, took, now + took)
            if ended is None:
                self._settle(run, stopped, now + took, took)
            else:
                self._end(run, ended.reason)
        else:
            engine.begin(context, budget, 0, None, now)
            self.go_on(stopped, now, took)

    def change(self, seed: int, now: int) -> None:
        """Changes a group, where a context belongs, or whether a core is there; or wakes a context."""
        rng, engine = random.Random(seed), self.engine
        group, context = f"g{rng.randrange(4)}", rng.choice(self.contexts)
        what = rng.randrange(5)
        if what == 0:
            engine.groups.update(group, Change(quota_ns=rng.choice((0, 0, 50_000)), period_ns=1_000_000), now)
        elif what == 1:
            cores = rng.choice((frozenset[int](), frozenset[int](), frozenset({0})))
            engine.groups.update(group, Change(weight=rng.choice((1, 100, 700)), cores=cores), now)
        elif what == 2 and context.state is ContextState.IDLE:
            engine.arbiter.leave(context)
            context.group, context.domain = group, engine.domain_key("", rng.choice(("", "vm")), context.key)
            engine.arbiter.join(context)
        elif what == 3:
            core, lost = rng.randrange(CORES), engine.arbiter.lost
            lost[core] = not any(lost)
        elif what == 4 and context.state is ContextState.HALTED:
            run = engine.arbiter.find(context)
            assert run is not None
            engine.arbiter.wake(run, now)

    def go_on(self, stopped: Stopped, now: int, took: int) -> None:
        """Grants a core to whoever waits, and lets it stop so."""
        grant = self.engine.arbiter.grant(now)
        if grant is not None:
            work = self.engine.work(grant, SLICE)
            self.slices.append((work.context, grant.core, work.moved))
            done = grant.run.consumed + stopped.instructions
            more = Stopped(stopped.reason, done, stopped.paused, stopped.asleep)
            self._settle(grant.run, more, now + took, took)

    def _settle(self, run: Run, stopped: Stopped, now: int, took: int) -> None:
        ended, _ = self.engine.settle(run, stopped, took, now)
        if ended is not None:
            self._end(run, ended.reason)

    def _end(self, run: Run, reason: int) -> None:
        self.ends.append((run.context.key, reason, run.consumed, run.run_ns, run.core))

    def state(self, now: int) -> list[Any]:
        """Returns everything that the engine accounts for."""
        engine = self.engine
        groups = [
            {name: value.read(now) if name == "pressure" else value for name, value in asdict(group).items()}
            for group in (engine.groups.get(ROOT), *engine.groups.entries())
        ]
        contexts = [(one.state, one.last_core, one.exited, one.counts) for one in self.contexts]
        return [groups, contexts, engine.core_counts, self.ends, self.slices]


@pytest.mark.parametrize("seed", range(12))
def test_the_short_way_leaves_the_same(seed: int) -> None:
    """Random runs in a random tree of groups that changes: every account is the same with and without the short way."""
    rng = random.Random(seed)
    worlds = [World(seed, False), World(seed, True)]
    now = 0
    for turn in range(301):
        now += rng.randrange(20_000)
        took = rng.randrange(5_000)
        how = rng.random()
        stopped = Stopped(rng.choice(REASONS), rng.randrange(1, SLICE), paused=how < 0.1, asleep=0.1 < how < 0.15)
        change = rng.randrange(1, 1 << 30) if rng.random() < 0.3 else 0
        budget = rng.choice((0, 0, SLICE // 2, 5 * SLICE))
        idle = [n for n, one in enumerate(worlds[0].contexts) if one.state is ContextState.IDLE]
        waits = worlds[0].engine.arbiter.others_wait()
        who = rng.choice(idle) if idle and rng.random() < (0.2 if waits else 1) else -1
        for world in worlds:
            if change:
                world.change(change, now)
            if who >= 0:
                world.begin(world.contexts[who], budget, stopped, now, took)
            else:
                world.go_on(stopped, now, took)
        now += took
        if turn % 10 == 0:
            assert worlds[0].state(now) == worlds[1].state(now)
    assert len(worlds[0].ends) > 30
    assert worlds[1].taken > 2
