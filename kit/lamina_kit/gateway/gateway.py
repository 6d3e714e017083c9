"""The gateway: where the outside world meets a stack whose clock is not the machine's.

The stack lives on a `VirtualLoop`; sockets live on a real loop of the same thread. The gateway pumps the one from plain
callbacks of the other, in slices of a few milliseconds, so that both make progress and neither needs a thread. Inputs
(calls from outside, settings of the clock) are injected one at a time, whenever the stack is quiescent, and logged
before the stack sees them; answers leave through the real loop. So the stack stays a function of its seed, its
configuration and the log. `docs/adr/0009-gateway.md`

    gateway = Gateway(loop, Pace("stepped"), log, tally)
    await gateway.within(stack.start)                    # free running, before anybody is let in
    gateway.add(servers)
    served = await serve_port(gateway, …)                # gateway/ports.py
    …
    await gateway.shut()
    await served.stop()
    await gateway.stop(stack.stop)
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import grpc

from lamina_kit.errors import Internal, LaminaError, ResourceExhausted, Unavailable
from lamina_kit.gateway.callers import Callers
from lamina_kit.gateway.clock import GatewayClock
from lamina_kit.gateway.inner_call import Injector, Kind, collect_garbage
from lamina_kit.gateway.log import EventTally, InputLog, Record
from lamina_kit.gateway.outer_call import OutsideCall
from lamina_kit.gateway.pace import Pace, waits_for_time
from lamina_kit.rpc.inproc.local import LocalServer
from lamina_kit.telemetry import log as logs
from lamina_kit.virtual.loop import VirtualLoop

T = TypeVar("T")

BATCH = 64
"""Callbacks of the stack between two looks at the machine's clock."""
SLICE_NS = 4_000_000
"""Real time that the stack may take before the sockets get a turn."""
GARBAGE = 100_000
"""Allocations less deallocations since the last collection at which garbage is collected while nothing goes on: a
virtual loop collects after so many callbacks, and calls that are answered beside the stack make none."""
MAX_CALLS = 4096
"""Calls from outside that may be open at one time."""
MAX_INPUT_BYTES = 256 << 20
"""Bytes of messages that may wait to be injected."""
BUSY_NS = 500_000_000
"""Real time after which an input is injected although the stack is not quiescent: a handler that answers without end
and without time passing could not be cancelled otherwise."""
ADVANCE_LOG_NS = 1_000_000_000
"""Least real time between two records of time that passed by itself, while it goes on passing."""


