"""Devices of a container: the nodes of /dev and the console."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lamina_container_runtime.engines.model.kernel.abi import O_RDWR, S_IFIFO, Errno, makedev
from lamina_container_runtime.engines.model.kernel.files.inode import DeviceInode, FileSystem, Inode
from lamina_container_runtime.engines.model.kernel.files.open_file import OpenFile
from lamina_kit.effects import Step

if TYPE_CHECKING:
    from lamina_container_runtime.engines.model.kernel.processes.container import KernelContainer
    from lamina_container_runtime.engines.model.kernel.processes.thread import Thread

NULL, ZERO, FULL, RANDOM, URANDOM = (makedev(1, minor) for minor in (3, 5, 7, 8, 9))
NODES = (("null", NULL), ("zero", ZERO), ("full", FULL), ("random", RANDOM), ("urandom", URANDOM))
"""Names below /dev and device numbers."""
MAX_PIECE = 1 << 20


class NullFile(OpenFile):
    """/dev/null: nothing to read, everything is taken."""

    def read(self, thread: Thread, count: int) -> Step[bytes]:
        """Returns the end of the file."""
        return b""
        yield

    def write(self, thread: Thread, data: bytes) -> Step[int]:
        """Drops the bytes."""
        return len(data)
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Returns the end of the file."""
        return b""

    def write_at(self, offset: int, data: bytes) -> int:
        """Drops the bytes."""
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """Stays at 0."""
        return 0


class ZeroFile(NullFile):
    """/dev/zero: zeroes without end."""

    def read(self, thread: Thread, count: int) -> Step[bytes]:
        """Returns zeroes, at most 1 MiB at a time."""
        return bytes(min(count, MAX_PIECE))
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Returns zeroes."""
        return bytes(min(count, MAX_PIECE))


class FullFile(ZeroFile):
    """/dev/full: zeroes to read, no room to write."""

    def write(self, thread: Thread, data: bytes) -> Step[int]:
        """Refuses: ENOSPC."""
        raise Errno(errno.ENOSPC)
        yield


class RandomFile(NullFile):
    """/dev/random and /dev/urandom: bytes of the runtime's random source."""

    def read(self, thread: Thread, count: int) -> Step[bytes]:
        """Returns random bytes, at most 1 MiB at a time."""
        return thread.kernel.rng.bytes(min(count, MAX_PIECE))
        yield


class ConsoleFile(OpenFile):
    """Standard output or standard error of a container: a pipe to its log, as a container without a terminal has."""

    def __init__(self, container: KernelContainer, stream: str, flags: int) -> None:
        super().__init__(console_inode(container.root.fs, stream), flags, f"pipe:[{1 if stream == 'stdout' else 2}]")
        self.container = container
        self.stream = stream

    def read(self, thread: Thread, count: int) -> Step[bytes]:
        """Refuses: EBADF."""
        raise Errno(errno.EBADF)
        yield

    def write(self, thread: Thread, data: bytes) -> Step[int]:
        """Puts the bytes into the container's log."""
        if data:
            self.container.console.write(self.stream, data)
        return len(data)
        yield


class ConsoleInode(Inode):
    """What fstat(2) of standard output shows: a pipe. `stream` says which one it is."""

    def __init__(self, fs: FileSystem, stream: str) -> None:
        super().__init__(fs, S_IFIFO | 0o600)
        self.stream = stream


_CLASSES = {NULL: NullFile, ZERO: ZeroFile, FULL: FullFile, RANDOM: RandomFile, URANDOM: RandomFile}


def console_inode(fs: FileSystem, stream: str) -> ConsoleInode:
    """Returns an inode for one end of the console."""
    return ConsoleInode(fs, stream)


def open_device(inode: DeviceInode, flags: int, path: str) -> OpenFile:
    """Returns an open device; ENXIO for one that this kernel does not have."""
    kind = _CLASSES.get(inode.rdev)
    if kind is None:
        raise Errno(errno.ENXIO)
    return kind(inode, flags, path)


def open_null(container: KernelContainer) -> OpenFile:
    """Returns what standard input is when nothing is attached."""
    return NullFile(DeviceInode(container.root.fs, 0o666, NULL), O_RDWR, "/dev/null")
