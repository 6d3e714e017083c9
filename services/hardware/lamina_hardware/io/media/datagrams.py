"""Wires over datagrams: UDP, and UNIX sockets as QEMU's `-netdev dgram` has them. One frame a datagram."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from lamina_hardware.io.media.medium import MOST_FRAME, SocketMedium, unavailable

_BUFFER = 4 << 20
LONGEST_PATH = 107
"""Bytes of a UNIX socket's path."""


class UdpMedium(SocketMedium):
    """UDP datagrams to one peer; datagrams of others are not heard. Addresses are numeric."""

    def __init__(self, local: tuple[str, int], remote: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        end = socket.socket(family, socket.SOCK_DGRAM)
        try:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            end.bind(local)
        except OSError as error:
            end.close()
            raise unavailable(f"UDP {local[0]}:{local[1]}", error) from error
        super().__init__(end)
        self._remote = remote

    @property
    def local(self) -> tuple[str, int]:
        """Where it receives, with the port that the system chose."""
        address = self._end.getsockname()
        return str(address[0]), int(address[1])

    def receive(self) -> bytes | None:
        """Returns a datagram of the peer, None for one of somebody else."""
        frame, sender = self._end.recvfrom(MOST_FRAME)
        return frame if sender[:2] == self._remote else None

    def transmit(self, frame: bytes) -> None:
        """Sends one datagram."""
        self._end.sendto(frame, self._remote)


class UnixMedium(SocketMedium):
    """Datagrams between two paths. A path that a dead process left behind is taken over; it is removed at the end."""

    def __init__(self, local: Path, remote: Path) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._bind(end, local)
        except OSError as error:
            end.close()
            raise unavailable(f"UNIX socket {local}", error) from error
        super().__init__(end)
        self._local, self._remote = local, remote

    def transmit(self, frame: bytes) -> None:
        """Sends one datagram."""
        self._end.sendto(frame, str(self._remote))

    def close(self) -> None:
        """Closes the socket and removes its path. Idempotent."""
        if self._end.fileno() >= 0:
            super().close()
            self._local.unlink(missing_ok=True)

    @staticmethod
    def _bind(end: socket.socket, local: Path) -> None:
        try:
            end.bind(str(local))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(local):
                raise
            os.unlink(local)
            end.bind(str(local))


def _is_dead(path: Path) -> bool:
    """Returns whether nobody receives at a socket's path; a path that is no socket is somebody's."""
    if not path.is_socket():
        return False
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False
