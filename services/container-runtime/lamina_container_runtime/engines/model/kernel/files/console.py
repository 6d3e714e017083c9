"""Standard output and standard error of a container without a terminal: pipes to its log."""

from __future__ import annotations

import errno
from typing import Protocol

from lamina_container_runtime.engines.model.kernel.abi import S_IFIFO, Errno
from lamina_container_runtime.engines.model.kernel.files.inode import FileSystem, Inode
from lamina_container_runtime.engines.model.kernel.files.open_file import Caller, OpenFile
from lamina_kit.effects import Step


class Console(Protocol):
    """Where standard output and standard error go."""

    def write(self, stream: str, data: bytes) -> None:
        """Takes bytes of `stdout` or `stderr`."""


class ConsoleInode(Inode):
    """What fstat(2) of standard output shows: a pipe. `stream` says which one it is."""

    def __init__(self, fs: FileSystem, stream: str) -> None:
        super().__init__(fs, S_IFIFO | 0o600)
        self.stream = stream


class ConsoleFile(OpenFile):
    """Standard output or standard error of a container: a pipe to its log, as a container without a terminal has."""

    def __init__(self, fs: FileSystem, console: Console, stream: str, flags: int) -> None:
        super().__init__(ConsoleInode(fs, stream), flags, f"pipe:[{1 if stream == 'stdout' else 2}]")
        self._console = console
        self.stream = stream

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Refuses: EBADF."""
        raise Errno(errno.EBADF)
        yield

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Puts the bytes into the container's log."""
        if data:
            self._console.write(self.stream, data)
        return len(data)
        yield
