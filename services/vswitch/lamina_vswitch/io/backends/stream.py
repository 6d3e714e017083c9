"""A backend of one byte stream with a length before each frame, as QEMU's `-netdev stream` sends it."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from lamina_kit.clock import Clock
from lamina_vswitch.domain.backend.address import SocketAddress
from lamina_vswitch.domain.backend.definition import BackendState
from lamina_vswitch.domain.backend.deframer import Deframer, framed
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.io.backends.datagram import bind, in_use
from lamina_vswitch.io.backends.port_end import PortEnd

RETRY_NS = 1_000_000_000
_READ_BYTES = 256 << 10
_SEND_FRAMES = 256


class StreamBackend:
    """Waits for one peer at a time at an address, or connects to it, again each second."""

    takes: Takes | None = None

    def __init__(self, end: PortEnd, address: SocketAddress, capacity: int, clock: Clock, *, listen: bool) -> None:
        self.state, self.detail = BackendState.WAITING, ""
        self._end, self._address, self._capacity, self._clock = end, address, capacity, clock
        self._path = Path(address.host) if listen and address.family == "unix" else None
        self._listener = _listening(address) if listen else None
        self.address = _address_of(self._listener, address)
        self._peer: socket.socket | None = None
        self._over = asyncio.Event()
        self._deframer = Deframer()
        self._waiting: deque[bytes] = deque()
        self._begun = b""
        self._watching = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for the peer."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Close the sockets and remove the path. Idempotent."""
        self._end.close()
        if self._task is not None:
            self._task.cancel()
        self._part("it was closed")
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames for the peer, if there is one."""
        if self._peer is None:
            return 0
        taken = 0
        while taken < len(frames) and (room := self._capacity - len(self._waiting)) > 0:
            self._waiting.extend(frames[taken : taken + room])
            taken = min(taken + room, len(frames))
            self._flush()
            if self._peer is None:
                break
        return taken

    def withdraw(self) -> list[bytes]:
        """Return what waits; a frame of which the peer has a part goes on."""
        frames = list(self._waiting)
        self._waiting.clear()
        return frames

    def link_changed(self, up: bool) -> None:
        """Do nothing: the stream lasts."""

    def removed(self) -> None:
        """Do nothing: who keeps the backends closes it."""

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer = await (self._accept(loop) if self._listener is not None else self._connect(loop))
            if peer is None:
                await self._clock.sleep_ns(RETRY_NS)
                continue
            self._meet(peer, loop)
            await self._over.wait()
            if self._listener is None:
                await self._clock.sleep_ns(RETRY_NS)

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> socket.socket | None:
        assert self._listener is not None
        self.detail = self.detail or f"listening at {self.address}"
        try:
            peer, _ = await loop.sock_accept(self._listener)
        except OSError as error:
            self.detail = f"accepting at {self.address} failed: {error.strerror}"
            return None
        return peer

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket | None:
        peer = socket.socket(_family(self._address), socket.SOCK_STREAM)
        peer.setblocking(False)
        try:
            await loop.sock_connect(peer, _target(self._address))
        except OSError as error:
            peer.close()
            self.detail = f"connecting to {self._address} failed: {error.strerror or error}"
            return None
        except BaseException:
            peer.close()
            raise
        return peer

    def _meet(self, peer: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer, self._deframer, self._begun = peer, Deframer(), b""
        self._over.clear()
        self.state, self.detail = BackendState.OPEN, ""
        loop.add_reader(peer.fileno(), self._readable)

    def _part(self, why: str) -> None:
        """End the connection, if there is one; what waited for its peer is lost."""
        peer, self._peer = self._peer, None
        if peer is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(peer.fileno())
        self._watch(peer, False)
        peer.close()
        self._end.lost(self.withdraw())
        self.state, self.detail = BackendState.WAITING, why
        self._over.set()

    def _readable(self) -> None:
        assert self._peer is not None
        try:
            data = self._peer.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._part(f"the peer is gone: {error.strerror}")
            return
        if not data:
            self._part("the peer closed the connection")
            return
        frames, too_long = self._deframer.feed(data)
        self._end.turn_away(DropReason.OVERSIZE, [b""] * too_long)
        self._end.transmit(frames)

    def _flush(self) -> None:
        peer = self._peer
        while peer is not None and (self._begun or self._waiting):
            if not self._begun:
                count = min(len(self._waiting), _SEND_FRAMES)
                self._begun = framed(self._waiting.popleft() for _ in range(count))
            try:
                sent = peer.send(self._begun)
            except (BlockingIOError, InterruptedError):
                self._watch(peer, True)
                return
            except OSError as error:
                self._part(f"the peer is gone: {error.strerror}")
                return
            self._begun = self._begun[sent:]
        if peer is not None:
            self._watch(peer, False)

    def _watch(self, peer: socket.socket, wanted: bool) -> None:
        """Have the loop say when the peer takes more, or no longer."""
        loop = asyncio.get_running_loop()
        if wanted and not self._watching:
            loop.add_writer(peer.fileno(), self._flush)
        elif not wanted and self._watching:
            loop.remove_writer(peer.fileno())
        self._watching = wanted


def _family(address: SocketAddress) -> socket.AddressFamily:
    if address.family == "unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _target(address: SocketAddress) -> str | tuple[str, int]:
    return address.host if address.family == "unix" else (address.host, address.port)


def _listening(address: SocketAddress) -> socket.socket:
    made = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if address.family != "unix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(made, address)
        made.listen(1)
    except OSError as error:
        made.close()
        raise in_use(address, error) from error
    return made


def _address_of(listener: socket.socket | None, address: SocketAddress) -> SocketAddress:
    if listener is None or address.family == "unix":
        return address
    return SocketAddress("tcp", *listener.getsockname()[:2])
