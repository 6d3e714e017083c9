"""The outer end of a call from outside: a gRPC call of any method on one of the gateway's ports, in real time.

Bytes pass through as they are: messages, metadata, deadlines, status with its details, half close, cancellation. The
client's end is an asyncio task of the real loop; what the stack answers lands in a bounded queue that this task sends
from. The stack never waits for it: a reader that stays behind is cut (RESOURCE_EXHAUSTED `READER_TOO_SLOW`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Protocol

import grpc

from lamina_kit.errors import DeadlineExceeded, InvalidArgument, LaminaError, ResourceExhausted
from lamina_kit.gateway.inner_call import Kind
from lamina_kit.gateway.log import AnswerTally, Record
from lamina_kit.rpc import status
from lamina_kit.rpc.inproc.call import Pairs, pairs
from lamina_kit.rpc.inproc.local import DEFAULT_TIMEOUT_S

SOFT_MESSAGES, SOFT_BYTES = 256, 4 << 20
"""Answers that may wait for a reader before the stack's time is held, for `PATIENCE_NS` of its standing still."""
HARD_MESSAGES, HARD_BYTES = 8192, 64 << 20
"""Answers at which a reader is cut at once: what one slice of the stack's work may produce without a look at it."""
PATIENCE_NS = 1_000_000_000
AHEAD_MESSAGES, AHEAD_BYTES = 64, 16 << 20
"""Messages of a client that may wait for the stack before no more are read from its connection."""

TRANSPORTS = ("user-agent",)
"""Metadata that tell which library and machine a call came from: the stack does not see them, nor does its log."""


class Door(Protocol):
    """What an outer call needs of the gateway."""

    def submit(self, call: OutsideCall, record: Record) -> None:
        """Takes an input of a call, to be injected when the stack is quiescent.

        Raises `ResourceExhausted` when there is no room for a call or a message; never for its end.
        """

    def wake(self) -> None:
        """Has the gateway look again: room was made."""

    def answered(self, call: OutsideCall, *, ended: bool) -> None:
        """Learns, on the virtual loop, that the stack has sent something to a call, or its status."""