class Gateway:
    """Joins a virtual loop to the real loop that runs when it is made. It is the `Door` of every outer call.

    `failed` is done, with the error, when the gateway cannot go on: its log cannot be written, or a defect.
    """

    def __init__(self, loop: VirtualLoop, pace: Pace, log: InputLog | None, tally: EventTally) -> None:
        self.loop = loop
        self.tally = tally
        self._input_log = log
        self._outer = asyncio.get_running_loop()
        self.clock = GatewayClock(loop, pace, self._submit_setting, self.wake)
        self.failed: asyncio.Future[None] = self._outer.create_future()
        self._injector = Injector()
        self._inputs: deque[tuple[OutsideCall | None, Record]] = deque()
        self._input_bytes = 0
        self._callers = Callers()
        self._open: dict[OutsideCall, None] = {}
        self._ended: list[OutsideCall] = []
        self._opened = 0
        self._sequence = 0
        self._logged_ns = 0
        self._advance_logged_ns = 0
        self._cause = "free"
        self._quiescent_ns = time.monotonic_ns()
        self._busy = False
        self._pumping = False
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._stopped = False
        self._log = logs.logger("gateway")

    def add(self, servers: Mapping[str, LocalServer]) -> None:
        """Makes layers reachable: their in-process servers, by the names that the input log gives them."""
        self._injector.add(servers)

    # ── the stack's own life ─────────────────────────────────────────────────────────────────────────────────────

    async def within(self, work: Callable[[], Awaitable[T]]) -> T:
        """Runs `work` on the stack's loop, time passing freely, and returns its result; the sockets wait meanwhile."""
        done: asyncio.Future[T] = self._outer.create_future()

        def run() -> None:
            try:
                done.set_result(self.loop.run_until_complete(work()))
            except Exception as error:
                done.set_exception(error)

        self._outer.call_soon(run, context=Context())
        return await done

    async def shut(self, grace_s: float = 1.0) -> None:
        """Ends advances and streams, refuses new calls, and gives those with one answer `grace_s` of real time.

        Callers whose calls end so see UNAVAILABLE `SHUTTING_DOWN`. To be called before the ports stop. Idempotent.
        """
        self.clock.stop()
        await self._callers.shut(grace_s)

    def hasten(self) -> None:
        """Ends the grace of a `shut` that waits, or is to come."""
        self._callers.hasten()

    async def stop(self, work: Callable[[], Awaitable[object]]) -> None:
        """Ends the log with the stack's orderly stop, `work`. To be called when no port is served any more. Idempotent.

        What calls and settings are still to be injected is, first.
        """
        if self._stopped:
            return
        self._stopped = True
        self.clock.stop()
        while (self._inputs or self._open) and not self.failed.done():
            self.wake()
            await asyncio.sleep(0)
        self._closed = True
        if not self.failed.done():
            await self._in_callback(self._write_stop)
        await self.within(work)
        if not self.failed.done():
            self._write(Record("end", sha256=self.tally.sha256))
        if self._input_log is not None:
            self._input_log.close()

    def _write_stop(self) -> None:
        self.loop.run_until_quiescent()
        self._write(Record("stop"))

    async def _in_callback(self, work: Callable[[], object]) -> None:
        """Runs `work` in a plain callback: in a task, the virtual loop could not run tasks of its own."""
        done = self._outer.create_future()

        def run() -> None:
            try:
                work()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        self._outer.call_soon(run, context=Context())
        await done

    # ── the door ─────────────────────────────────────────────────────────────────────────────────────────────────

    def kind(self, layer: str, method: str) -> Kind | None:
        """Returns which ways a method of a layer streams; None for one that the layer does not have."""
        return self._injector.kind(layer, method)

    async def serve(self, layer: str, method: str, kind: Kind, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Handles a call from outside from its begin to its end."""
        call = OutsideCall(self, layer, method, kind)
        with self._callers.held(call):
            await call.serve(context)

    def submit(self, call: OutsideCall, record: Record) -> None:
        """Takes an input of a call, to be injected when the stack is quiescent.

        Raises:
            Unavailable: `SHUTTING_DOWN`, the stack stops; `GATEWAY_CLOSED`, the gateway has failed.
            ResourceExhausted: `GATEWAY_FULL` or `INPUT_LOG_FULL`.
        """
        if record.kind in ("open", "message"):
            if record.kind == "open":
                self._callers.check_open(call)
            self._check_room(record)
        self._inputs.append((call, record))
        self._input_bytes += len(record.data)
        self.wake()

    def answered(self, call: OutsideCall, *, ended: bool) -> None:
        """Learns, on the virtual loop, that the stack has sent something to a call, or its status."""
        self.clock.pace.active_ns = self.loop.now_ns
        if ended:
            self._ended.append(call)

    def wake(self) -> None:
        """Has the pump run soon."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._pumping and not self._closed:
            self._pumping = True
            self._outer.call_soon(self._pump, context=Context())

    def _submit_setting(self, record: Record) -> None:
        self._inputs.append((None, record))
        self.wake()

    def _check_room(self, record: Record) -> None:
        if self._closed or self.failed.done():
            raise Unavailable("The stack stops.", reason="GATEWAY_CLOSED", next_step="Start it again with `lamina up`.")
        if len(self._callers) > MAX_CALLS or self._input_bytes + len(record.data) > MAX_INPUT_BYTES:
            raise ResourceExhausted(
                f"{len(self._callers)} calls with {self._input_bytes} bytes wait at the gateway.",
                reason="GATEWAY_FULL",
                next_step="Wait until some have ended, and retry.",
            )
        if self._input_log is not None:
            self._input_log.check_room(record)

    # ── the pump ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        """Lets the stack work for a slice of real time, and schedules the next one."""
        self._pumping = False
        real_ns = time.monotonic_ns()
        end_ns = real_ns + SLICE_NS
        try:
            while not self._closed:
                if self.loop.run_until_quiescent(max_callbacks=BATCH):
                    self._quiescent_ns = real_ns
                    if not self._go_on():
                        return
                elif real_ns - self._quiescent_ns > BUSY_NS:
                    self._inject_into_busy()
                real_ns = time.monotonic_ns()
                if real_ns >= end_ns:
                    self.wake()
                    return
        except Exception as error:
            self._fail(error)

    def _inject_into_busy(self) -> None:
        """Injects into a stack that does not become quiescent; the records say behind how many callbacks."""
        self._busy = True
        try:
            self._note_ended()
            self._inject(time.monotonic_ns())
        finally:
            self._busy = False

    def _go_on(self) -> bool:
        """Does the next thing while the stack is quiescent: an input, or time. Returns False when there is none."""
        real_ns = time.monotonic_ns()
        self._note_ended()
        self._note_time(real_ns, at_once=self.clock.settle())
        if self._holds_for_readers(real_ns):
            return False
        if self._inject(real_ns):
            return True
        until_ns, cause, delay_ns = self.clock.step(real_ns)
        if until_ns is None:
            self._note_time(real_ns, at_once=delay_ns is None)
            if gc.get_count()[0] > GARBAGE and not gc.isenabled():
                self._write(Record("collect"))
                collect_garbage()
            if delay_ns is not None:
                self._wake_in(delay_ns)
            return False
        self._cause = cause
        self.loop.run_until_quiescent(until_ns, max_callbacks=BATCH)
        return True

    def _inject(self, real_ns: int) -> bool:
        """Injects the next input that still matters; returns whether there was one."""
        while self._inputs:
            if not self._busy and (due_ns := self.clock.due_now(real_ns)) > self.loop.now_ns:
                self._cause = "paced"
                if not self.loop.run_until_quiescent(due_ns, max_callbacks=BATCH):
                    return True  # there is work at that time, and it comes first
            call, record = self._inputs.popleft()
            self._input_bytes -= len(record.data)
            if call is None:
                self._write(record)
                self.clock.make_setting(record)
                return True
            if not call.is_moot(record):
                self._inject_call(call, record)
                return True
        return False

    def _inject_call(self, call: OutsideCall, record: Record) -> None:
        self.clock.pace.active_ns = self.loop.now_ns
        if record.kind == "open":
            self._opened += 1
            call.number = self._opened
            self._open[call] = None
            self._count(call, 1)
        record = self._write(replace(record, call=call.number))
        if record.kind == "open":
            self.loop.call_soon(partial(self._injector.open, record, call), context=Context())
        else:
            self.loop.call_soon(self._injector.apply, record, context=Context())
        if record.kind in ("cancel", "deadline"):
            call.cancelled = True
        elif record.kind == "half_close":
            self._count(call, 0)

    def _note_ended(self) -> None:
        """Logs how the calls ended that have since the last look, and forgets them."""
        ended, self._ended = self._ended, []
        for call in ended:
            if not call.cancelled:
                self._write(call.tally.record(call.number, call.code.name))
            self._injector.forget(call.number)
            del self._open[call]
            self._count(call, -1)

    def _count(self, call: OutsideCall, by: int) -> None:
        """Counts a call that begins (1), whose client has said all (0), or that ends (-1) among those that wait.

        Only a call whose client has said all waits for the stack alone: while an image is uploaded, no time is free.
        """
        if not waits_for_time(call.method):
            return
        self.clock.waiting += by
        if call.kind[1]:
            return
        if by == 0 or (by > 0 and not call.kind[0]):
            call.asked = True
            self.clock.waiting_for_one += 1
        elif by < 0 and call.asked:
            self.clock.waiting_for_one -= 1

    def _holds_for_readers(self, real_ns: int) -> bool:
        """Says whether to let readers catch up before more time passes; cuts those that have stood still for long."""
        behind = [call for call in self._open if call.is_behind()]
        for call in behind:
            if not (left := call.patience_ns(real_ns)):
                self._log.warning("reader.cut", call=call.number, method=call.method)
                call.cut()
            else:
                self._wake_in(left)
                return True
        return False

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _note_time(self, real_ns: int, *, at_once: bool) -> None:
        """Logs that time has passed without an input; at most once a second while it goes on passing."""
        if self.loop.now_ns <= self._logged_ns:
            return
        if at_once or real_ns >= self._advance_logged_ns + ADVANCE_LOG_NS:
            self._advance_logged_ns = real_ns
            self._write(Record("advance", cause=self._cause))

    def _write(self, record: Record) -> Record:
        """Logs a record at its place and returns it so."""
        self._sequence += 1
        record = replace(
            record,
            ns=self.loop.now_ns,
            sequence=self._sequence,
            events=self.tally.count,
            callbacks=self.loop.callbacks if self._busy else None,
        )
        self._logged_ns = self.loop.now_ns
        self.clock.note_change()
        if self._input_log is not None:
            self._input_log.write(record)
        return record

    def _wake_in(self, delay_ns: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._outer.call_later(delay_ns / 1e9, self.wake)

    def _fail(self, error: Exception) -> None:
        """Gives up: nothing enters the stack any more, and every call ends with the reason."""
        self._log.error("gateway.failed", exc_info=error)
        self._closed = True
        self.clock.stop()
        known = isinstance(error, LaminaError)
        if not self.failed.done():
            self.failed.set_exception(error)
        self._callers.refuse_all(
            lambda call: (
                Unavailable(str(error), reason="GATEWAY_CLOSED")
                if known
                else Internal("The gateway failed by a defect; the stack stands still.", reason="GATEWAY_FAILED")
            )
        )
