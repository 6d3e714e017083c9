"""The client's end of in-process calls: what a generated stub returns, one class a kind of call.

They offer what the calls of `grpc.aio` offer. A stream whose call object is dropped before its end is cancelled; the
object is its own iterator and in no reference cycle, so leaving an `async for` early does that at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Generator, Iterable
from functools import partial
from typing import Any

import grpc
from grpc.aio import EOF, Metadata, UsageError

from lamina_kit.rpc.inproc.call import LOCALLY_CANCELLED, Rpc
from lamina_kit.rpc.inproc.pipe import Pipe

_OK = grpc.StatusCode.OK
_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."
_LOG = logging.getLogger(__name__)


class LocalCall:
    """What all kinds share: status, metadata, cancellation."""

    __slots__ = ("_deserialize", "_rpc")

    def __init__(self, rpc: Rpc, deserialize: Callable[[bytes], Any]) -> None:
        self._rpc = rpc
        self._deserialize = deserialize

    def __repr__(self) -> str:
        state = self._rpc.code_now.name if self._rpc.settled else "in progress"
        return f"<{type(self).__name__} of {self._rpc.method}: {state}>"

    def cancel(self) -> bool:
        """Cancels the call; returns False when it had ended."""
        return self._rpc.give_up(grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED, locally=True)

    def cancelled(self) -> bool:
        """Returns whether the call ended as cancelled."""
        return self._rpc.settled and self._rpc.code_now is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Returns whether the call has ended."""
        return self._rpc.settled

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls `callback(call)` when the call ends."""
        self._rpc.on_settled(partial(callback, self))

    def time_remaining(self) -> float | None:
        """Returns seconds to the deadline, not below 0; None without one."""
        deadline = self._rpc.deadline
        return None if deadline is None else max(deadline - self._rpc.loop.time(), 0.0)

    async def initial_metadata(self) -> Metadata:
        """Returns the server's initial metadata, once they or the status are there."""
        await self._rpc.until_initial()
        return Metadata(*(self._rpc.initial or ()))

    async def trailing_metadata(self) -> Metadata:
        """Returns the metadata of the status, once it is there."""
        await self._rpc.until_settled()
        return Metadata(*self._rpc.trailing)

    async def code(self) -> grpc.StatusCode:
        """Returns the status code, once it is there."""
        await self._rpc.until_settled()
        return self._rpc.code_now

    async def details(self) -> str:
        """Returns the text of the status, once it is there."""
        await self._rpc.until_settled()
        return self._rpc.details_now

    async def debug_error_string(self) -> str:
        """Returns what call it was, once it has ended."""
        await self._rpc.until_settled()
        return f"in-process call of {self._rpc.method}"

    async def wait_for_connection(self) -> None:
        """Raises when the call has failed already; there is no connection to wait for."""
        if self._rpc.settled:
            self._raise_for_status()

    def _raise_for_status(self) -> None:
        if self._rpc.locally_cancelled:
            raise asyncio.CancelledError
        if self._rpc.code_now is not _OK:
            raise self._rpc.error()


class _UnaryResponse(LocalCall):
    """A call that is awaited for its one response."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        rpc = self._rpc
        if not rpc.started:
            rpc.begin_now()
        while not rpc.settled:
            try:
                yield from rpc.waiter()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if rpc.code_now is not _OK or rpc.locally_cancelled:
            self._raise_for_status()
        return self._deserialize(rpc.response or b"")


class _StreamResponse(LocalCall):
    """A call that is iterated, or read, for its responses."""

    def __init__(self, rpc: Rpc, deserialize: Callable[[bytes], Any]) -> None:
        super().__init__(rpc, deserialize)
        self._read_style = ""

    def __del__(self) -> None:
        if not self._rpc.settled and not self._rpc.loop.is_closed():
            self._rpc.give_up(grpc.StatusCode.CANCELLED, "Cancelled upon garbage collection!", locally=True)

    def __aiter__(self) -> _StreamResponse:
        self._choose("iterator")
        return self

    async def __anext__(self) -> Any:
        message = await self._next()
        if message is EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """Returns the next message, or `grpc.aio.EOF`; raises when the stream ended by an error."""
        rpc = self._rpc
        if not rpc.settled:
            self._choose("reader")
        if rpc.responses is not None and not rpc.concluded and (raw := rpc.responses.take()) is not None:
            return self._deserialize(raw)
        return await self._next()

    async def _next(self) -> Any:
        rpc = self._rpc
        responses = rpc.responses
        if responses is None:
            raise UsageError("This call has one response; await it.")
        try:
            raw = await responses.get()
            if raw is None:
                await rpc.until_settled()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if rpc.concluded and responses.drained:
            rpc.settle()
        if raw is None or responses.aborted:
            self._raise_for_status()
            return EOF
        return self._deserialize(raw)

    def _choose(self, style: str) -> None:
        if self._read_style and self._read_style != style:
            raise UsageError(_MIXED)
        self._read_style = style


class _StreamRequest(LocalCall):
    """A call that sends a stream of requests: from an iterator, or by `write`."""

    _serialize: Callable[[Any], bytes]
    _half_closed: bool
    _written: bool

    def send(self, serialize: Callable[[Any], bytes], source: AsyncIterable[Any] | Iterable[Any] | None) -> None:
        """Begins sending from `source`, or by `write` when there is none; the channel calls it once."""
        self._serialize = serialize
        self._half_closed = False
        self._written = source is None
        if source is not None:
            self._rpc.poller = self._rpc.loop.create_task(_feed(self._rpc, serialize, source))

    async def write(self, request: Any) -> None:
        """Sends a message, waiting while the server is far behind; raises when the call has ended.

        A message for a handler that has returned is dropped: the status, behind the responses, says how it ended.
        """
        if not self._written:
            raise UsageError(_MIXED)
        if self._rpc.settled:
            self._raise_for_status()
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        requests, raw = _requests(self._rpc), self._serialize(request)
        if requests.taker is not None and requests.give(raw):
            return
        try:
            sent = await requests.put(raw)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not sent and self._rpc.settled:
            self._raise_for_status()

    async def done_writing(self) -> None:
        """Says that no more messages come. Idempotent."""
        if not self._written:
            raise UsageError(_MIXED)
        self._half_closed = True
        _requests(self._rpc).close()


class UnaryUnaryCall(_UnaryResponse):
    """One request, one response."""

    __slots__ = ()


class UnaryStreamCall(_StreamResponse):
    """One request, a stream of responses."""


class StreamUnaryCall(_StreamRequest, _UnaryResponse):
    """A stream of requests, one response."""


class StreamStreamCall(_StreamRequest, _StreamResponse):
    """A stream of requests, a stream of responses."""


def _requests(rpc: Rpc) -> Pipe:
    if rpc.requests is None:
        raise UsageError("This call has one request.")
    return rpc.requests


async def _feed(rpc: Rpc, serialize: Callable[[Any], bytes], source: AsyncIterable[Any] | Iterable[Any]) -> None:
    """Sends what an iterator gives. An iterator that fails cancels the call, as in grpc.aio; it ends with the call."""
    pipe = _requests(rpc)
    try:
        if isinstance(source, AsyncIterable):
            async for request in source:
                if not await pipe.put(serialize(request)):
                    return
        else:
            for request in source:
                if not await pipe.put(serialize(request)):
                    return
    except asyncio.CancelledError:
        if not rpc.settled:
            rpc.give_up(grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED, locally=True)
        raise
    except Exception:
        _LOG.warning("the requests of %s ended by an error; the call is cancelled", rpc.method, exc_info=True)
        rpc.give_up(grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED, locally=True)
        return
    pipe.close()