class OutsideCall:
    """One call from outside. It is the `Outlet` of its inner end."""

    def __init__(self, door: Door, layer: str, method: str, kind: Kind) -> None:
        self._door = door
        self.layer = layer
        self.method = method
        self.kind = kind
        self.number = 0
        """Its number in the input log, from 1; 0 before it is injected."""
        self.gone = False
        """Whether its client no longer waits: it left, its deadline passed, or it was cut."""
        self.ended = False
        """Whether the stack has given it a status."""
        self.asked = False
        """Whether it counts as one that waits for its one answer."""
        self.cancelled = False
        """Whether its cancellation has been injected."""
        self.tally = AnswerTally()
        self.code = grpc.StatusCode.OK
        self._queue: deque[tuple[str, Any]] = deque()
        self._queued_bytes = 0
        self._progress_ns = 0
        self._filled: asyncio.Event = asyncio.Event()
        self._emptied: asyncio.Event = asyncio.Event()
        self._ahead = 0
        self._ahead_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._refusal: LaminaError | None = None
        self._ending: tuple[grpc.StatusCode, str, Pairs] | None = None

    # ── from the stack, on the virtual loop ──────────────────────────────────────────────────────────────────────

    def initial(self, metadata: Pairs) -> None:
        """Takes the initial metadata."""
        self._put("initial", metadata, 0)

    def message(self, data: bytes) -> None:
        """Takes the next message; the one that is too much for a slow reader cuts it."""
        self.tally.add(data)
        self._put("message", data, len(data))
        self._door.answered(self, ended=False)
        if len(self._queue) > HARD_MESSAGES or self._queued_bytes > HARD_BYTES:
            self.cut()

    def end(self, code: grpc.StatusCode, details: str, trailing: Pairs) -> None:
        """Takes the status."""
        self.ended = True
        self.code = code
        self._ending = (code, details, trailing)
        self._put("end", None, 0)
        self._door.answered(self, ended=True)

    def taken(self, size: int) -> None:
        """Learns that the stack has taken a message of the client."""
        self._ahead -= 1
        self._ahead_bytes -= size
        self._emptied.set()

    def _put(self, what: str, content: Any, size: int) -> None:
        if self.gone:
            return
        if not self._queue:
            self._progress_ns = time.monotonic_ns()
        self._queue.append((what, content))
        self._queued_bytes += size
        self._filled.set()

    def is_moot(self, record: Record) -> bool:
        """Says whether a record of this call need not be injected any more."""
        if record.kind == "open":
            return self.gone
        return self.number == 0 or self.ended or self.cancelled

    # ── slow readers ─────────────────────────────────────────────────────────────────────────────────────────────

    def is_behind(self) -> bool:
        """Says whether so much waits for the reader that the stack's time should be held for a moment."""
        return not self.gone and (len(self._queue) > SOFT_MESSAGES or self._queued_bytes > SOFT_BYTES)

    def patience_ns(self, real_ns: int) -> int:
        """Returns how much longer a reader that is behind may stand still; 0 when it has for too long."""
        return max(0, self._progress_ns + PATIENCE_NS - real_ns)

    def cut(self) -> None:
        """Ends the call of a reader that is too slow: its client is told, and the stack sees a cancellation."""
        if self.gone:
            return
        waiting = len(self._queue)
        self.leave("slow_reader")
        self._refuse(
            ResourceExhausted(
                f"The reader of {self.method} is too slow: {waiting} messages waited for it.",
                reason="READER_TOO_SLOW",
                next_step="Read faster, or ask for less: a stack on a clock of its own does not wait for its readers.",
                messages=waiting,
            )
        )

    def leave(self, cause: str) -> None:
        """Gives the call up: nothing more goes out, and the stack sees it cancelled if it has not ended. Idempotent."""
        if self.gone:
            return
        self.gone = True
        self._queue.clear()
        self._queued_bytes = 0
        self._emptied.set()
        kind = "deadline" if cause == "deadline" else "cancel"
        self._door.submit(self, Record(kind, cause="" if kind == "deadline" else cause))

    def refuse(self, error: LaminaError) -> None:
        """Ends the call with an error of the gateway's own."""
        self.leave("refused")
        self._refuse(error)

    def _refuse(self, error: LaminaError) -> None:
        self._refusal = error
        self._filled.set()
        if self._sender is not None:
            self._sender.cancel()

    # ── to and from the client, on the real loop ─────────────────────────────────────────────────────────────────

    async def serve(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Handles the gRPC call from its begin to its end."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(context))
        self._sender = loop.create_task(self._send(context))
        try:
            await self._until_sent(context)
        except asyncio.CancelledError:
            left = context.time_remaining()
            self.leave("deadline" if left is not None and left <= 0 else "client")
            raise
        finally:
            for task in (reader, self._sender):
                task.cancel()
            self._door.wake()
        if self._refusal is not None:
            await status.abort(context, self._refusal)
        assert self._ending is not None
        code, details, trailing = self._ending
        if code is not grpc.StatusCode.OK:
            await context.abort(code, details, trailing)
        context.set_trailing_metadata(trailing)

    async def _until_sent(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Returns when everything is sent, or the call is refused. A unary call has a default deadline."""
        assert self._sender is not None
        limited = self.kind == (False, False) and context.time_remaining() is None
        done, _ = await asyncio.wait((self._sender,), timeout=DEFAULT_TIMEOUT_S if limited else None)
        if not done:
            self.leave("deadline")
            self._refusal = DeadlineExceeded(
                f"{self.method.removeprefix('/')} took longer than {DEFAULT_TIMEOUT_S:g} s of real time.",
                reason="DEADLINE_DEFAULT",
                next_step="Give the call a deadline of its own, or advance the clock when it stands still.",
            )
        elif not self._sender.cancelled() and (error := self._sender.exception()) is not None:
            raise error

    async def _read(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Submits what the client sends, no faster than the stack takes it."""
        try:
            metadata = pairs(tuple(pair for pair in context.invocation_metadata() or () if pair[0] not in TRANSPORTS))
            opening = Record("open", layer=self.layer, method=self.method, metadata=metadata)
            if self.kind[0]:
                self._door.submit(self, opening)
                await self._read_stream(context)
            else:
                request: Any = await context.read()
                if request is grpc.aio.EOF:
                    raise InvalidArgument(f"{self.method} takes one request, and none came.", reason="REQUEST_MISSING")
                self._door.submit(self, opening)
                self._pass_on(request)
        except LaminaError as error:
            self.refuse(error)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.AbortError, grpc.aio.InternalError):
            self.leave("client")  # the connection broke; the call's own task learns it too

    async def _read_stream(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while True:
            request: Any = await context.read()
            if request is grpc.aio.EOF:
                self._door.submit(self, Record("half_close"))
                return
            self._pass_on(request)
            while not self.gone and (self._ahead >= AHEAD_MESSAGES or self._ahead_bytes >= AHEAD_BYTES):
                self._emptied.clear()
                await self._emptied.wait()

    def _pass_on(self, request: bytes) -> None:
        self._ahead += 1
        self._ahead_bytes += len(request)
        self._door.submit(self, Record("message", data=request))

    async def _send(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Sends what is queued, up to the status."""
        while True:
            while not self._queue:
                self._filled.clear()
                await self._filled.wait()
                if self.gone:
                    return
            what, content = self._queue[0]
            if what == "end":
                return
            if what == "initial":
                await context.send_initial_metadata(content)
            else:
                await context.write(content)
            was_long = self._is_long()
            if self._queue:  # it is cleared when the call is given up meanwhile
                self._queue.popleft()
                self._queued_bytes -= len(content) if what == "message" else 0
            self._progress_ns = time.monotonic_ns()
            if was_long and not self._is_long():
                self._door.wake()

    def _is_long(self) -> bool:
        """Says whether more than half of that waits for the reader at which the stack's time is held."""
        return len(self._queue) > SOFT_MESSAGES // 2 or self._queued_bytes > SOFT_BYTES // 2


class PortHandler(grpc.GenericRpcHandler):
    """Takes every method that comes to one port and is not answered beside the stack."""

    def __init__(self, door: Any, layer: str) -> None:
        self._door = door
        self._layer = layer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a call; None when the layer has no such method, which gRPC answers by itself."""
        method = handler_call_details.method
        kind = self._door.kind(self._layer, method)
        if kind is None:
            return None

        async def behaviour(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await self._door.serve(self._layer, method, kind, context)

        return grpc.stream_stream_rpc_method_handler(behaviour)
