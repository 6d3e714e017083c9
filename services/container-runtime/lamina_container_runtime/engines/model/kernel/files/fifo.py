"""Named pipes, and the inode of pipes without a name."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import O_ACCMODE, O_RDWR, O_WRONLY, S_IFIFO, Errno
from lamina_container_runtime.engines.model.kernel.files.inode import FileSystem, Inode
from lamina_container_runtime.engines.model.kernel.files.open_file import Caller, OpenFile
from lamina_container_runtime.engines.model.kernel.files.pipe import Pipe, PipeReader, PipeWriter
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.effects import Step


class FifoInode(Inode):
    """A pipe that has an inode: named in a directory, or reachable by /proc/PID/fd."""

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0) -> None:
        super().__init__(fs, S_IFIFO | mode & 0o7777, uid, gid)
        self.pipe = Pipe()


def make_pipe(fs: FileSystem, flags: int) -> tuple[PipeReader, PipeWriter]:
    """Returns the two ends of a new pipe."""
    inode = FifoInode(fs, 0o600)
    path = f"pipe:[{inode.ino}]"
    return PipeReader(inode.pipe, inode, flags, path), PipeWriter(inode.pipe, inode, flags, path)


def open_fifo(thread: Caller, inode: FifoInode, flags: int, path: str, nonblocking: bool) -> Step[OpenFile]:
    """Opens one end, waiting until somebody has the other; ENXIO for a writer that will not wait for a reader."""
    pipe = inode.pipe
    access = flags & O_ACCMODE
    if access == O_WRONLY:
        if nonblocking and pipe.readers == 0:
            raise Errno(errno.ENXIO)
        writer = PipeWriter(pipe, inode, flags, path)
        yield from _meet(thread, writer, pipe, nonblocking)
        return writer
    if access == O_RDWR:
        return DuplexPipe(pipe, inode, flags, path)
    reader = PipeReader(pipe, inode, flags, path)
    yield from _meet(thread, reader, pipe, nonblocking)
    return reader


def _meet(thread: Caller, end: PipeReader | PipeWriter, pipe: Pipe, nonblocking: bool) -> Step[None]:
    writes = isinstance(end, PipeWriter)
    try:
        while not nonblocking and (pipe.readers if writes else pipe.writers) == 0:
            yield from wait(thread, (pipe.can_write if writes else pipe.can_read,), "open fifo")
    except Errno:
        end.closed()
        raise


class DuplexPipe(PipeReader):
    """A FIFO opened for both: it is its own reader and writer."""

    def __init__(self, pipe: Pipe, inode: Inode, flags: int, path: str) -> None:
        super().__init__(pipe, inode, flags, path)
        self._writer = PipeWriter(pipe, inode, flags, path)

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Writes as the writing end does."""
        return (yield from self._writer.write(thread, data))

    def poll(self) -> int:
        """What holds for either end."""
        return super().poll() | self._writer.poll()

    def closed(self) -> None:
        """Closes both ends."""
        super().closed()
        self._writer.closed()
