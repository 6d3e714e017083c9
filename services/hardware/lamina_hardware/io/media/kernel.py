"""Wires to the kernel's network over TAP devices. They need CAP_NET_ADMIN."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from lamina_hardware.io.media.medium import (
    DENIED,
    MOST_AT_ONCE,
    MOST_FRAME,
    Deliver,
    is_over,
    refuse_privilege,
    unavailable,
)

NAME_BYTES = 15
"""Longest name of an interface."""

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class TapMedium:
    """A TAP device: what is written enters the kernel, what the kernel sends is read.

    `name` empty lets the kernel choose; the interface is set up.
    """

    def __init__(self, name: str) -> None:
        what = f"TAP device {name or '(any)'}"
        self.lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            refuse_privilege(what, error)
        try:
            asked = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
            self.name = fcntl.ioctl(self._file, _TUNSETIFF, asked)[:16].rstrip(b"\0").decode()
            _set_up(self.name)
        except OSError as error:
            os.close(self._file)
            if error.errno in DENIED:
                refuse_privilege(what, error)
            raise unavailable(what, error) from error

    def attach(self, loop: asyncio.AbstractEventLoop, deliver: Deliver) -> None:
        """Begins to deliver what the kernel sends."""
        self._loop = loop
        loop.add_reader(self._file, self._readable, deliver)

    def send(self, frames: Sequence[bytes]) -> None:
        """Gives frames to the kernel; those that it does not take are lost."""
        for frame in frames:
            try:
                os.write(self._file, frame)
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Closes the device; its interface goes. Idempotent."""
        if self._file >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _readable(self, deliver: Deliver) -> None:
        frames = []
        for _ in range(MOST_AT_ONCE):
            try:
                frames.append(os.read(self._file, MOST_FRAME))
            except BlockingIOError:
                break
            except OSError as error:
                self.lost += 1
                if is_over(error) and self._loop is not None:
                    self._loop.remove_reader(self._file)
                break
        if frames:
            deliver(frames)


def _set_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sH22x", name.encode(), 0)
        flags = struct.unpack_from("16xH", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
