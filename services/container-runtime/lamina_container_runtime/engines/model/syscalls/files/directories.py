"""Names: unlink, rmdir, link, symlink, rename, and the working and root directories."""

from __future__ import annotations

import errno

from lamina_container_runtime.engines.model.kernel.abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    MAY_EXEC,
    Errno,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, Inode, SymlinkInode
from lamina_container_runtime.engines.model.kernel.files.resolve import Found, path_of, resolve
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.files import paths
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_CWD = AT_FDCWD & 0xFFFFFFFF
_RENAME_NOREPLACE = 1


def _drop_name(parent: DirectoryInode, name: str) -> None:
    """Removes a name that is no directory; the content goes with the last name and the last open file."""
    inode = parent.remove(name)
    inode.nlink -= 1
    inode.ctime = inode.fs.now()
    inode.release()


@CALLS.add("unlinkat")
def unlinkat(thread: Thread, directory: int, path_address: int, flags: int) -> Step[int]:
    """unlinkat(2)."""
    path = yield from paths.path_at(thread, path_address)
    found = paths.find(thread, directory, path, follow=False)
    if flags & AT_REMOVEDIR:
        return _remove_directory(thread, found, path)
    inode = found.existing()
    if not found.name or isinstance(inode, DirectoryInode):
        raise Errno(errno.EISDIR)
    paths.check_change(thread, found.parent, inode)
    _drop_name(found.parent, found.name)
    return 0


def _remove_directory(thread: Thread, found: Found, path: str) -> int:
    inode = found.existing()
    if not isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    if not found.name:
        raise Errno(errno.EINVAL if path.rstrip("/").endswith("/.") or path.rstrip("/") == "." else errno.ENOTEMPTY)
    paths.check_change(thread, found.parent, inode)
    if inode.covers is not None or inode is thread.process.view.root:
        raise Errno(errno.EBUSY)
    if inode.entries():
        raise Errno(errno.ENOTEMPTY)
    found.parent.remove(found.name)
    inode.nlink = 0
    return 0


@CALLS.add("unlink")
def unlink(thread: Thread, path_address: int) -> Step[int]:
    """unlink(2)."""
    return (yield from unlinkat(thread, _CWD, path_address, 0))


@CALLS.add("rmdir")
def rmdir(thread: Thread, path_address: int) -> Step[int]:
    """rmdir(2)."""
    return (yield from unlinkat(thread, _CWD, path_address, AT_REMOVEDIR))


@CALLS.add("symlinkat")
def symlinkat(thread: Thread, target_address: int, directory: int, path_address: int) -> Step[int]:
    """symlinkat(2)."""
    target = yield from paths.path_at(thread, target_address)
    path = yield from paths.path_at(thread, path_address)
    if not target:
        raise Errno(errno.ENOENT)
    found = _free_place(thread, directory, path)
    who = thread.process.view.who
    found.parent.add(found.name, SymlinkInode(found.parent.fs, target, who.uid, who.gid))
    return 0


@CALLS.add("symlink")
def symlink(thread: Thread, target_address: int, path_address: int) -> Step[int]:
    """symlink(2)."""
    return (yield from symlinkat(thread, target_address, _CWD, path_address))


@CALLS.add("linkat")
def linkat(thread: Thread, old_directory: int, old: int, directory: int, new: int, flags: int) -> Step[int]:
    """linkat(2)."""
    follow = bool(flags & AT_SYMLINK_FOLLOW)
    inode = yield from paths.inode_at(thread, old_directory, old, follow=follow, flags=flags & AT_EMPTY_PATH)
    path = yield from paths.path_at(thread, new)
    if isinstance(inode, DirectoryInode):
        raise Errno(errno.EPERM)
    found = _free_place(thread, directory, path)
    if found.parent.fs is not inode.fs:
        raise Errno(errno.EXDEV)
    inode.nlink += 1
    inode.touch(content=False)
    found.parent.add(found.name, inode)
    return 0


@CALLS.add("link")
def link(thread: Thread, old: int, new: int) -> Step[int]:
    """link(2)."""
    return (yield from linkat(thread, _CWD, old, _CWD, new, 0))


def _free_place(thread: Thread, directory: int, path: str) -> Found:
    found = paths.find(thread, directory, path, follow=False)
    if found.inode is not None:
        raise Errno(errno.EEXIST)
    if found.must_be_directory:
        raise Errno(errno.ENOENT)
    paths.check_change(thread, found.parent)
    return found


