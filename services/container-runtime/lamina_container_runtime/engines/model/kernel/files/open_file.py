"""Open files (file descriptions): what file descriptors of one or several processes refer to.

Reads and writes are steps, because some of them wait. A class answers only what its kind of file can do; the rest is
refused with the error that Linux gives.
"""

from __future__ import annotations

import errno
from typing import Protocol

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import (
    O_ACCMODE,
    O_APPEND,
    O_NONBLOCK,
    O_WRONLY,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    Errno,
)
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, FileInode, Inode
from lamina_container_runtime.engines.model.kernel.waiting import Sleeper
from lamina_kit.effects import Step

SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE = range(5)
READY = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM


class Caller(Sleeper, Protocol):
    """The thread that reads or writes, as an open file knows it."""

    def signal_process(self, signal: int) -> None:
        """Sends a signal to its process."""


class OpenFile:
    """A file description. `flags` are the O_ flags it was opened with; `path` is for /proc/PID/fd."""

    def __init__(self, inode: Inode, flags: int, path: str) -> None:
        self.inode = inode
        self.flags = flags
        self.path = path
        self.references = 0
        self.position = 0

    @property
    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self.flags & O_ACCMODE != O_WRONLY

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & O_ACCMODE != 0

    @property
    def nonblocking(self) -> bool:
        """Whether a read or write that would wait fails with EAGAIN."""
        return bool(self.flags & O_NONBLOCK)

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Reads at the position and moves it."""
        raise Errno(errno.EINVAL)
        yield

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Writes at the position and moves it; returns how many bytes were taken."""
        raise Errno(errno.EINVAL)
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads without moving the position; ESPIPE where there are no positions."""
        raise Errno(errno.ESPIPE)

    def write_at(self, offset: int, data: bytes) -> int:
        """Writes without moving the position; ESPIPE where there are no positions."""
        raise Errno(errno.ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position and returns it."""
        raise Errno(errno.ESPIPE)

    def truncate(self, size: int) -> None:
        """Changes the size."""
        raise Errno(errno.EINVAL)

    def poll(self) -> int:
        """Returns the POLL bits that hold now."""
        return READY

    def queues(self) -> tuple[WaitQueue, ...]:
        """Returns the queues that are woken when `poll` may have changed."""
        return ()

    def closed(self) -> None:
        """Is called when the last descriptor is gone."""

    def acquire(self) -> OpenFile:
        """Counts one more descriptor."""
        if self.references == 0:
            self.inode.hold()
        self.references += 1
        return self

    def release(self) -> None:
        """Counts one descriptor less."""
        self.references -= 1
        if self.references == 0:
            self.closed()
            self.inode.let_go()


class RegularFile(OpenFile):
    """An open regular file."""

    def __init__(self, inode: FileInode, flags: int, path: str) -> None:
        super().__init__(inode, flags, path)
        self.file = inode

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Reads at the position and moves it."""
        data = self.file.read(self.position, count)
        self.position += len(data)
        return data
        yield

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Writes at the position, or at the end with O_APPEND, and moves it."""
        if self.flags & O_APPEND:
            self.position = self.file.size
        count = self.file.write(self.position, data)
        self.file.release()  # The call may have waited while another thread closed the file for good.
        self.position += count
        return count
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads at `offset`."""
        return self.file.read(offset, count)

    def write_at(self, offset: int, data: bytes) -> int:
        """Writes at `offset`; with O_APPEND at the end, as Linux does."""
        count = self.file.write(self.file.size if self.flags & O_APPEND else offset, data)
        self.file.release()  # As above.
        return count

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position; a file has no holes for SEEK_HOLE but the one behind its end."""
        size = self.file.size
        if whence in (SEEK_DATA, SEEK_HOLE):
            if not 0 <= offset < size:
                raise Errno(errno.ENXIO)
            offset = offset if whence == SEEK_DATA else size
        elif whence in (SEEK_SET, SEEK_CUR, SEEK_END):
            offset += {SEEK_SET: 0, SEEK_CUR: self.position, SEEK_END: size}[whence]
        else:
            raise Errno(errno.EINVAL)
        if offset < 0:
            raise Errno(errno.EINVAL)
        self.position = offset
        return offset

    def truncate(self, size: int) -> None:
        """Changes the size."""
        if not self.writable:
            raise Errno(errno.EINVAL)
        self.file.truncate(size)


class Directory(OpenFile):
    """An open directory. The names are taken at the first read, so that changes meanwhile give none twice."""

    def __init__(self, inode: DirectoryInode, flags: int, path: str) -> None:
        super().__init__(inode, flags, path)
        self.directory = inode
        self._names: list[tuple[str, int, int]] | None = None

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Refuses: EISDIR."""
        raise Errno(errno.EISDIR)
        yield

    def names(self, viewer: object, parent: DirectoryInode) -> list[tuple[str, int, int]]:
        """Returns (name, inode number, type bits) of all entries as a process sees them, `.` and `..` first."""
        if self._names is None or self.position == 0:
            listed = [(".", self.directory.ino, self.directory.kind), ("..", parent.ino, parent.kind)]
            for name, inode in self.directory.list(viewer):
                listed.append((name, inode.ino, inode.kind))
            self._names = listed
        return self._names

    def seek(self, offset: int, whence: int) -> int:
        """Moves to an entry; 0 reads the directory anew."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise Errno(errno.EINVAL)
        if offset < 0:
            raise Errno(errno.EINVAL)
        self.position = offset
        return offset


class Snapshot(OpenFile):
    """An open file of procfs: its bytes as they were when it was opened."""

    def __init__(self, inode: Inode, flags: int, path: str, data: bytes) -> None:
        super().__init__(inode, flags, path)
        self.data = data

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Reads at the position and moves it."""
        data = self.data[self.position : self.position + count]
        self.position += len(data)
        return data
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads at `offset`."""
        return self.data[offset : offset + count]

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position."""
        base = {SEEK_SET: 0, SEEK_CUR: self.position, SEEK_END: len(self.data)}.get(whence)
        if base is None or base + offset < 0:
            raise Errno(errno.EINVAL)
        self.position = base + offset
        return self.position


class PathOnly(OpenFile):
    """A descriptor opened with O_PATH: it names a place and can be used for nothing else."""

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Refuses: EBADF."""
        raise Errno(errno.EBADF)
        yield

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Refuses: EBADF."""
        raise Errno(errno.EBADF)
        yield
