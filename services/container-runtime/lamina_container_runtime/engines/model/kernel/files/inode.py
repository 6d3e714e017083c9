"""Inodes: files, directories, links and devices of one file system, in memory.

These classes are a tmpfs; `overlay.py` derives from them the inodes that begin as objects of read-only layers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Errno

MAX_FILE = 1 << 40


@dataclass
class FileSystem:
    """What the inodes of one mounted file system share. `now` gives Unix time in nanoseconds.

    `limit_bytes` bounds what files of this file system hold in memory (ENOSPC beyond).
    """

    kind: str
    device: int
    now: Callable[[], int]
    limit_bytes: int = 1 << 30
    used_bytes: int = 0
    last_ino: int = 0
    read_only: bool = False

    def next_ino(self) -> int:
        """Returns a fresh inode number, from 1."""
        self.last_ino += 1
        return self.last_ino

    def charge(self, count: int) -> None:
        """Accounts for `count` more bytes (fewer when negative); ENOSPC when the limit is passed."""
        if count > 0 and self.used_bytes + count > self.limit_bytes:
            raise Errno(errno.ENOSPC)
        self.used_bytes += count


class Inode:
    """Anything that has a number and permissions. `mode` includes the type."""

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.fs = fs
        self.ino = fs.next_ino()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.opens = 0
        """Open files (file descriptions) of it, and programs that are being loaded from it."""
        self.rdev = 0
        self.atime = self.mtime = self.ctime = fs.now()
        self.changed = True
        """Whether it differs from what a lower layer has, that is, was copied up or is new."""

    @property
    def kind(self) -> int:
        """The type bits of the mode."""
        return self.mode & S_IFMT

    @property
    def size(self) -> int:
        """Size in bytes as stat(2) reports it."""
        return 0

    def touch(self, *, content: bool) -> None:
        """Notes a change now: of the content, or of the attributes only."""
        self.ctime = self.fs.now()
        if content:
            self.mtime = self.ctime
        self.changed = True

    def hold(self) -> None:
        """Counts one more open file."""
        self.opens += 1

    def let_go(self) -> None:
        """Counts one open file less."""
        self.opens -= 1
        self.release()

    def release(self) -> None:
        """Gives the content back once the last name and the last open file are gone; else changes nothing.

        Whoever takes a name or an open file away calls it.
        """
        if self.nlink == 0 and self.opens == 0:
            self.drop()

    def drop(self) -> None:
        """Gives the content back; only files have one that is accounted for."""

    def set_mode(self, mode: int) -> None:
        """Changes permission bits."""
        self.mode = self.kind | mode & 0o7777
        self.touch(content=False)


class FileInode(Inode):
    """A regular file whose content is in memory. `version` grows with each change of the content."""

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0, data: bytes = b"") -> None:
        super().__init__(fs, S_IFREG | mode & 0o7777, uid, gid)
        fs.charge(len(data))
        self.data: bytearray | None = bytearray(data)
        self.version = 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.content())

    def content(self) -> bytearray:
        """Returns the bytes for changing; a file of a layer is copied up first."""
        assert self.data is not None
        return self.data

    def read(self, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes at `offset`; none behind the end."""
        return bytes(self.content()[offset : offset + count])

    def write(self, offset: int, data: bytes) -> int:
        """Stores bytes, filling a hole before them with zeroes; returns how many. ENOSPC, EFBIG."""
        if offset + len(data) > MAX_FILE:
            raise Errno(errno.EFBIG)
        content = self.content()
        self.fs.charge(max(0, offset + len(data) - len(content)))
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        self.version += 1
        self.touch(content=True)
        return len(data)

    def truncate(self, size: int) -> None:
        """Cuts or extends with zeroes. ENOSPC, EFBIG."""
        if size > MAX_FILE:
            raise Errno(errno.EFBIG)
        content = self.content()
        self.fs.charge(size - len(content))
        if size < len(content):
            del content[size:]
        else:
            content.extend(bytes(size - len(content)))
        self.version += 1
        self.touch(content=True)

    def drop(self) -> None:
        """Gives the memory back and its charge."""
        if self.data is not None:
            self.fs.charge(-len(self.data))
            self.data = bytearray()


class SymlinkInode(Inode):
    """A symbolic link."""

    def __init__(self, fs: FileSystem, target: str, uid: int = 0, gid: int = 0) -> None:
        super().__init__(fs, S_IFLNK | 0o777, uid, gid)
        self.target = target

    @property
    def size(self) -> int:
        """Length of the target in bytes."""
        return len(self.target.encode(errors="surrogateescape"))


class DeviceInode(Inode):
    """A device node; `devices.py` says what opening one gives."""

    def __init__(self, fs: FileSystem, mode: int, rdev: int, kind: int = S_IFCHR) -> None:
        super().__init__(fs, kind | mode & 0o7777)
        self.rdev = rdev


class DirectoryInode(Inode):
    """A directory: names in the order in which they were made.

    `parent` and `name` say where it is; `mounted` is the root of a file system mounted on it, and `covers`, in such a
    root, the directory below.
    """

    def __init__(self, fs: FileSystem, mode: int, uid: int = 0, gid: int = 0) -> None:
        super().__init__(fs, S_IFDIR | mode & 0o7777, uid, gid)
        self.parent: DirectoryInode = self
        self.name = ""
        self.mounted: DirectoryInode | None = None
        self.covers: DirectoryInode | None = None
        self.removed = False
        self.changes = WaitQueue()
        self._entries: dict[str, Inode] = {}

    @property
    def size(self) -> int:
        """4096, as file systems report it."""
        return 4096

    def entries(self) -> dict[str, Inode]:
        """Returns the names and inodes; the caller does not change the result."""
        return self._entries

    def get(self, name: str, viewer: object = None) -> Inode | None:
        """Returns the inode of a name, or None. `viewer` is the process that asks; only procfs cares."""
        return self.entries().get(name)

    def list(self, viewer: object = None) -> Iterator[tuple[str, Inode]]:
        """Yields names and inodes."""
        yield from list(self.entries().items())

    def add(self, name: str, inode: Inode) -> None:
        """Enters a name. The caller has checked that it is free and that the inode is of this file system."""
        self.entries()[name] = inode
        if isinstance(inode, DirectoryInode):
            inode.parent = self
            inode.name = name
            inode.removed = False
            inode.nlink = 2 + sum(isinstance(child, DirectoryInode) for child in inode.entries().values())
            self.nlink += 1
        self.touch(content=True)

    def remove(self, name: str) -> Inode:
        """Takes a name out and returns its inode; link counts are the caller's, a directory is marked removed."""
        inode = self.entries().pop(name)
        if isinstance(inode, DirectoryInode):
            inode.removed = True
            self.nlink -= 1
        self.touch(content=True)
        return inode
