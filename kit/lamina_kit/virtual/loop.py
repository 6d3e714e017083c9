"""The event loop in virtual time. `virtual/clock.py` has the clock that follows it.

    loop = VirtualLoop(seed=7)
    clock = VirtualClock(loop)
    loop.run(main())                                  # free running: time jumps to the next timer when nothing is ready
    loop.run_until_quiescent(loop.now_ns + 10**9)     # stepped: one second, and not more

Time is an integer of nanoseconds and moves only when nothing is ready. Timers are ordered by (ns, seeded tie,
sequence); the seed also chooses among ready tasks (`virtual/handles.py`). There are no sockets and no threads
(`virtual/outside.py`). The same seed and the same work give the same history. `docs/adr/0005-time.md` says why.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import math
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.rng import Rng
from lamina_kit.virtual.handles import ReadyHandle, TimerHandle, permute
from lamina_kit.virtual.tasks import TaskKeeper, describe

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COLLECT_EVERY = 20_000
"""Callbacks between two runs of the garbage collector, where the loop has taken it over."""

_MANY_CANCELLED = 100
_SHOWN_TASKS = 20
_NEVER_NS = 2**63 - 1


class VirtualLoop(TaskKeeper):
    """An asyncio event loop whose time is `now_ns`.

    `strict` (tests) ends a run with the first exception that nobody handled; otherwise such exceptions are logged.
    """

    def __init__(self, seed: int, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.now_ns = 0
        self.seed = seed
        self.callbacks = 0
        """How many callbacks have run; what a simulated day is measured by."""
        self._rng = Rng(f"{seed}/loop")
        self._ready: list[asyncio.Handle] = []
        self._batch: list[asyncio.Handle] = []  # being run: chosen already, last one first
        self._timers: list[tuple[int, int, int, TimerHandle]] = []
        self._sequence = 0
        self._cancelled_timers = 0
        self._thread = 0
        self._stopping = False
        self._collect_every = COLLECT_EVERY
        self._collect_at = _NEVER_NS

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def time(self) -> float:
        """Returns `now_ns` in seconds, exact to the nanosecond for the first 104 days."""
        return self.now_ns / 1e9

    @property
    def next_timer_ns(self) -> int | None:
        """When the next timer is due, or None: nothing will happen by itself."""
        timers = self._timers
        while timers and timers[0][3]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        return timers[0][0] if timers else None

    @property
    def is_quiescent(self) -> bool:
        """Whether nothing is ready at this instant of virtual time."""
        next_ns = self.next_timer_ns
        return not (self._ready or self._batch or (next_ns is not None and next_ns <= self.now_ns))

    # ── scheduling ───────────────────────────────────────────────────────────────────────────────────────────────

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedules a callback for the next turn."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = ReadyHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedules a callback, from the loop's own thread: another one's moment would depend on the machine."""
        if self._thread not in (0, threading.get_ident()):
            raise FailedPrecondition(
                "A thread cannot schedule on a loop in virtual time: its moment would depend on the machine.",
                reason="VIRTUAL_LOOP_WITHOUT_THREADS",
                next_step="Do the work inline, or inject its result while the loop is quiescent.",
            )
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedules a callback in `delay` seconds, rounded to the nanosecond; never, when that is infinite."""
        return self._at(None if delay == math.inf else self.now_ns + round(delay * 1e9), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedules a callback at `when` seconds of `time()`, converted once to the nearest nanosecond."""
        return self._at(None if when == math.inf else round(when * 1e9), callback, args, context)

    def call_at_ns(
        self, when_ns: int, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedules a callback at `when_ns`; a time that has passed means now."""
        return self._at(when_ns, callback, args, context)

    def _at(
        self,
        when_ns: int | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> TimerHandle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if when_ns is None:
            return TimerHandle(_NEVER_NS, callback, args, self, context)
        if when_ns < self.now_ns:
            when_ns = self.now_ns
        handle = TimerHandle(when_ns, callback, args, self, context)
        handle._scheduled = True
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._timers, (when_ns, self._rng.getrandbits(32), sequence, handle))
        return handle

    def note_cancelled(self) -> None:
        """Counts a timer that was cancelled; when half of many are, they are thrown out."""
        self._cancelled_timers = count = self._cancelled_timers + 1
        if count > _MANY_CANCELLED and count * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[3]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` to its end as time jumps from timer to timer; then cancels what is left, oldest first.

        Raises:
            FailedPrecondition: `VIRTUAL_LOOP_DEADLOCK`, `main` waits and nothing can ever happen; the tasks are named.
        """
        try:
            result: T = self.run_until_complete(main)
            return result
        finally:
            self._cancel_all()
            self.run_until_complete(self.shutdown_asyncgens())

    def run_until_complete(self, future: Any) -> Any:
        """Runs until a future or coroutine is done and returns its result; whatever else there is stays as it is."""
        mine = not asyncio.isfuture(future)
        task = asyncio.ensure_future(future, loop=self)
        task.add_done_callback(self._stop_for)
        try:
            self._drive(None, sys.maxsize)
            if not task.done() and not self._stopping:
                raise self._deadlock(task)
        except BaseException:
            if mine and task.done() and not task.cancelled():
                task.exception()  # what ended the loop is raised; the task's own failure is not news
            raise
        finally:
            task.remove_done_callback(self._stop_for)
            self._stopping = False
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return task.result()

    def run_forever(self) -> None:
        """Runs until `stop`, or until nothing can happen any more."""
        try:
            self._drive(None, sys.maxsize)
        finally:
            self._stopping = False

    def run_until_quiescent(self, until_ns: int | None = None, max_callbacks: int | None = None) -> bool:
        """Runs all that is ready and the timers due by `until_ns` (default: now), and moves time to `until_ns`.

        Returns True when nothing is ready any more, False when `max_callbacks` ran before that; the next call goes on
        in the same order. May be called inside a callback of another loop of this thread. An idle loop is no error.

        Raises:
            InvalidArgument: `VIRTUAL_TIME_BACKWARDS`, `until_ns` lies before now.
        """
        if until_ns is not None and until_ns < self.now_ns:
            raise InvalidArgument(
                f"Virtual time cannot go back from {self.now_ns} ns to {until_ns} ns.",
                reason="VIRTUAL_TIME_BACKWARDS",
                next_step="Advance to a time that has not passed.",
            )
        end = self.now_ns if until_ns is None else until_ns
        done = self._drive(end, sys.maxsize if max_callbacks is None else max_callbacks)
        self._stopping = False
        if done:
            self.now_ns = max(self.now_ns, end)
        return done

    def _drive(self, until_ns: int | None, budget: int) -> bool:
        """Runs until nothing is ready or due by `until_ns` (True), or `budget` callbacks ran or it stops (False)."""
        with self._running():
            while not self._stopping:
                if not self._batch and not self._next_batch(until_ns):
                    return True
                if budget <= 0:
                    return False
                budget = self._run_batch(budget)
                if self.callbacks >= self._collect_at:
                    self._collect()
                if self._unhandled is not None:
                    error, self._unhandled = self._unhandled, None
                    raise error
        return False

    def _next_batch(self, until_ns: int | None) -> bool:
        """Chooses what runs in the next turn: all that is ready, in the seed's order. False: nothing may run."""
        timers = self._timers
        if timers:
            if not self._ready:
                next_ns = self.next_timer_ns
                if next_ns is None or (until_ns is not None and next_ns > until_ns):
                    return False
                self.now_ns = next_ns
            now_ns = self.now_ns
            while timers and timers[0][0] <= now_ns:
                handle = heapq.heappop(timers)[3]
                handle._scheduled = False
                if handle._cancelled:
                    self._cancelled_timers -= 1
                else:
                    self._ready.append(handle)
        batch = self._ready
        if not batch:
            return False
        self._ready = []
        if len(batch) > 1:
            permute(batch, self._rng)
            batch.reverse()
        self._batch = batch
        return True

    def _run_batch(self, budget: int) -> int:
        """Runs callbacks of the chosen batch, `budget` at most; returns what is left of the budget."""
        batch = self._batch
        before = budget
        try:
            while batch and budget:
                handle: Any = batch.pop()
                if handle._cancelled:
                    continue
                budget -= 1
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler(
                        {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
                    )
        finally:
            self.callbacks += before - budget
        return budget

    @contextmanager
    def collecting_garbage(self, every: int = COLLECT_EVERY) -> Iterator[None]:
        """Takes over Python's cyclic collector: it runs after each `every` callbacks and at no other moment.

        Left to itself it runs after so many allocations, and how many there were depends on caches.
        """
        was_on = gc.isenabled()
        gc.collect()
        gc.freeze()  # what is there now is not looked at again
        gc.disable()
        self._collect_every = every
        self._collect_at = self.callbacks + every
        try:
            yield
        finally:
            self._collect_at = _NEVER_NS
            gc.unfreeze()
            if was_on:
                gc.enable()

    def _collect(self) -> None:
        self._collect_at = self.callbacks + self._collect_every
        gc.collect()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Makes this the running loop of the thread, in place of the one that calls, which is put back."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self._thread:
            raise RuntimeError("This event loop is already running")
        outer = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        self._thread = threading.get_ident()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_dropped)
        try:
            yield
        finally:
            self._thread = 0
            asyncio._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Ends the run after the current turn."""
        self._stopping = True

    def is_running(self) -> bool:
        """Returns whether the loop runs now."""
        return self._thread != 0

    def close(self) -> None:
        """Drops what is scheduled; nothing can be scheduled any more. Idempotent."""
        if self._thread:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._batch.clear()
        self._timers.clear()

    def _stop_for(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if not isinstance(error, (SystemExit, KeyboardInterrupt)):  # those leave the loop by themselves
            self._stopping = True

    def _cancel_all(self) -> None:
        left = self.tasks()
        for task in left:
            task.cancel()
        self._stopping = False
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for task in left:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.call_exception_handler(
                    {"message": "unhandled exception during shutdown", "exception": error, "task": task}
                )

    def _deadlock(self, main: asyncio.Future[Any]) -> FailedPrecondition:
        waiting = [describe(task) for task in self.tasks()]
        more = f" and {len(waiting) - _SHOWN_TASKS} more" if len(waiting) > _SHOWN_TASKS else ""
        return FailedPrecondition(
            f"At {self.now_ns} ns of virtual time nothing is ready and no timer is set, but"
            f" {describe(main) if isinstance(main, asyncio.Task) else repr(main)} is not done;"
            f" waiting: {'; '.join(waiting[:_SHOWN_TASKS]) or 'no task'}{more}.",
            reason="VIRTUAL_LOOP_DEADLOCK",
            next_step="Find who should have woken them: a thread or a socket cannot.",
        )
