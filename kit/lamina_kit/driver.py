"""Performs the effects of pure steps (`effects.py`).

`drive` runs one step. `Performer` is the usual `perform`: it knows the common effects, and a layer adds its own:

    perform = Performer(clock)
    perform.on(FaultIn, fault_in)               # async def fault_in(effect: FaultIn) -> None
    result = await drive(kernel.read(process, fd, address, count), perform)
    perform.wake(("pipe", 7))                   # releases every step that waits for this key
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from lamina_kit.clock import Clock
from lamina_kit.effects import Effect, Sleep, Step, WaitFor
from lamina_kit.errors import Internal

T = TypeVar("T")
E = TypeVar("E", bound=Effect)


async def drive(step: Step[T], perform: Callable[[Effect], Awaitable[Any]], begun: Effect | None = None) -> T:
    """Runs `step` to its end and returns its result; awaits `perform` for each effect on the way.

    `begun` is what a step asked for that the caller has begun: most that could wait need nothing, and end there.

    An exception of `perform`, cancellation included, is raised inside the step at its yield, so that the step's own
    `finally` and `except` blocks decide. What the step does not catch leaves `drive`.
    """
    try:
        effect = next(step) if begun is None else begun
        while True:
            try:
                result = await perform(effect)
            except BaseException as error:
                effect = step.throw(error)
            else:
                effect = step.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        step.close()


class Performer:
    """Performs `Sleep` and `WaitFor`, and what a layer registers with `on`.

    Waiters of one key are released in the order in which they came.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handlers: dict[type[Effect], Callable[[Any], Awaitable[Any]]] = {Sleep: self._sleep, WaitFor: self._wait}
        self._waiting: dict[Hashable, list[asyncio.Future[Any]]] = {}

    def on(self, kind: type[E], handler: Callable[[E], Awaitable[Any]]) -> None:
        """Registers who performs effects of exactly this class."""
        self._handlers[kind] = handler

    async def __call__(self, effect: Effect) -> Any:
        """Performs `effect` and returns its result; an effect that nobody registered for is `Internal`."""
        handler = self._handlers.get(type(effect))
        if handler is None:
            raise Internal(
                f"Nobody performs the effect {type(effect).__name__}.",
                reason="EFFECT_UNKNOWN",
                next_step="Register it with Performer.on.",
            )
        return await handler(effect)

    def wake(self, key: Hashable, value: object = None) -> int:
        """Releases all that wait for `key` now, each with `value`; returns how many."""
        waiters = [waiter for waiter in self._waiting.pop(key, []) if not waiter.done()]
        for waiter in waiters:
            waiter.set_result(value)
        return len(waiters)

    def waiting(self, key: Hashable) -> int:
        """Returns how many wait for `key`."""
        return len(self._waiting.get(key, ()))

    async def _sleep(self, effect: Sleep) -> None:
        await self._clock.sleep_ns(effect.ns)

    async def _wait(self, effect: WaitFor) -> Any:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(effect.key, [])
        waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters and self._waiting.get(effect.key) is waiters:
                del self._waiting[effect.key]