@CALLS.add("renameat2")
def renameat2(thread: Thread, old_directory: int, old: int, new_directory: int, new: int, flags: int) -> Step[int]:
    """renameat2(2), with RENAME_NOREPLACE."""
    if flags & ~_RENAME_NOREPLACE:
        raise Errno(errno.EINVAL)
    old_path = yield from paths.path_at(thread, old)
    new_path = yield from paths.path_at(thread, new)
    source = paths.find(thread, old_directory, old_path, follow=False)
    target = paths.find(thread, new_directory, new_path, follow=False)
    inode = source.existing()
    if not source.name or not target.name:
        raise Errno(errno.EBUSY)
    paths.check_change(thread, source.parent, inode)
    paths.check_change(thread, target.parent, target.inode)
    if source.parent.fs is not target.parent.fs:
        raise Errno(errno.EXDEV)
    if isinstance(inode, DirectoryInode):
        _check_directory_move(inode, target.parent)
    elif target.must_be_directory:
        raise Errno(errno.ENOTDIR)
    if target.inode is inode:
        return 0
    if target.inode is not None:
        if flags & _RENAME_NOREPLACE:
            raise Errno(errno.EEXIST)
        _make_way(inode, target)
    source.parent.remove(source.name)
    target.parent.add(target.name, inode)
    inode.ctime = inode.fs.now()
    return 0


def _check_directory_move(inode: DirectoryInode, into: DirectoryInode) -> None:
    """Raises EINVAL when a directory would move below itself, EBUSY for a mount point."""
    if inode.covers is not None:
        raise Errno(errno.EBUSY)
    above = into
    while above.parent is not above:
        if above is inode:
            raise Errno(errno.EINVAL)
        above = above.parent
    if above is inode:
        raise Errno(errno.EBUSY)


def _make_way(inode: Inode, target: Found) -> None:
    """Removes what a rename replaces: a file for a file, an empty directory for a directory."""
    existing = target.inode
    if isinstance(existing, DirectoryInode):
        if not isinstance(inode, DirectoryInode):
            raise Errno(errno.EISDIR)
        if existing.covers is not None:
            raise Errno(errno.EBUSY)
        if existing.entries():
            raise Errno(errno.ENOTEMPTY)
        target.parent.remove(target.name)
        existing.nlink = 0
    elif isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    else:
        _drop_name(target.parent, target.name)


@CALLS.add("renameat")
def renameat(thread: Thread, old_directory: int, old: int, new_directory: int, new: int) -> Step[int]:
    """renameat(2)."""
    return (yield from renameat2(thread, old_directory, old, new_directory, new, 0))


@CALLS.add("rename")
def rename(thread: Thread, old: int, new: int) -> Step[int]:
    """rename(2)."""
    return (yield from renameat2(thread, _CWD, old, _CWD, new, 0))


@CALLS.add("chdir")
def chdir(thread: Thread, path_address: int) -> Step[int]:
    """chdir(2)."""
    path = yield from paths.path_at(thread, path_address)
    return _enter(thread, resolve(thread.process.view, path).existing())


@CALLS.add("fchdir")
def fchdir(thread: Thread, fd: int) -> int:
    """fchdir(2)."""
    return _enter(thread, thread.process.fds.get(fd).inode)


def _enter(thread: Thread, inode: Inode) -> int:
    if not isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    credentials.check(inode, thread.process.view.who, MAY_EXEC)
    thread.process.view.cwd = inode
    return 0


@CALLS.add("getcwd")
def getcwd(thread: Thread, buffer: int, size: int) -> Step[int]:
    """getcwd(2): the length with the final zero byte."""
    view = thread.process.view
    text = path_of(view.cwd, view.root).encode(errors="surrogateescape") + b"\0"
    if len(text) > size:
        raise Errno(errno.ERANGE)
    yield from user.write(thread, buffer, text)
    return len(text)


@CALLS.add("chroot")
def chroot(thread: Thread, path_address: int) -> Step[int]:
    """chroot(2)."""
    path = yield from paths.path_at(thread, path_address)
    inode = resolve(thread.process.view, path).existing()
    if not isinstance(inode, DirectoryInode):
        raise Errno(errno.ENOTDIR)
    if not thread.process.view.who.is_root:
        raise Errno(errno.EPERM)
    thread.process.view.root = inode
    return 0
