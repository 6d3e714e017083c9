"""What calls that take paths share: where a path starts, and how it is looked up."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    MAY_EXEC,
    MAY_WRITE,
    PATH_MAX,
    Errno,
    signed,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, Inode
from lamina_container_runtime.engines.model.kernel.files.resolve import Found, resolve
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_kit.effects import Step


def path_at(thread: Thread, address: int) -> Step[str]:
    """Returns the path at a user address; EFAULT, ENAMETOOLONG."""
    return (yield from user.cstring(thread, address, PATH_MAX))


def start_of(thread: Thread, directory: int, path: str) -> DirectoryInode | None:
    """Returns where a path of an …at call starts; None for the working directory. EBADF, ENOTDIR.

    An empty path is ENOENT before the descriptor is looked at.
    """
    if not path:
        raise Errno(errno.ENOENT)
    fd = signed(directory, 32)
    if fd == AT_FDCWD or path.startswith("/"):
        return None
    inode = thread.process.fds.get(fd).inode
    if not isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    return inode


def find(thread: Thread, directory: int, path: str, *, follow: bool) -> Found:
    """Returns where a path of an …at call leads."""
    return resolve(thread.process.view, path, start_of(thread, directory, path), follow=follow)


def inode_at(thread: Thread, directory: int, address: int, *, follow: bool, flags: int = 0) -> Step[Inode]:
    """Returns the inode of a path, or of the descriptor itself for an empty path with AT_EMPTY_PATH."""
    path = yield from path_at(thread, address)
    if not path and flags & AT_EMPTY_PATH:
        if signed(directory, 32) == AT_FDCWD:
            return thread.process.view.cwd
        return thread.process.fds.get(directory).inode
    return find(thread, directory, path, follow=follow).existing()


def check_writable(thread: Thread, inode: Inode) -> None:
    """Raises EROFS for a file system that is read only."""
    if inode.fs.read_only:
        raise Errno(errno.EROFS)


def check_change(thread: Thread, parent: DirectoryInode, inode: Inode | None = None) -> None:
    """Raises unless names of `parent` may be changed: EROFS, EACCES, and EPERM for another's in a sticky directory."""
    who = thread.process.view.who
    check_writable(thread, parent)
    credentials.check(parent, who, MAY_WRITE | MAY_EXEC)
    if inode is not None and parent.mode & 0o1000 and not who.is_root and who.uid not in (parent.uid, inode.uid):
        raise Errno(errno.EPERM)
    if parent.removed:
        raise Errno(errno.ENOENT)
