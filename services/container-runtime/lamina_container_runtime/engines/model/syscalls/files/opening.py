"""Opening and making files: open, openat, creat, mkdir, mknod."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import (
    AT_FDCWD,
    MAY_READ,
    MAY_WRITE,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    S_IFCHR,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    Errno,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.console import ConsoleFile, ConsoleInode
from lamina_container_runtime.engines.model.kernel.files.devices import open_device
from lamina_container_runtime.engines.model.kernel.files.fifo import FifoInode, open_fifo
from lamina_container_runtime.engines.model.kernel.files.inode import (
    DeviceInode,
    DirectoryInode,
    FileInode,
    Inode,
    SymlinkInode,
)
from lamina_container_runtime.engines.model.kernel.files.open_file import (
    Directory,
    OpenFile,
    PathOnly,
    RegularFile,
    Snapshot,
)
from lamina_container_runtime.engines.model.kernel.files.resolve import Found, location_of
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.procfs.tree import ProcFile
from lamina_container_runtime.engines.model.syscalls.files import paths
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_CWD = AT_FDCWD & 0xFFFFFFFF
_ONCE = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC
"""Flags that say how to open and are not kept."""


@CALLS.add("openat")
def openat(thread: Thread, directory: int, path_address: int, flags: int, mode: int) -> Step[int]:
    """openat(2)."""
    path = yield from paths.path_at(thread, path_address)
    flags &= 0xFFFFFFFF
    if flags & O_TMPFILE == O_TMPFILE:
        raise Errno(errno.EOPNOTSUPP)
    no_follow = flags & O_NOFOLLOW or flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL
    found = paths.find(thread, directory, path, follow=not no_follow)
    if flags & O_PATH:
        file: OpenFile = PathOnly(found.existing(), flags, location_of(found, thread.process.view.root))
    else:
        made = _make_if_asked(thread, found, flags, mode)
        file = yield from open_inode(thread, found, flags, checked=made)
    return thread.process.fds.add(file, close_on_exec=bool(flags & O_CLOEXEC))


@CALLS.add("open")
def open_(thread: Thread, path_address: int, flags: int, mode: int) -> Step[int]:
    """open(2)."""
    return (yield from openat(thread, _CWD, path_address, flags, mode))


@CALLS.add("creat")
def creat(thread: Thread, path_address: int, mode: int) -> Step[int]:
    """creat(2)."""
    return (yield from openat(thread, _CWD, path_address, O_CREAT | O_WRONLY | O_TRUNC, mode))


@CALLS.add("mkdirat")
def mkdirat(thread: Thread, directory: int, path_address: int, mode: int) -> Step[int]:
    """mkdirat(2)."""
    found = yield from _new_name(thread, directory, path_address)
    who = thread.process.view.who
    inode = DirectoryInode(found.parent.fs, mode & 0o1777 & ~thread.process.umask, who.uid, who.gid)
    found.parent.add(found.name, inode)
    return 0


@CALLS.add("mkdir")
def mkdir(thread: Thread, path_address: int, mode: int) -> Step[int]:
    """mkdir(2)."""
    return (yield from mkdirat(thread, _CWD, path_address, mode))


@CALLS.add("mknodat")
def mknodat(thread: Thread, directory: int, path_address: int, mode: int, device: int) -> Step[int]:
    """mknodat(2): regular files and FIFOs; devices are EPERM, as in a container without CAP_MKNOD."""
    kind = mode & S_IFMT or S_IFREG
    if kind not in (S_IFREG, S_IFIFO):
        raise Errno(errno.EPERM)
    found = yield from _new_name(thread, directory, path_address, slash_allowed=False)
    _add_file(thread, found, mode, FifoInode if kind == S_IFIFO else FileInode)
    return 0


@CALLS.add("mknod")
def mknod(thread: Thread, path_address: int, mode: int, device: int) -> Step[int]:
    """mknod(2)."""
    return (yield from mknodat(thread, _CWD, path_address, mode, device))


def open_inode(thread: Thread, found: Found, flags: int, *, checked: bool) -> Step[OpenFile]:
    """Returns an open file for what was found; `checked` says that its permissions do not matter: it was just made."""
    inode = found.existing()
    if flags & O_DIRECTORY and not isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    if isinstance(inode, SymlinkInode):
        raise Errno(errno.ELOOP)
    writes = flags & O_ACCMODE in (O_WRONLY, O_RDWR)
    if not checked:
        _check_access(thread, inode, flags, writes)
    path = location_of(found, thread.process.view.root)
    kept = flags & ~_ONCE
    if isinstance(inode, DirectoryInode):
        if writes or flags & O_CREAT:
            raise Errno(errno.EISDIR)
        return Directory(inode, kept, path)
    if isinstance(inode, ProcFile):
        return Snapshot(inode, kept, path, (yield from inode.content()))
    if isinstance(inode, ConsoleInode):
        return ConsoleFile(inode.fs, thread.process.container.console, inode.stream, kept)
    if isinstance(inode, FifoInode):
        return (yield from open_fifo(thread, inode, kept & ~O_DIRECTORY, path, bool(flags & O_NONBLOCK)))
    if isinstance(inode, DeviceInode):
        if inode.kind != S_IFCHR:
            raise Errno(errno.ENXIO)
        return open_device(inode, kept, path, thread.kernel.rng)
    if not isinstance(inode, FileInode):
        raise Errno(errno.ENXIO)
    if flags & O_TRUNC and writes and inode.size:
        inode.truncate(0)
    return RegularFile(inode, kept, path)


def _check_access(thread: Thread, inode: Inode, flags: int, writes: bool) -> None:
    wanted = 0 if flags & O_ACCMODE == O_WRONLY else MAY_READ
    if writes or flags & O_TRUNC:
        wanted |= MAY_WRITE
        if isinstance(inode, FileInode):
            paths.check_writable(thread, inode)
    credentials.check(inode, thread.process.view.who, wanted)


def _make_if_asked(thread: Thread, found: Found, flags: int, mode: int) -> bool:
    """Makes the file that O_CREAT asks for; returns whether it did."""
    if not flags & O_CREAT:
        return False
    if found.inode is not None:
        if flags & O_EXCL:
            raise Errno(errno.EEXIST)
        return False
    if found.must_be_directory:
        raise Errno(errno.EISDIR)
    paths.check_change(thread, found.parent)
    _add_file(thread, found, mode, FileInode)
    return True


def _add_file(thread: Thread, found: Found, mode: int, kind: type[FileInode] | type[FifoInode]) -> None:
    who = thread.process.view.who
    inode = kind(found.parent.fs, mode & 0o7777 & ~thread.process.umask, who.uid, who.gid)
    found.parent.add(found.name, inode)
    found.inode = inode


def _new_name(thread: Thread, directory: int, path_address: int, *, slash_allowed: bool = True) -> Step[Found]:
    """Returns a place where nothing is and something may be made; EEXIST, ENOENT and the like."""
    path = yield from paths.path_at(thread, path_address)
    found = paths.find(thread, directory, path.rstrip("/") or path, follow=False)
    if found.inode is not None:
        raise Errno(errno.EEXIST)
    if path.endswith("/") and not slash_allowed:
        raise Errno(errno.ENOENT)
    paths.check_change(thread, found.parent)
    return found
