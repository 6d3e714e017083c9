"""Devices of a container: the nodes of /dev."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import O_RDWR, Errno, makedev
from lamina_container_runtime.engines.model.kernel.files.inode import DeviceInode, FileSystem, Inode
from lamina_container_runtime.engines.model.kernel.files.open_file import Caller, OpenFile
from lamina_kit.effects import Step
from lamina_kit.rng import Rng

NULL, ZERO, FULL, RANDOM, URANDOM = (makedev(1, minor) for minor in (3, 5, 7, 8, 9))
NODES = (("null", NULL), ("zero", ZERO), ("full", FULL), ("random", RANDOM), ("urandom", URANDOM))
"""Names below /dev and device numbers."""
MAX_PIECE = 1 << 20


class NullFile(OpenFile):
    """/dev/null: nothing to read, everything is taken."""

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Returns the end of the file."""
        return b""
        yield

    def write(self, thread: Caller, data: bytes) -> Step[int]:
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

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Returns zeroes, at most 1 MiB at a time."""
        return bytes(min(count, MAX_PIECE))
        yield

    def read_at(self, offset: int, count: int) -> bytes:
        """Returns zeroes."""
        return bytes(min(count, MAX_PIECE))


class FullFile(ZeroFile):
    """/dev/full: zeroes to read, no room to write."""

    def write(self, thread: Caller, data: bytes) -> Step[int]:
        """Refuses: ENOSPC."""
        raise Errno(errno.ENOSPC)
        yield


class RandomFile(NullFile):
    """/dev/random and /dev/urandom: bytes of the runtime's random source."""

    def __init__(self, inode: Inode, flags: int, path: str, rng: Rng) -> None:
        super().__init__(inode, flags, path)
        self._rng = rng

    def read(self, thread: Caller, count: int) -> Step[bytes]:
        """Returns random bytes, at most 1 MiB at a time."""
        return self._rng.bytes(min(count, MAX_PIECE))
        yield


_CLASSES = {NULL: NullFile, ZERO: ZeroFile, FULL: FullFile}


def open_device(inode: DeviceInode, flags: int, path: str, rng: Rng) -> OpenFile:
    """Returns an open device; ENXIO for one that this kernel does not have."""
    if inode.rdev in (RANDOM, URANDOM):
        return RandomFile(inode, flags, path, rng)
    kind = _CLASSES.get(inode.rdev)
    if kind is None:
        raise Errno(errno.ENXIO)
    return kind(inode, flags, path)


def open_null(fs: FileSystem) -> OpenFile:
    """Returns what standard input is when nothing is attached."""
    return NullFile(DeviceInode(fs, 0o666, NULL), O_RDWR, "/dev/null")
