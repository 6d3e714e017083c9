"""A TCP/IP stack on the kit's clock: carries its frames, wakes it in time, and waits where its calls would not.

    shell = NetShell(stack, clock, transmit)      # transmit(interface, frame) gives a frame to the wire
    shell.frame("eth0", data)                     # what the wire brings
    client = stack.sockets.open_tcp()
    await shell.connect(client, Endpoint(address, 80))
    await shell.send_all(client, b"GET / HTTP/1.0\\r\\n\\r\\n")
    while data := await shell.recv(client, 65536): ...

The waiting calls answer as those of `lamina_net.sockets.api` do, `Refused` included, but never AGAIN. Between calls on
the stack itself and `carry` nothing moves. ADR 0035 says why the stack is driven from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from lamina_kit.clock import Clock
from lamina_net.stack import Stack
from lamina_net.tcp.interface import Endpoint, Errno, Handle, Refused

T = TypeVar("T")


class NetShell:
    """Runs one stack on the loop that is running. `transmit` must not wait; it may bring frames back at once."""

    def __init__(self, stack: Stack, clock: Clock, transmit: Callable[[str, bytes], None]) -> None:
        self.stack = stack
        self._clock, self._transmit = clock, transmit
        self._waiting: dict[Handle, list[asyncio.Future[None]]] = {}
        self._carrying = False
        self._sleeper: asyncio.Task[None] | None = None
        self._wakeup_ns = 0
        self._closed = False

    def frame(self, interface: str, data: bytes) -> None:
        """Take a frame from the wire; raises KeyError for an interface that is not there."""
        self.stack.frame(interface, data, self._clock.now_ns())
        self.carry()

    def frames(self, interface: str, batch: Iterable[bytes]) -> None:
        """Take what came together from the wire, and answer it together; raises KeyError as `frame` does."""
        self.stack.frames(interface, batch, self._clock.now_ns())
        self.carry()

    def carry(self) -> None:
        """Give the wire what the stack has for it, wake who waits, and see to the next wakeup.

        A frame that comes back meanwhile is answered after those that were before it.
        """
        if self._carrying:
            return
        self._carrying = True
        try:
            while True:
                frames, events = self.stack.drain()
                if not frames and not events:
                    break
                for event in events:  # first, as a wire may raise
                    self._wake(event.handle)
                for interface, frame in frames:
                    self._transmit(interface, frame)
        finally:
            self._carrying = False
            self._set_timer()

    async def close(self) -> None:
        """Stop the timer for good: frames that still come are answered, but nothing is sent again.

        The stack stays as it is; whoever waits in a call goes on waiting, so cancel them first.
        """
        self._closed = True
        if (sleeper := self._sleeper) is not None:
            self._sleeper = None
            sleeper.cancel()
            await asyncio.gather(sleeper, return_exceptions=True)

    async def connect(self, handle: Handle, remote: Endpoint) -> Refused | None:
        """Connect; for TCP, wait until the connection is there, or refused."""
        refused = self.stack.sockets.connect(handle, remote, self._clock.now_ns())
        self.carry()
        return refused if refused is not None else await self._until(handle, lambda: self._connected(handle))

    async def accept(self, listener: Handle) -> Handle | Refused:
        """Wait for a connection."""
        return await self._until(listener, lambda: self.stack.sockets.accept(listener, self._clock.now_ns()))

    async def recv(self, handle: Handle, size: int) -> bytes | Refused:
        """Wait for bytes, or for a datagram; b"" at the end of a stream."""
        return await self._until(handle, lambda: self.stack.sockets.recv(handle, size, self._clock.now_ns()))

    async def recv_from(self, handle: Handle, size: int) -> tuple[bytes, Endpoint] | Refused:
        """Wait for what `recv` does, and tell whence it came."""
        return await self._until(handle, lambda: self.stack.sockets.recv_from(handle, size, self._clock.now_ns()))

    async def send(self, handle: Handle, data: bytes, to: Endpoint | None = None) -> int | Refused:
        """Send a datagram, or wait until a stream takes some of the bytes; return how many."""
        return await self._until(handle, lambda: self.stack.sockets.send(handle, data, self._clock.now_ns(), to))

    async def send_all(self, handle: Handle, data: bytes) -> Refused | None:
        """Wait until a stream has taken all bytes."""
        rest = memoryview(data)
        while rest:
            taken = await self.send(handle, bytes(rest[:65536]))
            if isinstance(taken, Refused):
                return taken
            rest = rest[taken:]
        return None

    def _connected(self, handle: Handle) -> Refused | None:
        ready = self.stack.sockets.poll(handle)
        if isinstance(ready, Refused):
            return ready
        if ready.error is not None:
            return Refused(ready.error)
        return None if ready.writable else Refused(Errno.AGAIN)

    async def _until(self, handle: Handle, attempt: Callable[[], T | Refused]) -> T | Refused:
        """Try a call until it says something else than AGAIN; between two tries something happened to the socket."""
        while True:
            result = attempt()
            woken = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(handle, [])
            waiting.append(woken)  # before `carry`, whose frames may bring at once what is waited for
            try:
                self.carry()
                if result != Refused(Errno.AGAIN):
                    return result
                await woken
            finally:
                self._leave(handle, woken)

    def _leave(self, handle: Handle, woken: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(handle, [])
        if woken in waiting:
            waiting.remove(woken)
        if not waiting:
            self._waiting.pop(handle, None)

    def _wake(self, handle: Handle) -> None:
        for woken in self._waiting.pop(handle, ()):
            if not woken.done():
                woken.set_result(None)

    def _set_timer(self) -> None:
        """See that somebody sleeps until the stack's next wakeup, or until an earlier one that turns out to be none."""
        at_ns = self.stack.next_wakeup_ns
        if at_ns is None or self._closed or (self._sleeper is not None and self._wakeup_ns <= at_ns):
            return
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._wakeup_ns = at_ns
        self._sleeper = asyncio.get_running_loop().create_task(self._sleep(at_ns))

    async def _sleep(self, at_ns: int) -> None:
        await self._clock.sleep_ns(at_ns - self._clock.now_ns())
        self._sleeper = None
        self.stack.timer(self._clock.now_ns())
        self.carry()
