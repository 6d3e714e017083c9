"""Calls to a layer below whose answer may be lost: made again, and undone when nobody knows what became of them.

    below = Retry(clock)
    made = await below.call(lambda: stub.CreateSpace(request, metadata=session.metadata))   # request has a request_id
    below.later("hosts/h1/spaces/s-7", lambda: stub.DeleteSpace(gone))                      # until somebody answers

A call that ends with UNAVAILABLE or DEADLINE_EXCEEDED and without Lamina's details was refused by nobody: the
connection broke, and it may have been carried out or not. Only calls that may be made twice are to be made this way:
creation with a request id, deletion, and whatever else the contract calls idempotent. ADR 0010.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import grpc

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_kit.rpc.status import rpc_error

T = TypeVar("T")
MS = 10**6
PAUSES_NS = (20 * MS, 100 * MS, 500 * MS, 1000 * MS)
"""Pauses between attempts; the call fails with the last one."""
PATIENT_NS = 5000 * MS
"""Pause between attempts in the background."""
LONGEST_NS = 3600 * 10**9
"""How long the background goes on: a host whose layer is away for longer is started anew."""
_LOST = ("RPC_UNAVAILABLE", "RPC_DEADLINE_EXCEEDED", "RPC_UNKNOWN", "DEADLINE_DEFAULT")

Note = Callable[[str, LaminaError], None]


def is_lost(error: LaminaError) -> bool:
    """Whether nobody answered: the call may have been carried out or not."""
    return error.reason in _LOST


class Retry:
    """Makes calls again. `failed(name, error)` is told what the background could not do.

    `passing` are reasons that pass by themselves: a group is in use while what was in it is still being deleted.
    """

    def __init__(self, clock: Clock, failed: Note = lambda name, error: None, *, passing: Collection[str] = ()) -> None:
        self._clock = clock
        self._failed = failed
        self._passing = tuple(passing)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False

    async def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Awaits what `make` makes, and makes it again while it is lost: five times in about two seconds.

        Raises the error of the last attempt as a `LaminaError`.
        """
        try:
            return await make()
        except (grpc.aio.AioRpcError, LaminaError) as error:
            return await self.again(error, make)

    async def again(self, error: grpc.aio.AioRpcError | LaminaError, make: Callable[[], Awaitable[T]]) -> T:
        """Goes on as `call` does behind a first attempt, the caller's own, that ended with `error`."""
        try:
            for pause in PAUSES_NS:
                if not is_lost(_told(error)):
                    break
                await self._clock.sleep_ns(pause)
                try:
                    return await make()
                except (grpc.aio.AioRpcError, LaminaError) as failed:
                    error = failed
            raise _told(error)
        finally:
            del error  # which knows this call: neither is to keep the other until the collector comes

    def will_pass(self, error: LaminaError) -> bool:
        """Whether the same call may be answered otherwise later."""
        return is_lost(error) or error.reason in self._passing

    def later(self, name: str, make: Callable[[], Awaitable[object]]) -> None:
        """Goes on with a call in the background until somebody answers, whatever the answer is; not once closed."""
        if self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._persist(name, make))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _persist(self, name: str, make: Callable[[], Awaitable[object]]) -> None:
        end = self._clock.now_ns() + LONGEST_NS
        while True:
            await self._clock.sleep_ns(PATIENT_NS)
            try:
                await _attempt(make)
                return
            except LaminaError as error:
                if not self.will_pass(error) or self._clock.now_ns() >= end:
                    self._failed(name, error)
                    return

    async def close(self) -> None:
        """Ends what goes on in the background, and begins nothing there any more. Idempotent."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _told(error: grpc.aio.AioRpcError | LaminaError) -> LaminaError:
    """Returns what an error of a call says, with that error as its cause."""
    if isinstance(error, LaminaError):
        return error
    found = rpc_error(error)
    found.__cause__ = error
    return found


async def _attempt(make: Callable[[], Awaitable[T]]) -> T:
    try:
        return await make()
    except grpc.aio.AioRpcError as error:
        raise rpc_error(error) from error
