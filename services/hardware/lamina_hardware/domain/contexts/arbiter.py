"""Who gets a core. Pure: events in (a run begins, a core stopped, time passes), decisions out (grants).

Rules, in their order:
 1. A context whose coherence domain has another one running waits: LOCK holds within one emulator only.
 2. A group that used up its quota waits for its next period; a core outside a group's set is no core for it.
 3. Of the rest, the group that is furthest behind its share runs next; within a group, who waits longest.
 4. A context goes back to the core that it had last when that one is idle: its translations may still be there.
A grant lasts one slice at most; then whoever is next by rule 3 has the core, often the same context.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_hardware.domain.contexts.context import Context, ContextState, Observer
from lamina_hardware.domain.contexts.run_groups import RunGroup, RunGroups


@dataclass(slots=True, eq=False)
class Run:
    """One run in progress. `budget` 0 means none. Times in nanoseconds; `ready_since` is when it began to wait.

    `final` says that the grant in progress reaches to the end of the budget, not only of a slice. `waits` says that its
    groups know that it waits: one that gets a core at once never does.
    """

    context: Context
    budget: int
    sequence: int
    tag: object
    order: int
    ready_since: int
    consumed: int = 0
    run_ns: int = 0
    wait_ns: int = 0
    wait_charged: int = 0
    core: int = -1
    final: bool = False
    cancelled: bool = False
    waits: bool = False
    observer: Observer | None = None


@dataclass(slots=True)
class Grant:  # not frozen, which would cost as much as the rest of a grant
    """A core for a run. `moved` as in `CoreRun`; `migrated` says that its context ran on another core before."""

    run: Run
    core: int
    moved: bool
    migrated: bool = False


class Arbiter:
    """The ready runs, the idle cores and the domains of one host."""

    def __init__(self, cores: int, groups: RunGroups) -> None:
        self.groups = groups
        self.running: list[Run | None] = [None] * cores
        self.lost: list[bool] = [False] * cores
        self._ready: list[Run] = []
        self._halted: dict[int, Run] = {}
        self._order = 0
        self._domain_core: dict[str, int] = {}
        self._domain_busy: dict[str, int] = {}
        self._domain_size: dict[str, int] = {}

    def join(self, context: Context) -> None:
        """Counts a new context in its domain and group."""
        self._domain_size[context.domain] = self._domain_size.get(context.domain, 0) + 1
        self.groups.get(context.group).contexts += 1

    def leave(self, context: Context) -> None:
        """Forgets a context that is gone."""
        self.groups.get(context.group).contexts -= 1
        self._domain_size[context.domain] -= 1
        if not self._domain_size[context.domain]:
            del self._domain_size[context.domain]
            self._domain_core.pop(context.domain, None)

    def begin(self, context: Context, budget: int, sequence: int, tag: object, now: int) -> Run:
        """Makes a context ready to run."""
        self._order += 1
        run = Run(context, budget, sequence, tag, self._order, now)
        context.state = ContextState.READY
        self._ready.append(run)
        self.groups.activate(context.group)
        return run

    def is_free(self, context: Context) -> bool:
        """Returns whether a context that began now had the core that it had last at once, and nobody else wants one."""
        core = context.last_core
        if self._ready or core < 0 or self.running[core] is not None or self.lost[core]:
            return False
        domain = context.domain
        if domain in self._domain_busy or self._domain_core.get(domain) != core:
            return False
        return self.groups.is_free(context.group)

    def adopt(self, run: Run, now: int) -> None:
        """Takes a run that began, as `is_free` says it could, on the core that its context had last."""
        context = run.context
        self.groups.activate(context.group)
        self.groups.note_alone(context.group)
        self.groups.moved(context.group, 0, 1, now)
        run.core = self._domain_busy[context.domain] = context.last_core
        self.running[run.core] = run
        context.state = ContextState.RUNNING

    def grant(self, now: int) -> Grant | None:
        """Gives one idle core to the run that is next; None when nothing can run."""
        if not self._ready:
            return None
        idle = [core for core, run in enumerate(self.running) if run is None and not self.lost[core]]
        eligible = [run for run in self._ready if self._may_run(run, idle, now)] if idle else []
        if not eligible:
            self._note_waiting(now)
            return None
        if len(eligible) == 1:
            self.groups.note_alone(eligible[0].context.group)
            return self._take(eligible[0], self._core_for(eligible[0].context, idle), now)
        ready: dict[str, int] = {}
        for run in eligible:
            ready[run.context.group] = ready.get(run.context.group, 0) + 1
        group = self.groups.next_of(ready)
        chosen = min((run for run in eligible if run.context.group == group), key=lambda run: run.order)
        return self._take(chosen, self._core_for(chosen.context, idle), now)

    def settle(self, run: Run, consumed: int, run_ns: int, now: int) -> list[RunGroup]:
        """Takes a core back from a run and charges its time; returns the groups that this throttled."""
        self.running[run.core] = None
        context = run.context
        del self._domain_busy[context.domain]
        context.counts.instructions += consumed - run.consumed
        context.counts.run_time_ns += run_ns
        instructions = consumed - run.consumed
        self.groups.moved(context.group, 0, -1, now)
        run.consumed = consumed
        run.run_ns += run_ns
        return self.groups.charge(context.group, run_ns, now, instructions)

    def requeue(self, run: Run, now: int) -> None:
        """Lets a run that was stopped for others, or for its slice, wait again, behind those that wait already."""
        self._order += 1
        run.order = self._order
        run.ready_since = now
        run.context.state = ContextState.READY
        self._ready.append(run)

    def halt(self, run: Run) -> None:
        """Lets a run sleep that has no core; it takes part in nothing until `wake`."""
        run.context.state = ContextState.HALTED
        self._halted[run.context.key] = run
        self.groups.deactivate(run.context.group)

    def wake(self, run: Run, now: int) -> None:
        """Lets a run that sleeps wait for a core."""
        del self._halted[run.context.key]
        self.groups.activate(run.context.group)
        self.requeue(run, now)

    def end(self, run: Run, now: int) -> None:
        """Ends a run, wherever it is but on a core."""
        if run in self._ready:
            self._ready.remove(run)
            self._waited(run, now)
            if run.waits:
                run.waits = False
                self.groups.moved(run.context.group, -1, 0, now)
        if self._halted.pop(run.context.key, None) is None:
            self.groups.deactivate(run.context.group)
        run.context.state = ContextState.IDLE

    def find(self, context: Context) -> Run | None:
        """Returns the run of a context, waiting, asleep or on a core."""
        if context.state is ContextState.HALTED:
            return self._halted[context.key]
        if context.state is ContextState.RUNNING:
            return next(run for run in self.running if run is not None and run.context is context)
        return next((run for run in self._ready if run.context is context), None)

    def others_wait(self) -> bool:
        """Returns whether any run waits."""
        return bool(self._ready)

    def next_period(self, now: int) -> int | None:
        """Returns when the first throttled group with a waiting run may go on; None when none is."""
        found = [self.groups.throttled(run.context.group, now) for run in self._ready]
        return min((group.window_start + group.period_ns for group in found if group is not None), default=None)

    def misplaced(self) -> list[int]:
        """Returns the cores on which something runs that its group does not let run there."""
        return [
            core
            for core, run in enumerate(self.running)
            if run is not None and not self.groups.allows(run.context.group, core)
        ]

    def _may_run(self, run: Run, idle: list[int], now: int) -> bool:
        context = run.context
        if context.domain in self._domain_busy or self.groups.throttled(context.group, now):
            return False
        for core in idle:  # noqa: SIM110 (a generator costs as much as all else here)
            if self.groups.allows(context.group, core):
                return True
        return False

    def _core_for(self, context: Context, idle: list[int]) -> int:
        """Returns the core that a context had last when it is idle and allowed, or else the lowest that is."""
        if context.last_core in idle and self.groups.allows(context.group, context.last_core):
            return context.last_core
        return next(core for core in idle if self.groups.allows(context.group, core))

    def _take(self, run: Run, core: int, now: int) -> Grant:
        context = run.context
        self._ready.remove(run)
        self._waited(run, now)
        self.groups.moved(context.group, -int(run.waits), 1, now)
        run.waits = False
        migrated = context.last_core not in (-1, core)
        moved = context.last_core != core or self._domain_core.get(context.domain) != core
        run.core = context.last_core = self._domain_core[context.domain] = core
        self._domain_busy[context.domain] = core
        self.running[core] = run
        context.state = ContextState.RUNNING
        return Grant(run, core, moved, migrated)

    def _note_waiting(self, now: int) -> None:
        """Has the groups of the runs that got no core know that they wait."""
        for run in self._ready:
            if not run.waits:
                run.waits = True
                self.groups.moved(run.context.group, 1, 0, now)

    def _waited(self, run: Run, now: int) -> None:
        waited = max(0, now - run.ready_since)
        run.wait_ns += waited
        run.context.counts.wait_time_ns += waited
