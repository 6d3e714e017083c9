"""Pipes: a bounded buffer between processes.

    write ──▶ [ at most 65,536 bytes ] ──▶ read
    no reader left: EPIPE and SIGPIPE      no writer left: end of file

Writes of at most PIPE_BUF (4096) bytes are not mixed with others. Source: pipe(7).
"""

from __future__ import annotations

import errno

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import (
    O_WRONLY,
    PIPE_BUF,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    SIGPIPE,
    Errno,
)
from lamina_container_runtime.engines.model.kernel.files.inode import Inode
from lamina_container_runtime.engines.model.kernel.files.open_file import Caller, OpenFile
from lamina_container_runtime.engines.model.kernel.waiting import wait
from lamina_kit.effects import Step

CAPACITY = 65536


class Pipe:
    """The buffer and its two ends. `readers` and `writers` count open files."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.readers = 0
        self.writers = 0
        self.can_read = WaitQueue()
        self.can_write = WaitQueue()

    @property
    def room(self) -> int:
        """Bytes that fit now."""
        return CAPACITY - len(self.buffer)


class PipeReader(OpenFile):
    """The end that is read."""

    def __init__(self, pipe: Pipe, inode: Inode, flags: int, path: str) -> None:
        super().__init__(inode, flags, path)
        self.pipe = pipe
        pipe.readers += 1
        pipe.can_write.wake()

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Returns what is there, at most `count` bytes; waits while the pipe is empty and somebody may write."""
        if count == 0:
            return b""
        pipe = self.pipe
        while not pipe.buffer:
            if pipe.writers == 0:
                return b""
            if self.nonblocking:
                raise Errno(errno.EAGAIN)
            yield from wait(thread, (pipe.can_read,), "read pipe")
        data = bytes(pipe.buffer[:count])
        del pipe.buffer[:count]
        pipe.can_write.wake()
        return data

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Refuses: EBADF."""
        raise Errno(errno.EBADF)
        yield

    def poll(self) -> int:
        """Readable when there is data; hung up when nobody can write any more."""
        ready = POLLIN | POLLRDNORM if self.pipe.buffer else 0
        return ready | (POLLHUP if self.pipe.writers == 0 else 0)

    def queues(self) -> tuple[WaitQueue, ...]:
        """The queue of readers."""
        return (self.pipe.can_read,)

    def closed(self) -> None:
        """Lets writers find out that nobody reads."""
        self.pipe.readers -= 1
        if self.pipe.readers == 0:
            self.pipe.can_write.wake()


class PipeWriter(OpenFile):
    """The end that is written."""

    def __init__(self, pipe: Pipe, inode: Inode, flags: int, path: str) -> None:
        super().__init__(inode, flags | O_WRONLY, path)
        self.pipe = pipe
        pipe.writers += 1
        pipe.can_read.wake()

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Puts all of `data` in, waiting for room; EPIPE and SIGPIPE when nobody reads.

        A signal in the middle of a write gives what was taken so far.
        """
        pipe = self.pipe
        done = 0
        while done < len(data) or not data:
            if pipe.readers == 0:
                thread.signal_process(SIGPIPE)
                raise Errno(errno.EPIPE)
            if not data:
                return 0
            left = len(data) - done
            needed = left if len(data) <= PIPE_BUF else 1
            if pipe.room >= needed:
                taken = min(left, pipe.room)
                pipe.buffer += data[done : done + taken]
                done += taken
                pipe.can_read.wake()
                continue
            if self.nonblocking:
                if done:
                    return done
                raise Errno(errno.EAGAIN)
            try:
                yield from wait(thread, (pipe.can_write,), "write pipe")
            except Errno:
                if done:
                    return done
                raise
        return done

    def poll(self) -> int:
        """Writable when PIPE_BUF bytes fit; in error when nobody reads."""
        if self.pipe.readers == 0:
            return POLLOUT | POLLWRNORM | POLLERR
        return POLLOUT | POLLWRNORM if self.pipe.room >= PIPE_BUF else 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """The queue of writers."""
        return (self.pipe.can_write,)

    def closed(self) -> None:
        """Lets readers find the end of the file."""
        self.pipe.writers -= 1
        if self.pipe.writers == 0:
            self.pipe.can_read.wake()
