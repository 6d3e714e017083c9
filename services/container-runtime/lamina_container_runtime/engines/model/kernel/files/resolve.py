"""Path resolution: from a string to an inode, through mounts and symbolic links, never above the root.

    /data/./logs/../app   →  root ─data→ (mounted? its root) ─logs→ ─..→ ─app→

Source: path_resolution(7); the limit of 40 links is Linux's.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from lamina_container_runtime.engines.model.kernel.abi import MAY_EXEC, PATH_MAX, Errno
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, Inode, SymlinkInode

MAX_LINKS = 40
MAX_NAME = 255


@dataclass
class View:
    """How a process sees the file tree: its root, its working directory, its rights. `viewer` is the process itself."""

    root: DirectoryInode
    cwd: DirectoryInode
    who: Credentials
    viewer: object = None


class MagicLink(SymlinkInode):
    """A link of procfs that leads to an object rather than to a path, such as /proc/self/exe."""

    def follow(self) -> Inode | None:
        """Returns what it leads to; None when it is gone or can only be opened anew."""
        return None


@dataclass
class Found:
    """Where a path leads: its directory, its last part and its inode, which is None when nothing has that name.

    `must_be_directory` says that the path ends in a slash. For the root and for paths that end in a dot, `name` is "".
    `magic` is the true path of what a magic link led to.
    """

    parent: DirectoryInode
    name: str
    inode: Inode | None
    must_be_directory: bool = False
    magic: str = ""

    def existing(self) -> Inode:
        """Returns the inode; ENOENT when there is none, ENOTDIR when a slash asks for a directory and it is none."""
        if self.inode is None:
            raise Errno(errno.ENOENT)
        if self.must_be_directory and not isinstance(self.inode, DirectoryInode):
            raise Errno(errno.ENOTDIR)
        return self.inode


def resolve(view: View, path: str, start: DirectoryInode | None = None, *, follow: bool = True) -> Found:
    """Returns where `path` leads, from `start` (the working directory when None).

    `follow` says whether a symbolic link as the last part is followed. ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG.
    """
    if not path:
        raise Errno(errno.ENOENT)
    if len(path) >= PATH_MAX:
        raise Errno(errno.ENAMETOOLONG)
    here = view.root if path.startswith("/") else (start or view.cwd)
    parts = [part for part in path.split("/") if part]
    slash = path.endswith(("/", "/."))
    links = 0
    found = Found(here, "", here, slash)
    parts.reverse()
    while parts:
        name = parts.pop()
        last = not parts
        here = _directory(found, view)
        found = _step(view, here, name, slash and last)
        inode = found.inode
        if isinstance(inode, SymlinkInode) and (not last or follow or slash):
            links += 1
            if links > MAX_LINKS:
                raise Errno(errno.ELOOP)
            found = _follow(view, here, inode, parts, found)
        elif inode is None and not last:
            raise Errno(errno.ENOENT)
    return found


def _directory(found: Found, view: View) -> DirectoryInode:
    """Returns the directory that the walk is in, checked for the right to search it."""
    if not isinstance(found.inode, DirectoryInode):
        raise Errno(errno.ENOENT if found.inode is None else errno.ENOTDIR)
    credentials.check(found.inode, view.who, MAY_EXEC)
    return found.inode


def _step(view: View, here: DirectoryInode, name: str, slash: bool) -> Found:
    if name == ".":
        return Found(here, "", here, slash)
    if name == "..":
        above = parent_of(here, view.root)
        return Found(above, "", above, slash)
    if len(name.encode(errors="surrogateescape")) > MAX_NAME:
        raise Errno(errno.ENAMETOOLONG)
    inode = here.get(name, view.viewer)
    if isinstance(inode, DirectoryInode):
        inode = top_mount(inode)
    return Found(here, name, inode, slash)


def _follow(view: View, here: DirectoryInode, link: SymlinkInode, parts: list[str], found: Found) -> Found:
    """Returns where the walk goes on behind a link; the link's own parts are put before what is left."""
    if isinstance(link, MagicLink):
        target = link.follow()
        if target is not None:
            return Found(here, found.name, target, found.must_be_directory, link.target)
    if not link.target:
        raise Errno(errno.ENOENT)
    if len(link.target) >= PATH_MAX:
        raise Errno(errno.ENAMETOOLONG)
    parts.extend(reversed([part for part in link.target.split("/") if part]))
    base = view.root if link.target.startswith("/") else here
    return Found(base, "", base, found.must_be_directory)


def top_mount(directory: DirectoryInode) -> DirectoryInode:
    """Returns the root of what is mounted on a directory last, or the directory itself."""
    while directory.mounted is not None:
        directory = directory.mounted
    return directory


def parent_of(directory: DirectoryInode, root: DirectoryInode) -> DirectoryInode:
    """Returns `..` of a directory; the root is its own parent."""
    if directory is root:
        return root
    while directory.covers is not None:
        directory = directory.covers
        if directory is root:
            return root
    return top_mount(directory.parent)


def path_of(directory: DirectoryInode, root: DirectoryInode) -> str:
    """Returns the path of a directory as getcwd(2) reports it; ENOENT when it was removed."""
    names: list[str] = []
    while directory is not root:
        while directory.covers is not None:
            directory = directory.covers
        if directory is root or directory.parent is directory:
            break
        if directory.removed:
            raise Errno(errno.ENOENT)
        names.append(directory.name)
        directory = top_mount(directory.parent)
    return "/" + "/".join(reversed(names))


def location_of(found: Found, root: DirectoryInode) -> str:
    """Returns the path of what was found, for /proc/PID/fd and /proc/PID/exe."""
    if found.magic:
        return found.magic
    if isinstance(found.inode, DirectoryInode):
        return path_of(found.inode, root)
    above = path_of(found.parent, root)
    return f"{above.rstrip('/')}/{found.name}"


def mount_on(where: DirectoryInode, root: DirectoryInode) -> None:
    """Mounts a file system's root on a directory."""
    where = top_mount(where)
    where.mounted = root
    root.covers = where
