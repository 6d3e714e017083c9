"""A backend of datagrams, one a frame, over UDP or between UNIX sockets, as QEMU's `-netdev dgram` sends them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.backend.address import SocketAddress
from lamina_vswitch.domain.backend.definition import BackendState
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.io.backends.backend import sorted_out
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.refusals import refusal
from lamina_vswitch.io.backends.transmit_queue import MOST_AT_ONCE, TransmitQueue

_LONGEST = 65536
"""Bytes that are read of a datagram: one more than the longest frame, so that a longer one shows."""
_BUFFER = 4 << 20


class DatagramBackend:
    """A datagram socket at `local`. With a `remote` only its datagrams are heard; without, it is whoever sent last."""

    takes: Takes | None = None

    def __init__(self, end: PortEnd, local: SocketAddress, remote: SocketAddress | None, capacity: int) -> None:
        self.state, self.detail = BackendState.OPEN, ""
        self._end = end
        self._fixed = _plain(remote) if remote is not None else None
        self._peer: Any = self._fixed
        self._strangers = 0
        self._path = Path(local.host) if local.family == "unix" else None
        self._socket = _bound(local)
        self.local = local if self._path else SocketAddress("udp", *self._socket.getsockname()[:2])
        watched = self._path is None
        self._transmit_queue = TransmitQueue(self._socket.fileno(), capacity, self._send, end.lost, watched=watched)

    def start(self) -> None:
        """Begin to bring frames."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Close the socket and remove its path. Idempotent."""
        if self._socket.fileno() < 0:
            return
        self._end.close()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._transmit_queue.withdraw()
        self._socket.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames to the peer, if there is one."""
        if self._peer is None:
            return 0
        taken: list[bytes] = []
        lost: list[bytes] = []
        for frame in frames:
            (taken if self._transmit_queue.put(frame) else lost).append(frame)
        return sorted_out(frames, taken, lost)

    def withdraw(self) -> list[bytes]:
        """Return what waits."""
        return self._transmit_queue.withdraw()

    def link_changed(self, up: bool) -> None:
        """Do nothing: a datagram socket has no link to show."""

    def removed(self) -> None:
        """Do nothing: who keeps the backends closes it."""

    def _send(self, frame: bytes) -> None:
        self._socket.sendto(frame, self._peer)

    def _readable(self) -> None:
        frames: list[bytes] = []
        for _ in range(MOST_AT_ONCE):
            try:
                frame, sender = self._socket.recvfrom(_LONGEST)
            except OSError as error:  # nothing there, or what became of a datagram that was sent before
                if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED, errno.EINTR):
                    self.detail = f"the last receive failed: {error.strerror}"
                break
            sender = sender[:2] if isinstance(sender, tuple) else sender
            if self._fixed is None:
                self._peer = sender or self._peer
            elif sender != self._fixed:
                self._strangers += 1
                self.detail = f"{self._strangers} datagrams of others than the peer were not heard"
                continue
            frames.append(frame)
        self._end.transmit(frames)


def _plain(address: SocketAddress) -> Any:
    return address.host if address.family == "unix" else (address.host, address.port)


def _bound(local: SocketAddress) -> socket.socket:
    """Return a socket at an address. A path that a dead process left behind is taken over."""
    family = socket.AF_UNIX if local.family == "unix" else socket.AF_INET6 if ":" in local.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        bind(made, local)
    except OSError as error:
        made.close()
        raise in_use(local, error) from error
    return made


def bind(made: socket.socket, local: SocketAddress) -> None:
    """Give a socket its address; a path at which nobody listens any more is removed first."""
    try:
        made.bind(_plain(local))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or local.family != "unix" or not _is_dead(made.type, local.host):
            raise
        os.unlink(local.host)
        made.bind(_plain(local))


def in_use(local: SocketAddress, error: OSError) -> LaminaError:
    """Return the error for an address that cannot be had."""
    capability = "CAP_NET_BIND_SERVICE" if local.family != "unix" else ""
    return refusal(f"address {local}", error, capability)


def _is_dead(kind: int, path: str) -> bool:
    """Tell whether nobody receives at a socket's path; a path that is no socket is somebody's."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)  # one who listens, and has enough who wait already, would keep this waiting
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
