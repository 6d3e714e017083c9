"""The model engine: contexts, run groups and arbitration over modelled cores. Pure; `io/cores/dispatcher.py` drives it.

The dispatcher asks for grants, lets cores run them, and reports how they stopped; this engine decides what that means:
the run ends, or it waits again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lamina_hardware.domain.contexts.arbiter import Arbiter, Grant, Run
from lamina_hardware.domain.contexts.context import Context, ContextState, ContextTable, Handle, Named
from lamina_hardware.domain.contexts.counts import Counts, EventAccount
from lamina_hardware.domain.contexts.run_groups import RunGroup, RunGroups
from lamina_hardware.engines.interface import CoreRun, Stopped
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import FailedPrecondition

_CANCELED = int(ExitReason.CANCELED)
_BUDGET = int(ExitReason.BUDGET)
_PREEMPTION_TIMER = int(ExitReason.PREEMPTION_TIMER)


@dataclass(slots=True)
class Ended:  # not frozen: it is made at every exit
    """A run that ended: what its response says."""

    run: Run
    reason: int


@dataclass(frozen=True, slots=True)
class ContextWish:
    """What a caller wants of a new context; names are checked."""

    group: str
    domain: str
    eptp: int
    exceptions: int
    cpuid: bool
    syscall: bool
    label: str
    owner: str


class ModelEngine:
    """The host's decisions. Times are nanoseconds of the host's clock, given by the caller.

    `cores_of` says what its cores are: `model` or `kvm`.
    """

    cores_of: ClassVar[str] = "model"

    real_time_only = False
    """Whether it cannot run on a clock that somebody moves: its parts take the time that they take."""

    shows_host = False
    """Whether the machine that it shows is the one below, instead of a modelled one."""

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run here."""
        wanted = [name for name in ("unicorn", "numba") if importlib.util.find_spec(name) is None]
        return [f"The Python package {name} is not installed; the modelled cores need it." for name in wanted]

    def __init__(self, cores: int, run_pages: int) -> None:
        self.groups = RunGroups()
        self.contexts = ContextTable(run_pages)
        self.arbiter = Arbiter(cores, self.groups)
        self.core_counts = [Counts() for _ in range(cores)]
        self._accounts = [EventAccount(counts) for counts in self.core_counts]
        self._resident: list[Context | None] = [None] * cores

    @property
    def core_count(self) -> int:
        """How many cores there are."""
        return len(self.core_counts)

    def create_context(self, wish: ContextWish) -> Context:
        """Makes a context. Raises `NotFound` `RUN_GROUP_UNKNOWN` or `ResourceExhausted` `RUN_PAGES_EXHAUSTED`."""
        self.groups.get(wish.group)

        def make(handle: Handle, key: int) -> Context:
            domain = self.domain_key(wish.owner, wish.domain, key)
            return Context(
                handle, key, wish.group, domain, wish.eptp, wish.exceptions, wish.cpuid, wish.syscall, wish.label,
                wish.owner,
            )  # fmt: skip

        context = self.contexts.create(make)
        self.arbiter.join(context)
        return context

    def domain_key(self, owner: str, domain: str, key: int) -> str:
        """Returns the key of a coherence domain: of those of one owner with that name, or of one context alone."""
        return f"{owner}:{domain}" if domain else f"#{key}"

    def remove_context(self, context: Context) -> None:
        """Forgets a context that does not run."""
        self.arbiter.leave(context)
        self.contexts.remove(context)

    def idle(self, handle: Named) -> Context:
        """Returns a context that may begin to run. Raises `FailedPrecondition` `HANDLE_STALE` or `CONTEXT_BUSY`."""
        context = self.contexts.get(handle)
        if context.state is not ContextState.IDLE:
            raise FailedPrecondition(
                f"The context {handle.id}.{handle.generation} runs already.",
                reason="CONTEXT_BUSY",
                next_step="Wait for the response of the run before.",
            )
        return context

    def begin(self, context: Context, budget: int, sequence: int, tag: object, now: int) -> Run:
        """Begins a run of an idle context."""
        self._note_handled(context, now)
        run = self.arbiter.begin(context, budget, sequence, tag, now)
        if context.kicked:
            context.kicked = False
            run.cancelled = True
        return run

    def work(self, grant: Grant, slice_instructions: int) -> CoreRun:
        """Returns what the granted core has to do, for at most `slice_instructions`."""
        run, context = grant.run, grant.run.context
        if grant.migrated:
            context.counts.migrations += 1
            self.core_counts[grant.core].migrations += 1
        self._resident[grant.core] = context
        observer = run.observer = context.observer
        if observer is not None:
            observer.begin(context.counts.instructions - run.consumed)
            slice_instructions = min(slice_instructions, observer.slice_instructions)
        end = run.consumed + slice_instructions
        run.final = bool(run.budget) and run.budget <= end
        work: CoreRun = context.work or _work(context)
        work.budget = run.budget if run.final else end
        work.consumed = run.consumed
        work.moved = grant.moved
        work.observation = 0 if observer is None else observer.address
        work.interrupts = None if context.pending.is_empty else context.pending
        return work

    def is_alone(self, context: Context) -> bool:
        """Returns whether an idle context may run at once, without arbitration: nothing is special about it."""
        if context.kicked or context.observer is not None or not context.pending.is_empty:
            return False
        controls = context.controls
        return (controls is None or not controls.preemption_timer_ns) and self.arbiter.is_free(context)

    def begin_alone(self, run: Run, instructions: int, now: int) -> CoreRun:
        """Returns what the core of a run has to do that begins as `is_alone` says it may: its first slice."""
        context = run.context
        self._note_handled(context, now)
        self._resident[context.last_core] = context
        run.core = context.last_core
        run.final = 0 < run.budget <= instructions
        work: CoreRun = context.work or _work(context)
        work.budget = run.budget if run.final else instructions
        work.consumed = work.observation = 0
        work.moved = False
        work.interrupts = None
        return work

    def end_alone(self, run: Run, stopped: Stopped, run_ns: int, now: int) -> Ended | None:
        """Returns how the first slice of a run ended it, all accounts made.

        None if it goes on: then it is as one that has a core, and `settle` is to be called.
        """
        reason, context = stopped.reason, run.context
        if stopped.paused or stopped.asleep or stopped.access is not None or (reason == _BUDGET and not run.final):
            self.arbiter.adopt(run, now)
            return None
        run.consumed, run.run_ns = done, _ = stopped.instructions, run_ns
        self.arbiter.groups.ran_alone(context.group, run_ns, done)
        for counts in (self.core_counts[run.core], context.counts):
            counts.instructions += done
            counts.run_time_ns += run_ns
            counts.exits[reason] += 1
        context.exited = (reason, now)
        return Ended(run, reason)

    def note_events(self, run: Run, counted: Sequence[int]) -> None:
        """Takes the counters of the core that has this run, after a slice; nobody changes `counted` from then on."""
        self._accounts[run.core].note(run.context.counts, counted)

    def note_shootdown(self, core: int) -> None:
        """Counts a shootdown that reached a core, and the context whose translations it has."""
        self.core_counts[core].shootdowns += 1
        context = self._resident[core]
        if context is not None:
            context.counts.shootdowns += 1

    def _note_handled(self, context: Context, now: int) -> None:
        """Counts the time that the holder needed since the context's last exit."""
        if context.exited is None:
            return
        reason, when = context.exited
        context.counts.handling_ns[reason] += now - when
        if context.last_core >= 0:
            self.core_counts[context.last_core].handling_ns[reason] += now - when
        context.exited = None

    def settle(self, run: Run, stopped: Stopped, run_ns: int, now: int) -> tuple[Ended | None, list[RunGroup]]:
        """Takes the core back; returns how the run ended (None: it goes on) and the groups that were throttled."""
        counts = self.core_counts[run.core]
        counts.instructions += stopped.instructions - run.consumed
        counts.run_time_ns += run_ns
        counts.wait_time_ns += run.wait_ns - run.wait_charged
        run.wait_charged = run.wait_ns
        if run.observer is not None:
            run.observer.settle()
        stuck = stopped.instructions == run.consumed
        throttled = self.arbiter.settle(run, stopped.instructions, run_ns, now)
        if run.cancelled and (stopped.paused or stopped.reason == _BUDGET):
            return self._end(run, _CANCELED, now), throttled
        if stopped.asleep:
            self.arbiter.halt(run)
            return None, throttled
        if stopped.paused or (stopped.reason == _BUDGET and not run.final):
            left = self.timer_left(run)
            if left is not None and (left <= 0 or (stuck and not stopped.paused)):  # no block fits into what is left
                return self._end(run, _PREEMPTION_TIMER, now), throttled
            self.arbiter.requeue(run, now)
            return None, throttled
        return self._end(run, stopped.reason, now), throttled

    def timer_left(self, run: Run) -> int | None:
        """Returns how long a run may still be on a core before its preemption timer ends it; None without one."""
        controls = run.context.controls
        return controls.preemption_timer_ns - run.run_ns if controls and controls.preemption_timer_ns else None

    def cancel(self, context: Context, now: int) -> Ended | Run | None:
        """Cancels the run of a context.

        Returns the end of one that waited, the run of one that is on a core (the dispatcher stops it), or None when it
        was idle: then its next run ends at once.
        """
        run = self.arbiter.find(context)
        if run is None:
            context.kicked = True
            return None
        run.cancelled = True
        return run if context.state is ContextState.RUNNING else self._end(run, _CANCELED, now)

    def end_cancelled(self, run: Run, now: int) -> Ended:
        """Ends a run that was cancelled before it had a core."""
        return self._end(run, _CANCELED, now)

    def owned(self, owner: str) -> list[Context]:
        """Returns the contexts that a session's owner made."""
        return [context for context in self.contexts.entries() if context.owner == owner]

    def totals(self, read: Callable[[int], Counts]) -> Counts:
        """Returns the counters over all cores; `read` gives those of one."""
        total = Counts()
        for core in range(len(self.core_counts)):
            total.add(read(core))
        return total

    def _end(self, run: Run, reason: int, now: int) -> Ended:
        self.arbiter.end(run, now)
        run.context.counts.exits[reason] += 1
        run.context.exited = (reason, now)
        if run.core >= 0:
            self.core_counts[run.core].exits[reason] += 1
        return Ended(run, reason)


def _work(context: Context) -> CoreRun:
    """Makes what cores are told of a context at each grant; it serves until something of it changes."""
    context.work = made = CoreRun(
        context=context.key,
        run_page=context.run_page,
        eptp=context.eptp,
        exceptions=context.exceptions,
        cpuid=context.cpuid,
        syscall=context.syscall,
        controls=context.control_table,
        given=context.given,
        hlt=context.hlt,
    )
    return made
