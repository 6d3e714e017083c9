"""What files are: stat and statx, access, readlink, and changing modes, owners and times."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    MAY_WRITE,
    Errno,
    pack_stat,
    signed,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.inode import Inode, SymlinkInode
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.files import paths
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_CWD = AT_FDCWD & 0xFFFFFFFF
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_NO_CHANGE = 0xFFFFFFFF
"""The owner or group -1 of chown(2). Ids are unsigned numbers of 32 bits."""
_STATX = struct.Struct("<IIQIIIHHQQQQ")
_MAGIC = {"overlay": 0x794C7630, "tmpfs": 0x01021994, "proc": 0x9FA0}


def _stat_of(inode: Inode) -> bytes:
    times = (inode.atime, inode.mtime, inode.ctime)
    return pack_stat(
        inode.fs.device, inode.ino, inode.nlink, inode.mode, inode.uid, inode.gid, inode.rdev, inode.size, times
    )


@CALLS.add("newfstatat")
def newfstatat(thread: Thread, directory: int, path: int, buffer: int, flags: int) -> Step[int]:
    """fstatat(2)."""
    follow = not flags & AT_SYMLINK_NOFOLLOW
    inode = yield from paths.inode_at(thread, directory, path, follow=follow, flags=flags)
    yield from user.write(thread, buffer, _stat_of(inode))
    return 0


@CALLS.add("stat")
def stat(thread: Thread, path: int, buffer: int) -> Step[int]:
    """stat(2)."""
    return (yield from newfstatat(thread, _CWD, path, buffer, 0))


@CALLS.add("lstat")
def lstat(thread: Thread, path: int, buffer: int) -> Step[int]:
    """lstat(2)."""
    return (yield from newfstatat(thread, _CWD, path, buffer, AT_SYMLINK_NOFOLLOW))


@CALLS.add("fstat")
def fstat(thread: Thread, fd: int, buffer: int) -> Step[int]:
    """fstat(2)."""
    yield from user.write(thread, buffer, _stat_of(thread.process.fds.get(fd).inode))
    return 0


@CALLS.add("statx")
def statx(thread: Thread, directory: int, path: int, flags: int, mask: int, buffer: int) -> Step[int]:
    """statx(2), with the basic fields."""
    follow = not flags & AT_SYMLINK_NOFOLLOW
    inode = yield from paths.inode_at(thread, directory, path, follow=follow, flags=flags)
    out = bytearray(256)
    _STATX.pack_into(
        out, 0, 0x7FF, 4096, 0, inode.nlink, inode.uid, inode.gid, inode.mode, 0, inode.ino, inode.size,
        (inode.size + 511) // 512, 0,
    )  # fmt: skip
    for offset, ns in ((64, inode.atime), (96, inode.ctime), (112, inode.mtime)):
        struct.pack_into("<qI", out, offset, ns // 10**9, ns % 10**9)
    device, node = inode.fs.device, inode.rdev
    struct.pack_into("<IIII", out, 128, node >> 8 & 0xFFF, node & 0xFF, device >> 8 & 0xFFF, device & 0xFF)
    yield from user.write(thread, buffer, bytes(out))
    return 0


@CALLS.add("faccessat2")
def faccessat2(thread: Thread, directory: int, path: int, mode: int, flags: int) -> Step[int]:
    """faccessat2(2)."""
    inode = yield from paths.inode_at(thread, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW, flags=flags)
    if mode & ~7:
        raise Errno(errno.EINVAL)
    if mode & MAY_WRITE:
        paths.check_writable(thread, inode)
    credentials.check(inode, thread.process.view.who, mode)
    return 0


@CALLS.add("faccessat")
def faccessat(thread: Thread, directory: int, path: int, mode: int) -> Step[int]:
    """faccessat(2)."""
    return (yield from faccessat2(thread, directory, path, mode, 0))


@CALLS.add("access")
def access(thread: Thread, path: int, mode: int) -> Step[int]:
    """access(2)."""
    return (yield from faccessat2(thread, _CWD, path, mode, 0))


@CALLS.add("readlinkat")
def readlinkat(thread: Thread, directory: int, path: int, buffer: int, size: int) -> Step[int]:
    """readlinkat(2)."""
    if signed(size, 32) <= 0:
        raise Errno(errno.EINVAL)
    inode = yield from paths.inode_at(thread, directory, path, follow=False, flags=AT_EMPTY_PATH)
    if not isinstance(inode, SymlinkInode):
        raise Errno(errno.EINVAL)
    data = inode.target.encode(errors="surrogateescape")[: signed(size, 32)]
    yield from user.write(thread, buffer, data)
    return len(data)


@CALLS.add("readlink")
def readlink(thread: Thread, path: int, buffer: int, size: int) -> Step[int]:
    """readlink(2)."""
    return (yield from readlinkat(thread, _CWD, path, buffer, size))


def _change_mode(thread: Thread, inode: Inode, mode: int) -> int:
    paths.check_writable(thread, inode)
    credentials.check_owner(inode, thread.process.view.who)
    inode.set_mode(mode)
    return 0


@CALLS.add("fchmodat")
def fchmodat(thread: Thread, directory: int, path: int, mode: int) -> Step[int]:
    """fchmodat(2)."""
    inode = yield from paths.inode_at(thread, directory, path, follow=True)
    return _change_mode(thread, inode, mode)


@CALLS.add("chmod")
def chmod(thread: Thread, path: int, mode: int) -> Step[int]:
    """chmod(2)."""
    return (yield from fchmodat(thread, _CWD, path, mode))


@CALLS.add("fchmod")
def fchmod(thread: Thread, fd: int, mode: int) -> int:
    """fchmod(2)."""
    return _change_mode(thread, thread.process.fds.get(fd).inode, mode)


def _change_owner(thread: Thread, inode: Inode, uid: int, gid: int) -> int:
    """Changes owners; -1 leaves one. Only root gives files away; an owner may change to a group of its own."""
    who = thread.process.view.who
    new_uid, new_gid = uid & _NO_CHANGE, gid & _NO_CHANGE
    paths.check_writable(thread, inode)
    gives_away = new_uid not in (_NO_CHANGE, inode.uid)
    foreign_group = new_gid not in (_NO_CHANGE, inode.gid, who.gid, *who.groups)
    if not who.is_root and (inode.uid != who.uid or gives_away or foreign_group):
        raise Errno(errno.EPERM)
    inode.uid = inode.uid if new_uid == _NO_CHANGE else new_uid
    inode.gid = inode.gid if new_gid == _NO_CHANGE else new_gid
    inode.touch(content=False)
    return 0


@CALLS.add("fchownat")
def fchownat(thread: Thread, directory: int, path: int, uid: int, gid: int, flags: int) -> Step[int]:
    """fchownat(2)."""
    inode = yield from paths.inode_at(thread, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW, flags=flags)
    return _change_owner(thread, inode, uid, gid)


@CALLS.add("chown")
def chown(thread: Thread, path: int, uid: int, gid: int) -> Step[int]:
    """chown(2)."""
    return (yield from fchownat(thread, _CWD, path, uid, gid, 0))


@CALLS.add("lchown")
def lchown(thread: Thread, path: int, uid: int, gid: int) -> Step[int]:
    """lchown(2)."""
    return (yield from fchownat(thread, _CWD, path, uid, gid, AT_SYMLINK_NOFOLLOW))


@CALLS.add("fchown")
def fchown(thread: Thread, fd: int, uid: int, gid: int) -> int:
    """fchown(2)."""
    return _change_owner(thread, thread.process.fds.get(fd).inode, uid, gid)


@CALLS.add("utimensat")
def utimensat(thread: Thread, directory: int, path: int, times: int, flags: int) -> Step[int]:
    """utimensat(2); a null path means the descriptor itself."""
    if path:
        inode = yield from paths.inode_at(thread, directory, path, follow=not flags & AT_SYMLINK_NOFOLLOW, flags=flags)
    else:
        inode = thread.process.fds.get(directory).inode
    now = inode.fs.now()
    stamps = [now, now]
    if times:
        for number, (seconds, ns) in enumerate(struct.iter_unpack("<qq", (yield from user.read(thread, times, 32)))):
            stamps[number] = _stamp(seconds, ns, now, (inode.atime, inode.mtime)[number])
        credentials.check_owner(inode, thread.process.view.who)
    elif thread.process.view.who.uid != inode.uid:
        credentials.check(inode, thread.process.view.who, MAY_WRITE)
    paths.check_writable(thread, inode)
    inode.touch(content=False)
    inode.atime, inode.mtime = stamps
    return 0


def _stamp(seconds: int, ns: int, now: int, old: int) -> int:
    if ns == _UTIME_NOW:
        return now
    if ns == _UTIME_OMIT:
        return old
    if not 0 <= ns < 10**9:
        raise Errno(errno.EINVAL)
    return seconds * 10**9 + ns


@CALLS.add("umask")
def umask(thread: Thread, mask: int) -> int:
    """umask(2)."""
    old = thread.process.umask
    thread.process.umask = mask & 0o777
    return old


def _statfs_of(thread: Thread, inode: Inode, buffer: int) -> Step[int]:
    fs = inode.fs
    total = fs.limit_bytes // 4096
    free = max(0, fs.limit_bytes - fs.used_bytes) // 4096
    data = struct.pack(
        "<QQQQQQQQQQQ4Q", _MAGIC.get(fs.kind, 0), 4096, total, free, free, 1 << 20, 1 << 20, 0, 255, 4096, 0, 0, 0, 0, 0
    )
    yield from user.write(thread, buffer, data)
    return 0


@CALLS.add("statfs")
def statfs(thread: Thread, path: int, buffer: int) -> Step[int]:
    """statfs(2)."""
    inode = yield from paths.inode_at(thread, _CWD, path, follow=True)
    return (yield from _statfs_of(thread, inode, buffer))


@CALLS.add("fstatfs")
def fstatfs(thread: Thread, fd: int, buffer: int) -> Step[int]:
    """fstatfs(2)."""
    return (yield from _statfs_of(thread, thread.process.fds.get(fd).inode, buffer))


@CALLS.add("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "setxattr", "lsetxattr")
def xattr(thread: Thread) -> int:
    """Extended attributes: these file systems have none."""
    raise Errno(errno.EOPNOTSUPP)
