"""One direction of an in-process stream: serialized messages from one writer to one reader, bounded.

A writer that is 64 messages or 256 KiB ahead waits for the reader, as a stream on a socket makes it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lamina_kit.rpc.inproc.inline import Turn

MAX_AHEAD = 64
MAX_BYTES_AHEAD = 256 << 10


class Pipe:
    """Messages in flight. `put` and `get` wait; `close` lets the reader finish what is there, `abort` does not.

    A reader that sets `taker`, and does nothing between two messages but call it, is given messages in the step of who
    puts them, where that is possible (`inline.py`); it goes on to `get` the others. What the taker raises `get` raises.
    """

    __slots__ = (
        "_bytes",
        "_failure",
        "_loop",
        "_messages",
        "_readers",
        "_turn",
        "_writers",
        "aborted",
        "closed",
        "taker",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn = Turn.of(loop)
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._readers: deque[asyncio.Future[None]] = deque()
        self._writers: deque[asyncio.Future[None]] = deque()
        self._failure: Exception | None = None
        self.closed = False
        self.aborted = False
        self.taker: Callable[[bytes], None] | None = None

    @property
    def drained(self) -> bool:
        """Whether nothing is left to read and nothing will come."""
        return self.closed and not self._messages

    async def put(self, message: bytes) -> bool:
        """Appends a message once there is room; returns False when the pipe was closed instead."""
        while not self.closed and (len(self._messages) >= MAX_AHEAD or self._bytes >= MAX_BYTES_AHEAD):
            await self._wait(self._writers)
        if self.closed:
            return False
        self._messages.append(message)
        self._bytes += len(message)
        if self._readers:
            self._wake(self._readers)
        return True

    def put_at_once(self, message: bytes) -> bool:
        """Appends a message if there is room now; returns False when there is none, or the pipe was closed."""
        if self.closed or len(self._messages) >= MAX_AHEAD or self._bytes >= MAX_BYTES_AHEAD:
            return False
        self._messages.append(message)
        self._bytes += len(message)
        if self._readers:
            self._wake(self._readers)
        return True

    def give(self, message: bytes) -> bool:
        """Gives a message to the reader's taker, here and now; returns False when it is to be put instead."""
        taker = self.taker
        if taker is None or self._messages or self.closed or self._failure is not None:
            return False
        turn = self._turn
        if turn is None or not turn.begin(self._loop):
            return False
        self.taker = None  # a message that it causes itself is put
        try:
            taker(message)
        except Exception as error:
            self._failure = error
            self._wake(self._readers)
        finally:
            self.taker = None if self.aborted else taker
            turn.end()
        return True

    def take(self) -> bytes | None:
        """Returns the next message if there is one."""
        if not self._messages or self._failure is not None:
            return None
        message = self._messages.popleft()
        self._bytes -= len(message)
        if self._writers:
            self._wake(self._writers)
        return message

    async def get(self) -> bytes | None:
        """Returns the next message; None at the end."""
        while (message := self.take()) is None:
            if self._failure is not None:
                raise self._failure
            if self.closed:
                return None
            await self._wait(self._readers)
        return message

    def close(self) -> None:
        """Ends the stream behind the messages that are there. Idempotent."""
        self.closed = True
        while self._readers or self._writers:
            self._wake(self._readers)
            self._wake(self._writers)

    def abort(self) -> None:
        """Ends the stream at once and forgets what is there. Idempotent."""
        self._messages.clear()
        self._bytes = 0
        self.aborted = True
        self.taker = None  # it may refer to the call, which refers to this
        self.close()

    async def _wait(self, line: deque[asyncio.Future[None]]) -> None:
        waiter = self._loop.create_future()
        line.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in line:
                line.remove(waiter)
            elif not self.closed:
                self._wake(line)  # it was this one's turn: let the next have it
            raise

    @staticmethod
    def _wake(line: deque[asyncio.Future[None]]) -> None:
        while line:
            waiter = line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
