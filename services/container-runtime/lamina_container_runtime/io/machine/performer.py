"""Performs the effects of the engine's steps: the shell around the pure kernel.

Each thread of a container is one task that drives one endless step (`MainLoop.run`). Tasks meet only in wait
queues, whose waiters resume them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lamina_container_runtime.domain.wait import Woken
from lamina_container_runtime.engines.model import effects
from lamina_container_runtime.engines.model.effects import ContextRef, RunResult, Spawn, Wait
from lamina_container_runtime.io.machine.clients import Clients
from lamina_container_runtime.io.machine.runs import Runs
from lamina_kit.clock import Clock
from lamina_kit.driver import drive
from lamina_kit.effects import Effect, Sleep, Step
from lamina_kit.telemetry import log, trace

T = TypeVar("T")
TRACED_EFFECTS = 400
"""A task that a sampled call started records spans for this many effects, then no more: programs run for ever."""


class Performer:
    """Performs effects with calls to the layers below."""

    def __init__(self, clients: Clients, clock: Clock, recorder: trace.Recorder) -> None:
        self._clients = clients
        self._clock = clock
        self._recorder = recorder
        self._runs = Runs(clients)
        self._log = log.logger("container-runtime")
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._count = 0
        self._handlers: dict[type[Effect], Callable[[Any], Awaitable[Any]]] = {
            Sleep: self._sleep,
            Wait: self._wait,
            Spawn: self._spawn,
            effects.Run: self._run,
            effects.FaultIn: clients.fault_in,
            effects.CreateSpace: clients.create_space,
            effects.ForkSpace: clients.fork_space,
            effects.DeleteSpace: clients.delete_space,
            effects.MapRange: clients.map_range,
            effects.UnmapRange: clients.unmap_range,
            effects.ProtectRange: clients.protect_range,
            effects.ListMappings: clients.list_mappings,
            effects.CreateObject: clients.create_object,
            effects.DeleteObject: clients.delete_object,
            effects.CreateContext: clients.create_context,
            effects.DeleteContext: self._delete_context,
            effects.CreateGroups: clients.create_groups,
            effects.DeleteGroups: clients.delete_groups,
        }

    def __call__(self, effect: Effect) -> Awaitable[Any]:
        """Performs one effect; awaited it gives its result."""
        return self._handlers[type(effect)](effect)

    async def drive(self, step: Step[T]) -> T:
        """Runs a step to its end and returns its result.

        The step goes on to its end also when the caller goes away, so that no half of it is left undone.
        """
        return await asyncio.shield(self._start(drive(step, self), "call"))

    async def drive_cancellable(self, step: Step[T]) -> T:
        """Runs a step that only waits, and ends it with its caller."""
        return await drive(step, self)

    def kick(self, context: ContextRef) -> None:
        """Stops a context that is on a core, without waiting for it."""
        self._start(self._clients.kick(context), "kick")

    async def stop(self) -> None:
        """Ends all tasks, newest first, and waits for them."""
        for number in sorted(self._tasks, reverse=True):
            task = self._tasks.get(number)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._runs.close_all()

    def _start(self, work: Any, label: str) -> asyncio.Task[Any]:
        self._count += 1
        number = self._count
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work, name=f"container-runtime {label}")
        self._tasks[number] = task
        task.add_done_callback(lambda done: self._ended(number, label, done))
        return task

    def _ended(self, number: int, label: str, task: asyncio.Task[Any]) -> None:
        del self._tasks[number]
        if not task.cancelled() and task.exception() is not None and label != "call":
            self._log.error("task.failed", task=label, exc_info=task.exception())

    async def _spawn(self, effect: Spawn) -> None:
        self._start(self._run_spawned(effect), effect.label)

    async def _run_spawned(self, effect: Spawn) -> None:
        try:
            await self._traced(effect.step)
        except Exception as error:
            if effect.cleanup is None:
                raise
            self._log.error("task.failed", task=effect.label, exc_info=error)
            await drive(effect.cleanup(), self)

    async def _traced(self, step: Step[None]) -> None:
        context = trace.current()
        if context is None or not context.sampled:
            await drive(step, self)
            return
        left = TRACED_EFFECTS

        async def perform(effect: Effect) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                trace.enter(None, self._recorder)
            return await self(effect)

        await drive(step, perform)

    async def _run(self, effect: effects.Run) -> RunResult:
        thread = effect.thread
        thread.on_core = True
        try:
            if not trace.is_sampled():  # as at almost every exit
                return await self._runs.run(thread.context)
            with trace.span("core.run", context=thread.context.name, pid=thread.pid):
                return await self._runs.run(thread.context)
        finally:
            thread.on_core = False

    async def _delete_context(self, effect: effects.DeleteContext) -> None:
        self._runs.close(effect.context)
        await self._clients.delete_context(effect)

    async def _sleep(self, effect: Sleep) -> None:
        await self._clock.sleep_ns(effect.ns)

    async def _wait(self, effect: Wait) -> None:
        waiter = effect.waiter
        if waiter.reason is not None:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.on_fire = lambda: None if done.done() else done.set_result(None)
        timer = None
        if effect.timeout_ns is not None:
            timer = asyncio.get_running_loop().create_task(self._time_out(effect, effect.timeout_ns))
        try:
            await done
        finally:
            waiter.on_fire = None
            if timer is not None:
                timer.cancel()

    async def _time_out(self, effect: Wait, timeout_ns: int) -> None:
        await self._clock.sleep_ns(timeout_ns)
        effect.waiter.fire(Woken.TIMEOUT)
