"""The calls of a channel with faults, as a stub's caller sees them.

`FaultyUnary` is one request and one response whose fate is decided already. `FaultyStream` is any call with a stream;
it may break at any time, and then looks like a connection that went away: UNAVAILABLE, on whatever is waited for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import grpc
from grpc.aio import AioRpcError, Metadata

from lamina_kit.clock import Clock
from lamina_kit.errors import CLASSES
from lamina_kit.faults.plan import RpcFault, Verdict
from lamina_kit.rpc.status import DETAILS_KEY, to_status

Tasks: TypeAlias = dict[asyncio.Task[Any], None]
_BY_CODE = {error.code: error for error in CLASSES}
_BROKEN = "The connection broke (a fault was injected)."


def failure(verdict: Verdict, method: str) -> AioRpcError:
    """Returns the error of a call that a plan lets fail: with Lamina's details when the rule names a reason."""
    trailing: Metadata = Metadata()
    if verdict.reason:
        error = _BY_CODE[verdict.code](f"{method} failed (a fault was injected).", reason=verdict.reason)
        trailing = Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    return AioRpcError(grpc.StatusCode[verdict.code], Metadata(), trailing, details=_BROKEN)


def deadline(method: str) -> AioRpcError:
    """Returns the error of a call whose request was lost."""
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return AioRpcError(code, Metadata(), Metadata(), details="Deadline Exceeded", debug_error_string=method)


def keep(tasks: Tasks, task: asyncio.Task[Any]) -> None:
    """Keeps a task alive until it ends."""
    tasks[task] = None
    task.add_done_callback(lambda ended: tasks.pop(ended, None))


class FaultyUnary:
    """One request, one response. `begin(timeout)` makes the real call; `timeout` None: no deadline."""

    def __init__(
        self,
        begin: Callable[[float | None], Any],
        verdict: Verdict,
        method: str,
        timeout: float | None,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._begin = begin
        self._verdict = verdict
        self._method = method
        self._timeout = timeout
        self._clock = clock
        self._tasks = tasks
        self._start_ns = clock.now_ns()
        self._inner: Any = None
        self._error: AioRpcError | None = None
        self._task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self._run())
        keep(tasks, self._task)
        self._task.add_done_callback(_retrieve)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._task.__await__()

    async def _run(self) -> Any:
        try:
            return await self._fate()
        except AioRpcError as error:
            self._error = error
            raise

    async def _fate(self) -> Any:
        verdict = self._verdict
        if verdict.delay_ns:
            await self._wait(verdict.delay_ns)
        if verdict.kind is RpcFault.DROP:
            if self._timeout is None:
                raise failure(verdict, self._method)
            await self._wait(1 << 62)
        if verdict.kind is RpcFault.FAIL and not verdict.after:
            raise failure(verdict, self._method)
        self._inner = self._begin(self._left())
        if verdict.kind is RpcFault.DUPLICATE:
            keep(self._tasks, asyncio.get_running_loop().create_task(self._again(verdict.later_ns)))
        if verdict.kind is RpcFault.FAIL:
            await _until_ended(self._inner)
            raise failure(verdict, self._method)
        return await self._inner

    async def _again(self, later_ns: int) -> None:
        """Makes the call a second time and drops its answer."""
        if later_ns:
            await self._clock.sleep_ns(later_ns)
        await _until_ended(self._begin(self._timeout))

    def _left(self) -> float | None:
        if self._timeout is None:
            return None
        return max(self._timeout - (self._clock.now_ns() - self._start_ns) / 1e9, 0.0)

    async def _wait(self, ns: int) -> None:
        """Waits, but not beyond the call's deadline."""
        left = self._left()
        if left is None or ns < left * 1e9:
            await self._clock.sleep_ns(ns)
            return
        await self._clock.sleep_ns(round(left * 1e9))
        raise deadline(self._method)

    # ── what grpc.aio.UnaryUnaryCall offers ──────────────────────────────────────────────────────────────────────

    def cancel(self) -> bool:
        """Cancels the call; returns False when it had ended."""
        return self._task.cancel()

    def cancelled(self) -> bool:
        """Returns whether the call was cancelled."""
        return self._task.cancelled()

    def done(self) -> bool:
        """Returns whether the call has ended."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls `callback(call)` when the call ends."""
        self._task.add_done_callback(lambda _: callback(self))

    def time_remaining(self) -> float | None:
        """Returns seconds to the deadline; None without one."""
        return self._left()

    async def code(self) -> grpc.StatusCode:
        """Returns the status code, once it is there."""
        await _until_done(self._task)
        if self._task.cancelled():
            return grpc.StatusCode.CANCELLED
        return self._error.code() if self._error is not None else grpc.StatusCode.OK

    async def details(self) -> str:
        """Returns the text of the status, once it is there."""
        await _until_done(self._task)
        return (self._error.details() or "") if self._error is not None else ""

    async def initial_metadata(self) -> Any:
        """Returns the server's initial metadata; none when the call never reached it."""
        await _until_done(self._task)
        return await self._inner.initial_metadata() if self._inner is not None else Metadata()

    async def trailing_metadata(self) -> Any:
        """Returns the metadata of the status."""
        await _until_done(self._task)
        if self._error is not None:
            return self._error.trailing_metadata()
        return await self._inner.trailing_metadata() if self._inner is not None else Metadata()


