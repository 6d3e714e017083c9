"""The control of a clock that a gateway keeps: readings, settings, and the line of advances.

It decides how far the virtual loop may go now (`step`); the gateway goes there and no further. Everything here happens
on the real loop, between slices of the stack's work.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from lamina_kit.clock_control import (
    DEFAULT_INTERVAL_MS,
    MAX_TIME_NS,
    Advanced,
    ClockReading,
    check_interval,
    check_rate,
    target_of,
)
from lamina_kit.errors import Aborted, FailedPrecondition, ResourceExhausted
from lamina_kit.gateway.log import Record
from lamina_kit.gateway.pace import Pace
from lamina_kit.virtual.clock import WALL_EPOCH_NS
from lamina_kit.virtual.loop import VirtualLoop

MAX_ADVANCES = 64


@dataclass
class Advance:
    """One advance in the line. It has a target once its turn has come."""

    duration_ns: int | None
    time_ns: int | None
    done: asyncio.Future[Advanced]
    start_ns: int = 0
    target_ns: int | None = None
    real_start_ns: int = 0


class GatewayClock:
    """Controls the clock of a virtual loop; a `ClockControl`.

    `submit` takes the record of a setting, to be made when the stack is quiescent; `wake` has the gateway look again.
    """

    def __init__(
        self, loop: VirtualLoop, pace: Pace, submit: Callable[[Record], None], wake: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._outer = asyncio.get_running_loop()
        self._submit = submit
        self._wake = wake
        self._line: deque[Advance] = deque()
        self._changed: asyncio.Future[None] = self._outer.create_future()
        self._setting: deque[asyncio.Future[None]] = deque()
        self._stopped = False
        self._shown_ns = 0
        self.pace = pace
        self.waiting = 0
        """Calls from outside that wait for time to pass."""
        self.waiting_for_one = 0
        """Those of them that wait for their one answer."""

    # ── how far the stack may go ─────────────────────────────────────────────────────────────────────────────────

    def step(self, real_ns: int) -> tuple[int | None, str, int | None]:
        """Returns until when the loop may run now (None: nowhere), for which cause, and when to look again.

        The last is a delay in nanoseconds of real time; None when only an event can change the answer. To be asked
        when the loop is quiescent. Times in virtual nanoseconds.
        """
        now_ns = self._loop.now_ns
        if (target := self._next_target()) is not None:
            return target, "asked", None
        next_ns = self._loop.next_timer_ns
        due_ns = self.pace.due_ns(now_ns, real_ns, self.waiting)
        if next_ns is None or next_ns > MAX_TIME_NS:
            return None, "", None
        if self.pace.goes(self.waiting):
            if next_ns <= due_ns:
                return next_ns, "paced", None
            return None, "", self.pace.real_until(next_ns, real_ns)
        limit = self.pace.free_until(self.waiting_for_one)
        return (next_ns if limit is None or next_ns <= limit else None), "free", None

    def due_now(self, real_ns: int) -> int:
        """Returns how far a scaled clock goes before an input is injected: to its due time, when no event is before it.

        When one is, the clock is behind, and the input need not wait for it to catch up; it goes on to what was shown.
        """
        now_ns = self._loop.now_ns
        if self.pace.mode != "scaled" or self._line:
            return now_ns
        due_ns = self.pace.due_ns(now_ns, real_ns, self.waiting)
        next_ns = self._loop.next_timer_ns
        return due_ns if next_ns is None or next_ns > due_ns else max(now_ns, self._shown_ns)

    def _next_target(self) -> int | None:
        """Returns the target of the advance whose turn it is; those that cannot be made are refused."""
        while self._line:
            first = self._line[0]
            if first.target_ns is None and not first.done.done():
                try:
                    first.target_ns = target_of(self._loop.now_ns, first.duration_ns, first.time_ns)
                except Exception as error:
                    first.done.set_exception(error)
                first.start_ns, first.real_start_ns = self._loop.now_ns, time.monotonic_ns()
            if not first.done.done():
                return first.target_ns
            self._line.popleft()
            self.pace.rebase()  # a caller that left: the clock goes on from where its advance came to
        return None

    def settle(self) -> bool:
        """Answers the advance that has reached its target; returns whether one has. To be called when quiescent."""
        if not self._line:
            return False
        first = self._line[0]
        if first.target_ns is None or self._loop.now_ns < first.target_ns:
            return False
        self._line.popleft()
        self.pace.rebase()
        if not first.done.done():
            real_ns = time.monotonic_ns() - first.real_start_ns
            first.done.set_result(Advanced(first.start_ns, self.read(), real_ns))
        return True

    def make_setting(self, record: Record) -> None:
        """Makes a setting that was submitted, at its moment."""
        if record.rate_permille is not None:
            self.pace.rate_permille = record.rate_permille
        if record.paused is not None:
            self.pace.paused = record.paused
        self.pace.rebase()
        if self._setting:
            waiter = self._setting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def note_change(self) -> None:
        """Tells those who watch the clock that it may have changed."""
        if not self._changed.done():
            self._changed.set_result(None)

    def stop(self) -> None:
        """Ends all advances and settings that are under way, `ABORTED` `CLOCK_STOPPED`. Idempotent."""
        self._stopped = True
        waiters: list[asyncio.Future[Any]] = [*(advance.done for advance in self._line), *self._setting]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(_stopped())
        self._line.clear()
        self._setting.clear()
        self.note_change()

    # ── ClockControl ─────────────────────────────────────────────────────────────────────────────────────────────

    def read(self) -> ClockReading:
        """Returns the clock as it is."""
        now_ns, real_ns = self._loop.now_ns, time.monotonic_ns()
        shown_ns, behind_ns = now_ns, 0
        next_ns = self._loop.next_timer_ns
        if self.pace.mode == "scaled" and not self._line:
            due_ns = self.pace.due_ns(now_ns, real_ns, self.waiting)
            self._shown_ns = shown_ns = due_ns if next_ns is None else min(due_ns, next_ns)
            behind_ns = due_ns - shown_ns
        return ClockReading(
            mode=self.pace.mode,
            now_ns=shown_ns,
            wall_ns=WALL_EPOCH_NS + shown_ns,
            rate_permille=0 if self.pace.mode == "virtual" else self.pace.rate_permille,
            paused=self.pace.paused,
            next_event_ns=next_ns,
            seed=self._loop.seed,
            waiting_calls=self.waiting,
            advances=len(self._line),
            behind_ns=behind_ns,
        )

    async def change(self, rate_permille: int | None, paused: bool | None) -> ClockReading:
        """Changes what is given, when the stack is quiescent, and returns the clock."""
        self._check_running()
        if rate_permille is not None:
            check_rate(self.pace.mode, rate_permille)
        if rate_permille is not None or paused is not None:
            made = self._outer.create_future()
            self._setting.append(made)
            self._submit(Record("set", rate_permille=rate_permille, paused=paused))
            await made
            self.note_change()
        return self.read()

    async def advance(self, duration_ns: int | None, time_ns: int | None) -> Advanced:
        """Lets time pass and returns when the stack is quiescent at the new time."""
        self._check_running()
        target_of(self._loop.now_ns, duration_ns, time_ns)  # what is wrong now will not be right later
        if len(self._line) >= MAX_ADVANCES:
            raise ResourceExhausted(
                f"{MAX_ADVANCES} advances of the clock wait already.",
                reason="CLOCK_ADVANCES_FULL",
                next_step="Wait for them: they are made one after the other.",
            )
        done: asyncio.Future[Advanced] = self._outer.create_future()
        self._line.append(Advance(duration_ns, time_ns, done))
        self._wake()
        return await done

    async def watch(self, interval_ms: int) -> AsyncIterator[ClockReading]:
        """Yields the clock at once, then when it has changed, at most once an interval of real time."""
        self._check_loop()
        check_interval(interval_ms)
        while not self._stopped:
            if self._changed.done():
                self._changed = self._outer.create_future()
            changed = self._changed  # the change after this reading, whatever others who watch have seen meanwhile
            yield self.read()
            await asyncio.sleep((interval_ms or DEFAULT_INTERVAL_MS) / 1000)
            if self.pace.mode != "scaled" or self.pace.paused:
                await asyncio.shield(changed)

    def _check_running(self) -> None:
        self._check_loop()
        if self._stopped:
            raise _stopped()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._outer:
            raise FailedPrecondition(
                "The clock of this stack is moved from outside, not by what lives on it.",
                reason="CLOCK_NOT_STEPPED",
                next_step="Call the stack's port, or wait: `asyncio.sleep` is the stack's time.",
            )


def _stopped() -> Aborted:
    return Aborted(
        "The stack stops; its clock goes no further.",
        reason="CLOCK_STOPPED",
        next_step="Start it again with `lamina up`.",
    )
