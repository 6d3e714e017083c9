"""Sockets under a wire: what the kernel refuses is counted, and never reaches the event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from lamina_hardware.io.media.datagrams import UdpMedium
from lamina_hardware.io.media.medium import SocketMedium


@contextmanager
def udp(remote: tuple[str, int]) -> Iterator[UdpMedium]:
    """Gives a medium on a port of its own."""
    medium = UdpMedium(("127.0.0.1", 0), remote)
    try:
        yield medium
    finally:
        medium.close()


@pytest.mark.parametrize("remote", [("127.0.0.1", 0), ("::1", 9), ("255.255.255.255", 9)])
def test_frames_that_cannot_be_sent_are_lost(remote: tuple[str, int]) -> None:
    """Whatever the kernel has against a peer, the frames are counted, and the sender goes on."""
    with udp(remote) as medium:
        medium.send([b"one", b"two"])
        assert medium.lost == 2


async def test_datagrams_of_every_size(eventually: Any) -> None:
    """An empty datagram is no frame, the longest comes whole, and strangers are not heard."""
    heard: list[bytes] = []
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        peer.bind(("127.0.0.1", 0))
        with udp(peer.getsockname()) as medium:
            medium.attach(loop, heard.extend)
            stranger.sendto(b"stranger", medium.local)
            for data in (b"", bytes(65507), b"x"):
                peer.sendto(data, medium.local)
            await eventually(lambda: len(heard) == 2, "both frames are heard")
    assert heard == [bytes(65507), b"x"]


class _Failing(SocketMedium):
    """An end whose reads fail."""

    def __init__(self, end: socket.socket, number: int) -> None:
        super().__init__(end)
        self._number = number

    def receive(self) -> bytes | None:
        """Fails once, then reads."""
        number, self._number = self._number, 0
        if number:
            raise OSError(number, "made to fail")
        return super().receive()


@pytest.mark.parametrize(
    ("number", "goes_on"), [(errno.ENOMEM, True), (errno.ECONNREFUSED, True), (errno.ENODEV, False)]
)
async def test_a_read_that_fails_is_counted(number: int, goes_on: bool, eventually: Any) -> None:
    """A failed read never reaches the loop; an end that is dead is not asked again, which would never end."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    raised: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(context))
    medium = _Failing(here, number)
    heard: list[bytes] = []

    def hear(frames: Sequence[bytes]) -> None:
        heard.extend(frames)

    medium.attach(loop, hear)
    try:
        there.send(b"frame")
        await eventually(lambda: medium.lost and (heard or not goes_on), "the read has failed, and perhaps gone on")
        assert (medium.lost, heard) == (1, [b"frame"] if goes_on else [])
        assert loop.remove_reader(here.fileno()) is goes_on
        assert not raised
    finally:
        medium.close()
        there.close()
        loop.set_exception_handler(None)
