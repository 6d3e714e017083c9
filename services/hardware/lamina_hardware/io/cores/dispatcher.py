"""Drives the model engine: gives its grants to cores, on the event loop or on their threads, and delivers the ends.

    begin ─► grant ─┬─► first slice, inline: at most INLINE instructions on the event loop ─┐
                    └─► later slices, on the core's thread                                  ├─► settle ─► end or wait
                    ▲                                                                       │              again
                    └───────────────────────────────────────────────────────────────────────┘

A short run never leaves the loop: a hop to a thread and back costs as much as 20,000 instructions. One that nobody
waits beside is not arbitrated. Without threads all slices run on the loop, and CPU time is counted in instructions.

On a loop in virtual time a slice ends at the loop's next timer or after a quantum, whichever is first, and is settled
at its virtual end: the core is taken until then. What it wrote to RAM shows from its begin, a quantum early at most; a
cancellation or a pause in between waits for the end. ADR 0005.

What a core must forget (translations, translated code) is handed over while it is idle (`shootdown.py`); a core that
runs is paused for it. ADR 0001 and 0004.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lamina_hardware.domain.contexts.arbiter import Grant, Run
from lamina_hardware.domain.contexts.context import Context, ContextState, Named
from lamina_hardware.domain.contexts.counts import Counts
from lamina_hardware.domain.contexts.run_groups import RunGroup
from lamina_hardware.domain.paging.tlb import EMPTY, TlbContent
from lamina_hardware.engines.interface import CoreEngine, Stopped
from lamina_hardware.engines.model.engine import Ended, ModelEngine
from lamina_hardware.io.cores.shootdown import Shootdowns
from lamina_hardware.io.cores.threads import CoreThread
from lamina_hardware.io.cores.time_slice import TimeSlice
from lamina_hardware.io.interrupt_controller import InterruptController
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage
from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition
from lamina_kit.virtual.loop import VirtualLoop

Deliver = Callable[[Ended], None]
Throttled = Callable[[RunGroup], None]
Lost = Callable[[int, BaseException], None]


class Dispatcher:
    """All cores of one host. Lives on one event loop."""

    def __init__(
        self,
        engine: ModelEngine,
        cores: list[CoreEngine],
        bus: MemoryBus,
        clock: Clock,
        time_slice: TimeSlice,
        throttled: Throttled,
        lost: Lost,
    ) -> None:
        self.engine = engine
        self._cores = cores
        self._bus = bus
        self._clock = clock
        self._time_slice = time_slice
        self._throttled = throttled
        self._lost = lost
        self._shootdowns = Shootdowns(cores, bus)
        self._waiters: list[list[asyncio.Future[None]]] = [[] for _ in cores]
        self._asked: list[list[asyncio.Future[TlbContent]]] = [[] for _ in cores]
        self._threads: list[CoreThread] = []
        self._timer: asyncio.Task[None] | None = None
        self._virtual: VirtualLoop | None = None
        self._stopping = False
        self.settled: Callable[[Context], None] = lambda context: None
        """Called with a context whenever it leaves a core."""
        self.interrupts = InterruptController(bus, clock, self._look, self._dispatch)

    def start(self) -> None:
        """Starts the cores' threads, if they are to have any."""
        self._loop = asyncio.get_running_loop()
        if isinstance(self._loop, VirtualLoop):
            self._virtual = self._loop
        if self._time_slice.threads:
            now, loop = self._clock.now_ns, self._loop
            self._threads = [CoreThread(n, core, now, loop, self._finished) for n, core in enumerate(self._cores)]
        self._warm = not self._threads or any(core.is_ready for core in self._cores)  # else the first run loads code

    async def stop(self) -> None:
        """Cancels all runs, ends the threads and frees the cores. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.interrupts.stop()
        for context in self.engine.contexts.entries():
            self.stop_run(context)
        await asyncio.gather(*(self._idle(core) for core in range(len(self._cores))))
        for thread in self._threads:
            thread.stop()
        for core in self._cores:
            core.close()

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, handle: Named, budget: int, sequence: int, deliver: Deliver) -> Run:
        """Begins a run; `deliver` is called with its end, perhaps before this returns.

        Raises `FailedPrecondition` `HANDLE_STALE`, `CONTEXT_BUSY`, `HOST_STOPPING` or `BUDGET_NOT_SUPPORTED`.
        """
        if self._stopping:
            raise FailedPrecondition("The host stops.", reason="HOST_STOPPING", next_step="Start it again.")
        if budget and not self._time_slice.exact:
            raise FailedPrecondition(
                "The cores of this host count no instructions, and keep no budget.",
                reason="BUDGET_NOT_SUPPORTED",
                next_step="Run without a budget; a preemption timer (`SetExitControls`) ends a run by time.",
            )
        context, now = self.engine.idle(handle), self._clock.now_ns()
        if self._threads and self._virtual is None and self._warm and self.engine.is_alone(context):
            return self._run_alone(Run(context, budget, sequence, deliver, 0, now), now, deliver)
        run = self.engine.begin(context, budget, sequence, deliver, now)
        if run.cancelled:
            self._deliver(self.engine.end_cancelled(run, now))
        else:
            self._dispatch(run if self._warm else None)
        return run

    def cancel(self, context: Context) -> bool:
        """Cancels the run of a context, now or its next; returns whether it ran or waited."""
        found = self.engine.cancel(context, self._clock.now_ns())
        if isinstance(found, Ended):
            self._deliver(found)
        elif found is not None and self._virtual is None:
            self._cores[found.core].cancel()
        return found is not None

    def stop_run(self, context: Context) -> bool:
        """Cancels the run of a context if it has one; returns whether it had."""
        return self.engine.arbiter.find(context) is not None and self.cancel(context)

    async def remove(self, context: Context) -> None:
        """Stops a context and forgets it."""
        run = self.engine.arbiter.find(context)
        if run is not None:
            self.cancel(context)
            if run.core >= 0 and self.engine.arbiter.running[run.core] is run:
                await self._idle(run.core)
        self.forget(context)
        self.interrupts.remove(context)
        self.engine.remove_context(context)

    def forget(self, context: Context) -> None:
        """Makes every core load all of an idle context anew, and translate its addresses anew."""
        for core in self._cores:
            core.forget(context.key)

    async def rearrange(self) -> None:
        """Moves runs that their groups no longer let run where they do, and lets those run that may now."""
        await asyncio.gather(*(self._pause(core) for core in self.engine.arbiter.misplaced()))
        self._dispatch()

    async def take_out(self, core: int) -> int:
        """Gives a core no more work, and returns once it has none; what ran there waits for another core.

        Returns how many runs that were, 0 or 1.
        """
        self.engine.arbiter.lost[core] = True
        ran = int(self._is_out(core))
        while self._is_out(core):
            await self._pause(core)
        return ran

    def put_back(self, core: int) -> None:
        """Gives a core work again."""
        self.engine.arbiter.lost[core] = False
        self._dispatch()

    # ── forgetting ───────────────────────────────────────────────────────────────────────────────────────────────

    async def shootdown(self, root: int, eptp: int) -> int:
        """Empties the TLB of every core that may hold something of these roots; returns how many did.

        When it returns no core uses the old translations.
        """
        held = [number for number, core in enumerate(self._cores) if core.holds(root, eptp)]
        for number in held:
            self._shootdowns.flush(number)
            self.engine.note_shootdown(number)
        await asyncio.gather(*(self._pause(number) for number in held if self._is_out(number)))
        return len(held)

    async def forget_translations(self) -> int:
        """Empties the TLB of every core; returns how many. When it returns none uses an old translation."""
        for core in range(len(self._cores)):
            self._shootdowns.flush(core)
        await asyncio.gather(*(self._pause(core) for core in range(len(self._cores)) if self._is_out(core)))
        return len(self._cores)

    async def drop_written_code(self) -> None:
        """Drops translated code of frames that were written; when it returns no core runs the old code."""
        self._shootdowns.collect()
        busy = [number for number in range(len(self._cores)) if self._is_out(number)]
        await asyncio.gather(*(self._pause(number) for number in busy if self._shootdowns.has_code(number)))

    def counts(self, core: int) -> Counts:
        """Returns the counters of one core."""
        return self.engine.core_counts[core]

    async def interrupt(self, context: Context) -> None:
        """Ends the slice of a context that is on a core; its run goes on with the next, by what it is told now."""
        run = self.engine.arbiter.find(context)
        if run is not None and run.core >= 0 and self.engine.arbiter.running[run.core] is run:
            await self._pause(run.core)

    async def tlb(self, core: int) -> TlbContent:
        """Returns what a core's TLB holds, between two slices of what runs there."""
        if not self._is_out(core) or not self._threads:
            return self._read_tlb(core)
        asked: asyncio.Future[TlbContent] = self._loop.create_future()
        self._asked[core].append(asked)
        self._cores[core].pause()
        return await asked

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_tlb(self, core: int) -> TlbContent:
        return EMPTY if self._shootdowns.flushes(core) else self._cores[core].tlb()

    def _is_out(self, core: int) -> bool:
        return self.engine.arbiter.running[core] is not None

    async def _pause(self, core: int) -> None:
        if self._virtual is None:
            self._cores[core].pause()
        await self._idle(core)

    async def _idle(self, core: int) -> None:
        """Returns once the core has stopped what it runs now."""
        if self._is_out(core):
            waiter = self._loop.create_future()
            self._waiters[core].append(waiter)
            await waiter

    def _dispatch(self, fresh: Run | None = None) -> None:
        """Grants cores until nothing more can run; the fresh run's first slice runs here and now."""
        arbiter = self.engine.arbiter
        while arbiter.others_wait() and (grant := arbiter.grant(self._clock.now_ns())) is not None:
            self.interrupts.prepare(grant.run.context)
            if grant.run is fresh:
                fresh = None
                self._run_here(grant, self._time_slice.inline_instructions)
            elif self._threads:
                self._shootdowns.hand_over(grant.core)
                limit = self._within_timer(grant, self._time_slice.slice_instructions)
                self._threads[grant.core].run(self.engine.work(grant, limit))
            else:
                self._loop.call_soon(self._run_later, grant)
        if arbiter.others_wait() and self._timer is None and not self._stopping:
            self._set_timer()

    def _run_here(self, grant: Grant, limit: int) -> None:
        """Runs one slice on the event loop."""
        self._shootdowns.hand_over(grant.core)
        if self._virtual is not None:
            self._run_virtually(grant, self._virtual)
            return
        work = self.engine.work(grant, self._within_timer(grant, limit))
        began = self._clock.now_ns()
        stopped = self._cores[grant.core].run(work)
        now = self._clock.now_ns()
        counted = (stopped.instructions - work.consumed) * self._time_slice.ns_per_instruction
        self._settle(grant.run, stopped, now - began if self._threads or not self._time_slice.exact else counted, now)

    def _run_alone(self, run: Run, now: int, deliver: Deliver) -> Run:
        """Runs the first slice of a run that nobody else waits beside; most of them end there, and cost less."""
        core = run.context.last_core
        self._shootdowns.hand_over(core)
        work = self.engine.begin_alone(run, self._time_slice.inline_instructions, now)
        stopped = self._cores[core].run(work)
        end = self._clock.now_ns()
        ended = self.engine.end_alone(run, stopped, end - now, end)
        if ended is None:
            self._settle(run, stopped, end - now, end)
            self._dispatch()
        else:
            self.engine.note_events(run, self._cores[core].counters())
            self.settled(run.context)
            deliver(ended)
        return run

    def _run_virtually(self, grant: Grant, loop: VirtualLoop) -> None:
        """Runs one slice now and settles it at its virtual end."""
        time_slice, next_ns = self._time_slice, loop.next_timer_ns
        left = time_slice.quantum_ns if next_ns is None else min(next_ns - loop.now_ns, time_slice.quantum_ns)
        limit = max(left, time_slice.least_ns) // time_slice.ns_per_instruction
        work = self.engine.work(grant, self._within_timer(grant, limit))
        stopped = self._cores[grant.core].run(work)
        took = (stopped.instructions - work.consumed) * time_slice.ns_per_instruction
        loop.call_at_ns(loop.now_ns + took, self._end_virtually, grant.run, stopped, took)

    def _within_timer(self, grant: Grant, limit: int) -> int:
        """Returns a slice's instructions, cut where the preemption timer of its context would end it.

        A thread's slice is also stopped by the clock: how long instructions take is not known before.
        """
        left = self.engine.timer_left(grant.run)
        if left is None:
            return limit
        if self._threads:
            self._loop.call_later(max(left, 0) / 1e9, self._pause_run, grant.run)
            return min(limit, max(left, self._time_slice.least_ns))
        return min(limit, max(left // self._time_slice.ns_per_instruction, 1))

    def _pause_run(self, run: Run) -> None:
        """Stops a run that is on a core still: its timer is over."""
        if run.core >= 0 and self.engine.arbiter.running[run.core] is run:
            self._cores[run.core].pause()

    def _end_virtually(self, run: Run, stopped: Stopped, took: int) -> None:
        self._settle(run, stopped, took, self._clock.now_ns())
        self._dispatch()

    def _run_later(self, grant: Grant) -> None:
        if grant.run.cancelled:
            self._cores[grant.core].cancel()
        self._run_here(grant, self._time_slice.slice_instructions)
        self._dispatch()

    def _finished(self, core: int, outcome: Stopped | BaseException, took: int) -> None:
        """Takes the report of a core's thread."""
        self._warm = True
        run = self.engine.arbiter.running[core]
        assert run is not None, "a core reported without a grant"
        if isinstance(outcome, BaseException):
            self._lose(core, run, outcome, took)
        else:
            self._settle(run, outcome, took, self._clock.now_ns())
        self._dispatch()

    def _lose(self, core: int, run: Run, error: BaseException, took: int) -> None:
        """Takes a core whose thread failed out of service; its run ends as cancelled."""
        self._lost(core, error)
        self.engine.arbiter.lost[core] = True
        run.cancelled = True
        self._settle(run, Stopped(0, run.consumed, paused=True), took, self._clock.now_ns())

    def _settle(self, run: Run, stopped: Stopped, took: int, now: int) -> None:
        core = run.core
        if stopped.access is not None:
            self.interrupts.perform(run.context, stopped.access)
        if run.cancelled:  # maybe when the core had stopped already: its next run is another one
            self._cores[core].relent()
        self.engine.note_events(run, self._cores[core].counters())
        ended, throttled = self.engine.settle(run, stopped, took, now)
        for group in throttled:
            self._throttled(group)
        if self._asked[core] or self._waiters[core]:
            self._answer(core)
        self.settled(run.context)
        if ended is not None:
            if ended.reason != stopped.reason:
                RunPage(self._bus.run_page(run.context.run_page)).exit_reason = ended.reason
            self._deliver(ended)
        elif run.context.state is ContextState.HALTED:
            self._look(run.context)

    def _answer(self, core: int) -> None:
        """Answers those that asked for a core's TLB, or waited for the core to stop."""
        asked, self._asked[core] = self._asked[core], []
        for question in (one for one in asked if not one.done()):
            question.set_result(self._read_tlb(core))
        waiters, self._waiters[core] = self._waiters[core], []
        for waiter in (one for one in waiters if not one.done()):
            waiter.set_result(None)

    def _look(self, context: Context) -> None:
        """Has a context look at its interrupts: one that sleeps gets ready, a core that has it stops for a moment."""
        if context.state is ContextState.HALTED:
            if self.interrupts.wakes(context):
                run = self.engine.arbiter.find(context)
                assert run is not None, "a halted context has a run"
                self.engine.arbiter.wake(run, self._clock.now_ns())
        elif context.state is ContextState.RUNNING and self._virtual is None:
            self._cores[context.last_core].pause()

    def _deliver(self, ended: Ended) -> None:
        deliver = ended.run.tag
        assert callable(deliver), "a run without a receiver"
        deliver(ended)

    def _set_timer(self) -> None:
        """Wakes up when a throttled group may go on."""
        when = self.engine.arbiter.next_period(self._clock.now_ns())
        if when is not None:
            self._timer = self._loop.create_task(self._wake_at(when))

    async def _wake_at(self, when: int) -> None:
        await self._clock.sleep_ns(max(0, when - self._clock.now_ns()))
        self._timer = None
        self._dispatch()
