"""What carries a wire's frames to the outside: sockets and devices of the kernel. Real time only.

A medium never waits: what the kernel does not take at once is lost, as on a wire whose other end is slow.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from lamina_kit.errors import LaminaError, PermissionDenied, Unavailable

Deliver = Callable[[Sequence[bytes]], None]

MOST_FRAME = 65536 + 18
"""Longest frame that is read: the largest IP packet with a tagged Ethernet header."""

MOST_AT_ONCE = 64
"""Frames that one turn of the loop reads, so that a flood does not hold up the rest."""

DENIED = (errno.EPERM, errno.EACCES)
"""What the kernel says to those that lack a capability."""

_OVER = (errno.EBADF, errno.EBADFD, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ENOTSOCK)
"""Nothing will ever come from this end again: its interface is gone."""


class Medium(Protocol):
    """One end of a medium, opened by its making."""

    @property
    def lost(self) -> int:
        """Frames that could not be handed over, and failures of the end, by which some are lost."""
        ...

    def attach(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Begins to deliver what comes in."""
        ...

    def send(self, frames: Sequence[bytes]) -> None:
        """Hands frames over, as far as the other side takes them at once."""
        ...

    def close(self) -> None:
        """Closes the end. Idempotent."""
        ...


class SocketMedium:
    """A medium over a non-blocking socket; `receive` and `transmit` move one frame each."""

    def __init__(self, end: socket.socket) -> None:
        self.lost = 0
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        end.setblocking(False)

    def attach(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Begins to deliver what comes in."""
        self._loop = loop
        loop.add_reader(self._end.fileno(), self._readable, deliver)

    def send(self, frames: Sequence[bytes]) -> None:
        """Sends frames; those that do not go are counted as lost, whatever the kernel has against them."""
        for frame in frames:
            try:
                self.transmit(frame)
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Closes the socket. Idempotent."""
        if self._end.fileno() < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._end.fileno())
        self._end.close()

    def receive(self) -> bytes | None:
        """Returns a frame that came in, None for one that is not to be heard. Raises `BlockingIOError` without one."""
        return self._end.recv(MOST_FRAME)

    def transmit(self, frame: bytes) -> None:
        """Sends one frame."""
        self._end.send(frame)

    def _readable(self, deliver: Deliver) -> None:
        frames = []
        for _ in range(MOST_AT_ONCE):
            try:
                frame = self.receive()
            except BlockingIOError:
                break
            except OSError as error:  # of a frame sent before, or of the end itself
                self.lost += 1
                if is_over(error) and self._loop is not None:
                    self._loop.remove_reader(self._end.fileno())
                break
            if frame:
                frames.append(frame)
        if frames:
            deliver(frames)


def is_over(error: OSError) -> bool:
    """Returns whether a failed read means that an end is dead: it would be readable, and fail, for ever."""
    return error.errno in _OVER


def refuse_privilege(what: str, error: OSError) -> NoReturn:
    """Raises `PermissionDenied` `WIRE_NEEDS_PRIVILEGE` for an end that the kernel does not give."""
    raise PermissionDenied(
        f"{what} cannot be opened: {error.strerror}.",
        reason="WIRE_NEEDS_PRIVILEGE",
        next_step="Give the process CAP_NET_ADMIN and CAP_NET_RAW, or use a `udp` or `unix` medium.",
    ) from error


def unavailable(what: str, error: OSError) -> LaminaError:
    """Returns the error for an address that cannot be had: `WIRE_ADDRESS_IN_USE`."""
    return Unavailable(
        f"{what} cannot be had: {error.strerror}.",
        reason="WIRE_ADDRESS_IN_USE",
        next_step="Choose another address, or end what uses it.",
    )
