"""The file of an attached ring and the switch's doorbell, in the switch's own directory."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import tempfile
from pathlib import Path

from lamina_kit.errors import ResourceExhausted
from lamina_vswitch.domain.backend.address import MAX_PATH_BYTES
from lamina_vswitch.domain.port.ring_layout import Geometry

MAX_RING_BYTES = 1 << 30
"""Bytes of all rings of a host together."""

_MOST_RINGS = 256


class RingFolder:
    """Where the rings of a host lie. What a process that died left behind is removed when this is opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used = 0
        self._made = 0
        self._opened = False

    def make(self, geometry: Geometry) -> RingFile:
        """Return a new file of rings. Raises ResourceExhausted `RING_MEMORY_FULL`."""
        if not self._opened:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=0o700, parents=True)
            self._opened = True
        size = geometry.file_bytes
        if self._used + size > MAX_RING_BYTES:
            raise memory_full(f"this host has {MAX_RING_BYTES} bytes for them, and {self._used} are used")
        self._made += 1
        try:
            made = RingFile(self._folder / f"{self._made}.ring", geometry)
        except OSError as error:
            raise memory_full(f"{self._folder} has no room: {error.strerror}") from error
        self._used += size
        return made

    def remove(self, file: RingFile) -> None:
        """Close a file and remove it."""
        file.close()
        self._used -= file.geometry.file_bytes


class RingFile:
    """Memory of this and another process. Its room on the disk is taken at once, so that no write to it can fail."""

    def __init__(self, path: Path, geometry: Geometry) -> None:
        self.path, self.geometry = path, geometry
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, geometry.file_bytes)
            self.memory = mmap.mmap(descriptor, geometry.file_bytes)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        self.memory[: len(geometry.head())] = geometry.head()

    def close(self) -> None:
        """Remove the file. Its memory goes with the last who looks at it, who is not this object any more."""
        self.path.unlink(missing_ok=True)
        del self.memory


class Doorbell:
    """The socket at which the switch waits for the device, with its path."""

    def __init__(self, path: Path) -> None:
        self._folder: str | None = None
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            self._folder = tempfile.mkdtemp(prefix="lamina-")
            path = Path(self._folder) / path.name
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.bind(str(path))
        except BaseException:
            self.close()
            raise

    def ring(self, peer: str) -> None:
        """Ring at the device. One that is gone or has not heard earlier rings needs no further one.

        Its path is its own business: whatever it put there instead must not fail whoever sent it a frame.
        """
        with contextlib.suppress(OSError):
            self.socket.sendto(b"", peer)

    def heard(self) -> None:
        """Take the rings that came; a device that rings without end is heard again at the next turn."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_RINGS):
                self.socket.recv(1)

    def close(self) -> None:
        """Close the socket and remove its path. Idempotent."""
        self.socket.close()
        self.path.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def is_heard(path: str) -> bool:
    """Tell whether somebody waits for datagrams at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def memory_full(why: str) -> ResourceExhausted:
    """Return the error for rings that there is no room for: `RING_MEMORY_FULL`."""
    return ResourceExhausted(
        f"No room for the rings: {why}.",
        reason="RING_MEMORY_FULL",
        next_step="Ask for fewer or smaller slots, or use AttachDevice.",
    )
