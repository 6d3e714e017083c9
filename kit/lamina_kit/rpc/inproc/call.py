"""One in-process call: the state that its two ends share, and the end that the handler sees.

    stub ──▶ calls.LocalCall ──▶ Rpc ◀── LocalContext ◀── handler        (LocalContext is an Rpc)

The call has one status. The server *concludes* it; the client sees it (*settled*) once it has read the messages before
it, as on a socket. A deadline or a cancellation settles at once, drops the messages and cancels the handler's task.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
from grpc.aio import EOF, AbortError, AioRpcError, Metadata, UsageError

from lamina_kit.rpc.inproc.inline import Turn, is_next
from lamina_kit.rpc.inproc.pipe import Pipe
from lamina_kit.rpc.inproc.route import Route

MAX_MESSAGE = 8 << 20
"""Largest message in bytes, in either direction, on sockets and in process."""
MAX_ANSWER = (4 << 20) - (64 << 10)
"""Most bytes of data in a response: a client whose library was told nothing takes messages of at most 4 MiB."""

Pairs = tuple[tuple[str, str | bytes], ...]

_OK = grpc.StatusCode.OK
_CANCELLED = grpc.StatusCode.CANCELLED
_KEY = re.compile(r"[-_.0-9a-z]+")
LOCALLY_CANCELLED = "Locally cancelled by application!"


def pairs(metadata: Iterable[tuple[str, str | bytes]] | None) -> Pairs:
    """Returns metadata as a tuple of pairs; a pair that gRPC would refuse is a `ValueError`."""
    if not metadata:
        return ()
    result = metadata if type(metadata) is tuple else tuple((key, value) for key, value in metadata)
    for key, value in result:
        if key not in _SOUND_KEYS:
            _check_key(key)
        if (type(value) is bytes) is not key.endswith("-bin"):
            raise ValueError(f"metadata was invalid: the value of {key!r} is {type(value).__name__}")
    return result


_SOUND_KEYS: dict[str, None] = {}
_MAX_SOUND_KEYS = 1000


def _check_key(key: str) -> None:
    """Raises `ValueError` for a key that gRPC would refuse; remembers one that it takes."""
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"metadata was invalid: the key {key!r}")
    if len(_SOUND_KEYS) < _MAX_SOUND_KEYS:
        _SOUND_KEYS[key] = None


def too_large(size: int) -> str:
    """Returns what gRPC says about a message of `size` bytes."""
    return f"Received message larger than max ({size} vs. {MAX_MESSAGE})"


_NONE_ACTIVE: dict[Any, None] = {}


class Rpc:
    """The state of one call. `active` are the calls of its server, where it is listed while its handler runs.

    What most calls never touch is a default of the class, which makes a call cheaper to begin.
    """

    code_now: grpc.StatusCode = _OK
    details_now = ""
    trailing: Pairs = ()
    initial: Pairs | None = None
    response: bytes | None = None
    requests: Pipe | None = None
    responses: Pipe | None = None
    concluded = False
    settled = False
    locally_cancelled = False
    started = False
    at_once = False
    turn: Turn | None = None
    task: asyncio.Task[None] | None = None
    poller: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    deadline: float | None = None
    _waiters: list[asyncio.Future[None]] | None = None
    _client_callbacks: list[Callable[[], object]] | None = None
    _server_callbacks: list[Callable[[], object]] | None = None

    def __init__(self, method: str, metadata: Pairs, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        self.method = method
        self.metadata = metadata
        self.loop = loop
        self.active: dict[Any, None] = _NONE_ACTIVE
        if timeout is not None:
            self.deadline = loop.time() + timeout

    def limit(self) -> None:
        """Sees to the deadline of a call that goes on. Idempotent."""
        if self.deadline is not None and self.timer is None and not self.settled:
            self.timer = self.loop.call_at(self.deadline, self._deadline_passed)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def conclude(self, code: grpc.StatusCode, details: str = "", trailing: Pairs | None = None) -> None:
        """Gives the call its status, from the server's side; the first one counts."""
        if self.concluded:
            return
        self.concluded = True
        self.code_now = code
        self.details_now = details
        if trailing is not None:
            self.trailing = trailing
        if self.requests is not None:
            self.requests.abort()
        if self._server_callbacks:
            self._call_back(self._server_callbacks)
        if self.responses is None or self.responses.drained:
            self.settle()
        else:
            self.responses.close()
            if self.responses.drained:
                self.settle()

    def settle(self) -> None:
        """Lets the client see the status that the call has."""
        if self.settled:
            return
        self.settled = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.poller is not None and self.poller is not asyncio.current_task(self.loop):
            self.poller.cancel()
        if self._waiters is not None:
            self._release()
        if self._client_callbacks is not None:
            self._call_back(self._client_callbacks)

    def give_up(self, code: grpc.StatusCode, details: str, *, locally: bool = False) -> bool:
        """Ends the call from the client's side; returns False when the client had seen its status before."""
        if self.settled:
            return False
        self.locally_cancelled = locally
        was_concluded = self.concluded
        self.concluded = True
        self.code_now = code
        self.details_now = details
        self.trailing = ()
        for pipe in (self.requests, self.responses):
            if pipe is not None:
                pipe.abort()
        if not was_concluded and self._server_callbacks:
            self._call_back(self._server_callbacks)
        if self.task is not None:
            self.task.cancel()
            if not self.started:
                self.active.pop(self, None)  # its coroutine will not run at all
        self.settle()
        return True

    def _deadline_passed(self) -> None:
        self.give_up(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def begin_now(self) -> None:
        """Runs the first step of the handler, whose task has just been made, where that may be (`inline.py`)."""
        if self.turn is not None and self.task is not None and is_next(self, self.active):
            self.at_once = True
            self.turn.step(self.loop, self.task)
            self.at_once = False
            if self.started:
                self.limit()

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def waiter(self) -> asyncio.Future[None]:
        """Returns a future that is done when the call settles or sends its initial metadata."""
        waiter = self.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter

    async def until_settled(self) -> None:
        """Returns once the client sees a status."""
        while not self.settled:
            await self.waiter()

    async def until_initial(self) -> None:
        """Returns once initial metadata are there, or the status."""
        while self.initial is None and not self.settled:
            await self.waiter()

    def send_initial(self, metadata: Pairs) -> None:
        """Makes initial metadata visible; the first ones count."""
        if self.initial is None:
            self.initial = metadata
            self._release()

    def error(self) -> AioRpcError:
        """Returns the error that the client raises for the status of a settled call."""
        return AioRpcError(
            self.code_now,
            Metadata(*(self.initial or ())),
            Metadata(*self.trailing),
            details=self.details_now,
            debug_error_string=f"in-process call of {self.method}",
        )

    def on_settled(self, callback: Callable[[], object]) -> None:
        """Calls back when the client sees the status; at once when it has."""
        if self.settled:
            self.loop.call_soon(callback)
        elif self._client_callbacks is None:
            self._client_callbacks = [callback]
        else:
            self._client_callbacks.append(callback)

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _call_back(self, callbacks: list[Callable[[], object]]) -> None:
        for callback in callbacks:
            self.loop.call_soon(callback)


class LocalContext(Rpc, grpc.aio.ServicerContext[Any, Any]):
    """The call as its handler sees it: what `grpc.aio.ServicerContext` offers."""

    _status_code: grpc.StatusCode | None = None
    _status_details = ""

    def __init__(self, route: Route, metadata: Pairs, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        Rpc.__init__(self, route.method, metadata, loop, timeout)
        self._route = route

    async def read(self) -> Any:
        """Returns the client's next message, or `grpc.aio.EOF`."""
        if self.requests is None:
            raise UsageError("This method has one request, which the handler was called with.")
        raw = await self.requests.get()
        return EOF if raw is None else self._route.deserialize(raw)

    def take_at_once(self, take: Callable[[Any], None]) -> None:
        """Has `take` called with messages where the client writes them, as far as may be; `read` returns the others.

        It runs in a context of its own and in no task of the call's, and must not wait. What it raises `read` raises.
        """
        if self.requests is None:
            raise UsageError("This method has one request, which the handler was called with.")
        run, deserialize = contextvars.copy_context().run, self._route.deserialize
        self.requests.taker = lambda raw: run(take, deserialize(raw))

    async def requests_of(self) -> AsyncIterator[Any]:
        """Yields the client's messages."""
        while (message := await self.read()) is not EOF:
            yield message

    async def write(self, message: Any) -> None:
        """Sends a message, waiting while the client is far behind."""
        if self.responses is None:
            raise UsageError("This method has one response, which the handler returns.")
        if self.concluded:
            raise UsageError("RPC already finished.")
        raw = self._route.serialize(message)
        if len(raw) > MAX_MESSAGE:
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, too_large(len(raw)))
        if self.initial is None:
            self.send_initial(())
        await self.responses.put(raw)

    def write_at_once(self, message: Any) -> bool:
        """Sends a message if that can be done now, also outside of the handler's task; else `write` is to send it."""
        if self.responses is None or self.concluded:
            return False
        raw = self._route.serialize(message)
        if len(raw) > MAX_MESSAGE or not self.responses.put_at_once(raw):
            return False
        if self.initial is None:
            self.send_initial(())
        return True

    def finish(self, response: Any = None, *, unary: bool = False) -> None:
        """Concludes the call after its handler returned: the response, or the status that the handler has set."""
        if self.concluded:
            return
        code = self._status_code or _OK
        if code is _OK and unary:
            raw = self._route.serialize(response)
            if len(raw) > MAX_MESSAGE:
                self.conclude(grpc.StatusCode.RESOURCE_EXHAUSTED, too_large(len(raw)))
                return
            self.response = raw
            if self.requests is None and self._server_callbacks is None:
                self.concluded = True  # the usual end of most calls, without the detours of `conclude`
                self.settle()
                return
        self.conclude(code, self._status_details)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a status by raising `grpc.aio.AbortError`, which handlers let pass."""
        if code is _OK:
            raise UsageError("A call cannot be aborted with OK.")
        if self.concluded:
            raise UsageError("Abort already called!")
        self.conclude(code, details, pairs(trailing_metadata) or None)
        raise AbortError(f"{code.name}: {details}")

    async def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call with a `grpc.Status`."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Sends initial metadata; once, and before the first message."""
        if self.initial is not None:
            raise UsageError("Send initial metadata failed: already sent")
        self.send_initial(pairs(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sets the metadata that the status carries."""
        self.trailing = pairs(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Returns the metadata that the status will carry."""
        return self.trailing

    def invocation_metadata(self) -> Any:
        """Returns the client's metadata as pairs, in its order."""
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status code with which the call ends when the handler returns."""
        self._status_code = code

    def set_details(self, details: str) -> None:
        """Sets the text of the status."""
        self._status_details = details

    def code(self) -> Any:
        """Returns the status code that the handler has set; OK when none."""
        return self._status_code or _OK

    def details(self) -> str:
        """Returns the status text that the handler has set."""
        return self._status_details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Changes nothing: nothing is compressed in process."""

    def disable_next_message_compression(self) -> None:
        """Changes nothing: nothing is compressed in process."""

    def peer(self) -> str:
        """Returns `inproc:`."""
        return "inproc:"

    def peer_identities(self) -> Any:
        """Returns None: the caller is this process."""
        return None

    def peer_identity_key(self) -> str | None:
        """Returns None: the caller is this process."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Returns nothing: the caller is this process."""
        return {}

    def time_remaining(self) -> Any:
        """Returns seconds to the deadline, not below 0; None without one."""
        return None if self.deadline is None else max(self.deadline - self.loop.time(), 0.0)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls `callback(context)` once the call has a status."""
        if self.concluded:
            self.loop.call_soon(callback, self)
            return
        if self._server_callbacks is None:
            self._server_callbacks = []
        self._server_callbacks.append(lambda: callback(self))

    def cancelled(self) -> bool:
        """Returns whether the call ended as cancelled."""
        return self.concluded and self.code_now is _CANCELLED

    def done(self) -> bool:
        """Returns whether the call has a status."""
        return self.concluded
