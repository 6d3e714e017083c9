"""The inner end of a call from outside: what the stack, on its virtual loop, sees of it.

`Injector.apply` does to the stack what a record of the input log says. The gateway applies records as they come, a
replay as it reads them; both through this module, so both do the same. It has to be called in a callback of the
virtual loop. What the stack answers goes to the call's `Outlet`, at once and without ever waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import grpc

from lamina_kit.errors import DataLoss
from lamina_kit.gateway.log import Record
from lamina_kit.rpc.inproc.call import Pairs, pairs
from lamina_kit.rpc.inproc.local import LocalChannel, LocalServer

Kind = tuple[bool, bool]
"""Whether a method streams in, and out."""


class Outlet(Protocol):
    """Takes what the stack answers to one call. No method waits or fails."""

    def initial(self, metadata: Pairs) -> None:
        """Takes the initial metadata, before the first message; not called when there are none."""

    def message(self, data: bytes) -> None:
        """Takes the next message."""

    def end(self, code: grpc.StatusCode, details: str, trailing: Pairs) -> None:
        """Takes the status, once, behind all messages."""

    def taken(self, size: int) -> None:
        """Learns that the stack has taken a message of `size` bytes from the client."""


class InnerCall:
    """One call from outside inside the stack. Its methods are called on the virtual loop."""

    def __init__(self, channel: LocalChannel, record: Record, kind: Kind, outlet: Outlet) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._record = record
        self._streams_in, self._streams_out = kind
        self._outlet = outlet
        self._call: Any = None
        self._inbox: deque[bytes] = deque()
        self._half_closed = False
        self._more: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []  # the loop itself keeps tasks only weakly
        self.done = False
        if self._streams_in:
            self._begin()
            self._tasks.append(self._loop.create_task(self._feed()))

    def message(self, data: bytes) -> None:
        """Gives the handler a message from the client; the one that a method without a stream takes begins the call."""
        if self._streams_in:
            self._inbox.append(data)
            self._wake()
        elif self._call is None:
            self._begin(data)
            self._outlet.taken(len(data))

    def half_close(self) -> None:
        """Tells the handler that the client sends no more."""
        self._half_closed = True
        self._wake()

    def cancel(self) -> None:
        """Cancels the call, as its client's end does."""
        if self._call is None:
            self._finish(grpc.StatusCode.CANCELLED, "Cancelled before its request came.", ())
        else:
            self._call.cancel()

    def _begin(self, *request: bytes) -> None:
        kind = f"{'stream' if self._streams_in else 'unary'}_{'stream' if self._streams_out else 'unary'}"
        self._call = getattr(self._channel, kind)(self._record.method)(*request, metadata=self._record.metadata)
        self._tasks.append(self._loop.create_task(self._answer()))

    async def _feed(self) -> None:
        """Writes what the client sends to the handler, as fast as that takes it."""
        call = self._call
        try:
            # A handler that has ended the call takes no more; the status, which `_answer` passes on, says how it ended.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                while True:
                    while self._inbox:
                        data = self._inbox.popleft()
                        await call.write(data)
                        self._outlet.taken(len(data))
                    if self._half_closed:
                        await call.done_writing()
                        return
                    self._more = self._loop.create_future()
                    await self._more
        except asyncio.CancelledError:
            if self._cancelled_itself():
                raise

    async def _answer(self) -> None:
        """Passes on what the handler answers, then the status."""
        call = self._call
        try:
            with contextlib.suppress(grpc.aio.AioRpcError):  # the status that it says is passed on below
                if metadata := pairs(tuple(await call.initial_metadata())):
                    self._outlet.initial(metadata)
                if self._streams_out:
                    while (message := await call.read()) is not grpc.aio.EOF:
                        self._outlet.message(message)
                else:
                    self._outlet.message(await call)
        except asyncio.CancelledError:
            if self._cancelled_itself():
                raise
        trailing = pairs(tuple(await call.trailing_metadata()))
        self._finish(await call.code(), await call.details() or "", trailing)

    @staticmethod
    def _cancelled_itself() -> bool:
        """Says whether a cancellation is this task's own (the loop ends), and not that of the call that it awaits."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _finish(self, code: grpc.StatusCode, details: str, trailing: Pairs) -> None:
        if not self.done:
            self.done = True
            self._half_closed = True
            self._wake()
            self._outlet.end(code, details, trailing)


class Injector:
    """Does to a stack what records of the input log say."""

    def __init__(self) -> None:
        self._servers: dict[str, LocalServer] = {}
        self._channels: dict[str, LocalChannel] = {}
        self._calls: dict[int, InnerCall] = {}

    def add(self, servers: Mapping[str, LocalServer]) -> None:
        """Makes layers reachable: their in-process servers by the name that the `layer` of an `open` record has."""
        self._servers.update(servers)

    def kind(self, layer: str, method: str) -> Kind | None:
        """Returns which ways a method of a layer streams; None for one that there is not."""
        server = self._servers.get(layer)
        return None if server is None else server.route(method).kind

    def check(self, record: Record) -> Kind:
        """Returns which ways the method of an `open` record streams.

        Raises:
            DataLoss: `INPUT_LOG_FOREIGN`, this stack has no such layer or method.
        """
        kind = self.kind(record.layer, record.method)
        if kind is None:
            raise DataLoss(
                f"Call {record.call} of the input log is of {record.layer}{record.method}, which this stack lacks.",
                reason="INPUT_LOG_FOREIGN",
                next_step="Replay the log with the version and the configuration that its header names.",
            )
        return kind

    def open(self, record: Record, outlet: Outlet) -> None:
        """Opens the call of an `open` record. Raises as `check` does."""
        kind = self.check(record)
        channel = self._channels.get(record.layer)
        if channel is None:
            # Deadlines of calls from outside are real time and come as records; so there is no default one here.
            channel = self._channels[record.layer] = LocalChannel(self._servers[record.layer], default_timeout_s=None)
        self._calls[record.call] = InnerCall(channel, record, kind, outlet)

    def apply(self, record: Record) -> None:
        """Does what a record of a call says; a call that has ended takes nothing more."""
        call = self._calls.get(record.call)
        if call is None:
            return
        if record.kind == "message":
            call.message(record.data)
        elif record.kind == "half_close":
            call.half_close()
        elif record.kind in ("cancel", "deadline"):
            call.cancel()

    def forget(self, call: int) -> None:
        """Drops a call that has ended."""
        self._calls.pop(call, None)

    def is_open(self, call: int) -> bool:
        """Says whether a call has not ended yet."""
        found = self._calls.get(call)
        return found is not None and not found.done


def collect_garbage() -> None:
    """Collects garbage. Its moment is an input: a finalizer can do something to the stack, such as cancel a call."""
    gc.collect()