class FaultyStream:
    """A call with a stream in one direction or both, over the call that `begin()` makes once its delay has passed.

    No task or timer keeps it alive: dropping it drops the inner call, which cancels it, as for the calls it stands for.
    """

    Reference: TypeAlias = "weakref.ReferenceType[FaultyStream]"

    def __init__(
        self, begin: Callable[[], Any], verdict: Verdict | None, method: str, clock: Clock, tasks: Tasks
    ) -> None:
        self._begin: Callable[[], Any] | None = begin
        self._verdict = verdict or Verdict(None, 0)
        self._method = method
        self._inner: Any = None
        self._error: AioRpcError | None = None
        self._cancelled = False
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Any], None]] = []
        lives = self._verdict.kind in (RpcFault.DROP, RpcFault.FAIL)
        at_once = not self._verdict.later_ns or (self._verdict.kind is RpcFault.FAIL and not self._verdict.after)
        if lives and at_once and not self._verdict.delay_ns:
            self.break_off()
            return
        if self._verdict.delay_ns:
            keep(tasks, asyncio.get_running_loop().create_task(_later(clock, self._verdict.delay_ns, self.reference())))
        else:
            self.begin()
        if lives and (ns := self._verdict.delay_ns + (0 if at_once else self._verdict.later_ns)):
            keep(tasks, asyncio.get_running_loop().create_task(_break_later(clock, ns, self.reference())))

    def reference(self) -> Reference:
        """Returns a reference that does not keep the stream alive."""
        return weakref.ref(self)

    def begin(self) -> None:
        """Makes the inner call, unless the stream has ended."""
        if self._begin is None or self._error is not None or self._cancelled:
            return
        self._inner = self._begin()
        self._begin = None
        for callback in self._callbacks:
            self._inner.add_done_callback(lambda _, callback=callback: callback(self))
        self._release()

    def break_off(self) -> bool:
        """Breaks the stream, as when the connection goes; returns False when it had ended."""
        if self.done():
            return False
        self._error = failure(self._verdict, self._method)
        if self._inner is not None:
            self._inner.cancel()
        else:
            self._end_unopened()
        self._release()
        return True

    def _end_unopened(self) -> None:
        self._begin = None
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback, self)
        self._release()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _open(self) -> Any:
        """Returns the inner call once it is made; raises when the stream ended before."""
        while self._inner is None:
            if self._error is not None:
                raise self._error
            if self._cancelled:
                raise asyncio.CancelledError
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._inner

    async def _through(self, work: Callable[[Any], Any]) -> Any:
        """Does something with the inner call; its cancellation by a break is the break's error."""
        inner = await self._open()
        try:
            return await work(inner)
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            task = asyncio.current_task()
            if self._error is not None and not (task is not None and task.cancelling()):
                raise self._error from None
            raise

    # ── what the calls of grpc.aio offer ─────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> FaultyStream:
        return self

    async def __anext__(self) -> Any:
        return await self._through(lambda inner: inner.__aiter__().__anext__())

    def __await__(self) -> Generator[Any, None, Any]:
        return self._through(_awaited).__await__()

    async def read(self) -> Any:
        """Returns the next message, or `grpc.aio.EOF`."""
        return await self._through(lambda inner: inner.read())

    async def write(self, request: Any) -> None:
        """Sends a message."""
        await self._through(lambda inner: inner.write(request))

    async def done_writing(self) -> None:
        """Says that no more messages come."""
        await self._through(lambda inner: inner.done_writing())

    def cancel(self) -> bool:
        """Cancels the call; returns False when it had ended."""
        if self.done():
            return False
        self._cancelled = True
        if self._inner is not None:
            return bool(self._inner.cancel())
        self._end_unopened()
        return True

    def cancelled(self) -> bool:
        """Returns whether the caller cancelled it."""
        return self._error is None and (self._cancelled or (self._inner is not None and self._inner.cancelled()))

    def done(self) -> bool:
        """Returns whether the call has ended."""
        return self._error is not None or self._cancelled or (self._inner is not None and self._inner.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls `callback(call)` when the call ends."""
        if self._inner is not None:
            self._inner.add_done_callback(lambda _: callback(self))
        elif self.done():
            asyncio.get_running_loop().call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        """Returns seconds to the deadline; None without one, or before the call has begun."""
        return self._inner.time_remaining() if self._inner is not None else None

    async def code(self) -> grpc.StatusCode:
        """Returns the status code, once it is there."""
        if self._error is None and not self._cancelled:
            try:
                found: grpc.StatusCode = await (await self._open()).code()
            except AioRpcError:
                found = grpc.StatusCode.UNKNOWN
            if self._error is None:
                return found
        return self._error.code() if self._error is not None else grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        """Returns the text of the status, once it is there."""
        await self.code()
        if self._error is not None or self._inner is None:
            return (self._error.details() or "") if self._error is not None else ""
        return str(await self._inner.details())

    async def initial_metadata(self) -> Any:
        """Returns the server's initial metadata, once they or the status are there."""
        return await self._through(lambda inner: inner.initial_metadata())

    async def trailing_metadata(self) -> Any:
        """Returns the metadata of the status, once it is there."""
        await self.code()
        if self._error is not None or self._inner is None:
            return self._error.trailing_metadata() if self._error is not None else Metadata()
        return await self._inner.trailing_metadata()

    async def wait_for_connection(self) -> None:
        """Waits for the connection, or raises why there is none."""
        await self._through(lambda inner: inner.wait_for_connection())


async def _awaited(call: Any) -> Any:
    return await call


async def _later(clock: Clock, ns: int, reference: FaultyStream.Reference) -> None:
    await clock.sleep_ns(ns)
    if (stream := reference()) is not None:
        stream.begin()


async def _break_later(clock: Clock, ns: int, reference: FaultyStream.Reference) -> None:
    await clock.sleep_ns(ns)
    if (stream := reference()) is not None:
        stream.break_off()


async def _until_ended(call: Any) -> None:
    """Waits for a call whose answer nobody gets."""
    try:
        await call
    except AioRpcError:
        return


async def _until_done(task: asyncio.Task[Any]) -> None:
    """Waits for a task without its result and without cancelling it."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(_: asyncio.Task[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(note)
    await ended


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Takes note of a result that nobody may ask for."""
    if not task.cancelled():
        task.exception()
