"""The one writer: feeds the engine with what happened, lets it settle, and performs the effects that it asks for.

Work outside (calls to runtimes) runs in tasks of its own, whose results come back as inputs; the writer itself awaits
nothing but the next input or the next time at which something is due.
"""

from __future__ import annotations

import asyncio
from collections import deque

from lamina_kit.clock import Clock
from lamina_kit.errors import Internal, LaminaError
from lamina_kit.layer.state import LayerState
from lamina_kit.telemetry import log, trace
from lamina_orchestrator.domain.pods.steps import WorkFailed
from lamina_orchestrator.engines.interface import Connect, Disconnect, Engine, Input, Outgoing, RunStep, StepDone
from lamina_orchestrator.io.performer import Performer
from lamina_orchestrator.io.runtimes.agents import Agents, Connector


class Writer:
    """Runs an engine. Times are the clock's wall time: objects keep time stamps across restarts."""

    def __init__(self, engine: Engine, clock: Clock, connector: Connector, layer: LayerState) -> None:
        self._engine = engine
        self._clock = clock
        self._layer = layer
        self._log = log.logger("orchestrator")
        self.agents = Agents(connector, clock, self.post)
        self._performer = Performer(self.agents.runtime_of)
        self._inbox: deque[Input] = deque()
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._timer_ns = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    def post(self, event: Input) -> None:
        """Hands in what happened outside."""
        self._inbox.append(event)
        self._wake.set()

    def poke(self) -> None:
        """Says that a caller wrote something. Raises Internal `WRITER_STOPPED` when nobody will act on it."""
        if self._main is None or self._main.done():
            raise Internal(
                "The orchestrator's writer has stopped: what was written is stored, but nothing acts on it.",
                reason="WRITER_STOPPED",
                next_step="Look at the orchestrator's log, and restart it.",
            )
        self._wake.set()

    def start(self) -> None:
        """Starts the loop."""
        self._main = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stops the loop, the agents and what is under way. Containers go on running. Idempotent."""
        await self.agents.stop()
        tasks = [task for task in (self._main, self._timer, *self._tasks) if task is not None]
        self._main = self._timer = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued and no step is under way."""
        return not self._inbox and not self._wake.is_set() and not self._tasks

    async def _run(self) -> None:
        try:
            await self._turns()
        except Exception:
            self._log.exception("writer.stopped")
            raise

    async def _turns(self) -> None:
        while True:
            self._wake.clear()
            self._take_inbox()
            settled = self._engine.settle(self._clock.wall_ns())
            for effect in settled.effects:
                self._perform(effect)
            if settled.unfinished:
                await asyncio.sleep(0)
                continue
            self._set_timer(settled.next_ns)
            await self._wake.wait()

    def _take_inbox(self) -> None:
        while self._inbox:
            event = self._inbox.popleft()
            try:
                self._engine.feed(event, self._clock.wall_ns())
            except LaminaError as error:
                self._log.error("input.unrecorded", kind=type(event).__name__, reason=error.reason, error=str(error))

    def _set_timer(self, at_ns: int) -> None:
        if self._timer is not None and (not self._timer.done()) and self._timer_ns == at_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ns = at_ns
        if at_ns:
            self._timer = asyncio.get_running_loop().create_task(self._due(at_ns))

    async def _due(self, at_ns: int) -> None:
        await self._clock.sleep_ns(at_ns - self._clock.wall_ns())
        self._wake.set()

    def _perform(self, effect: Outgoing) -> None:
        if isinstance(effect, Connect):
            self.agents.connect(effect.node, effect.address)
        elif isinstance(effect, Disconnect):
            self.agents.disconnect(effect.node)
        else:
            task = asyncio.get_running_loop().create_task(self._step(effect))
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _step(self, effect: RunStep) -> None:
        """Performs a step under the trace that its pod names, or one of its own.

        Below, events have that trace as their cause; the event that it begins with leads from there to the pod.
        """
        context = trace.parse(effect.traceparent) if effect.traceparent else None
        context = context or self._layer.recorder.new_root()
        trace.enter(context, self._layer.recorder)
        self._layer.events.record(
            effect.pod.resource_name, "step.begun", cause=effect.cause, step=effect.name, trace=context.trace_id
        )
        try:
            with trace.span(effect.name, object=effect.pod.resource_name, node=effect.node):
                outcome = await self._performer.run(effect.step)
        except Exception as error:  # the pod's worker has to go on
            self._log.exception("step.failed", step=effect.name, pod=effect.pod.resource_name)
            outcome = WorkFailed("InternalError", f"{type(error).__name__}: {error}")
        self.post(StepDone(effect.node, effect.uid, effect.name, outcome))
