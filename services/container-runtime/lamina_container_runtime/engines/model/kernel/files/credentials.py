"""Who a process is, and what permission bits allow it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from lamina_container_runtime.engines.model.kernel.abi import MAY_EXEC, S_IFDIR, Errno
from lamina_container_runtime.engines.model.kernel.files.inode import Inode


@dataclass(frozen=True)
class Credentials:
    """User and group ids that files are checked with; `groups` are supplementary. User 0 may do everything."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()

    @property
    def is_root(self) -> bool:
        """Whether this is user 0."""
        return self.uid == 0


def allows(inode: Inode, who: Credentials, wanted: int) -> bool:
    """Returns whether `who` may do `wanted` (MAY_READ, MAY_WRITE, MAY_EXEC) to an inode.

    Root may read and write all, and execute what anybody may execute; directories it may always enter.
    """
    if who.is_root:
        return not wanted & MAY_EXEC or inode.kind == S_IFDIR or bool(inode.mode & 0o111)
    if who.uid == inode.uid:
        bits = inode.mode >> 6
    elif inode.gid == who.gid or inode.gid in who.groups:
        bits = inode.mode >> 3
    else:
        bits = inode.mode
    return bits & wanted == wanted


def check(inode: Inode, who: Credentials, wanted: int) -> None:
    """Raises EACCES unless `who` may do `wanted` to an inode."""
    if not allows(inode, who, wanted):
        raise Errno(errno.EACCES)


def check_owner(inode: Inode, who: Credentials) -> None:
    """Raises EPERM unless `who` owns an inode or is root."""
    if not who.is_root and who.uid != inode.uid:
        raise Errno(errno.EPERM)
