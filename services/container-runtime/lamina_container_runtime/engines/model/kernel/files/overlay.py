"""The union file system: read-only layers below, one writable layer on top.

    upperdir   what this container wrote (in memory)          ─┐
    lowerdir   layer n   (top)                                 │  looked up from the top down; the first that has
    lowerdir   layer 1   (base)                                ─┘  the name, or a whiteout of it, decides

A directory is the union of the directories of its name down to the first opaque one. A file is the topmost one; it is
copied up when it is first changed. Removing a name that a lower layer has leaves a whiteout. Inodes of lower objects
are made when their directory is first looked into, so a container pays only for what it visits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lamina_container_runtime.domain.images.layer import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    WHITEOUT_PREFIX,
    LayerEntry,
    LayerNode,
)
from lamina_container_runtime.engines.model.kernel.abi import S_IFBLK, S_IFCHR, S_IFIFO, makedev
from lamina_container_runtime.engines.model.kernel.files.fifo import FifoInode
from lamina_container_runtime.engines.model.kernel.files.inode import (
    DeviceInode,
    DirectoryInode,
    FileInode,
    FileSystem,
    Inode,
    SymlinkInode,
)


class Contents(Protocol):
    """Reads file contents of layers by digest."""

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes at `offset`."""


@dataclass
class OverlayFileSystem(FileSystem):
    """The shared state of one mounted overlay."""

    contents: Contents | None = None

    def __post_init__(self) -> None:
        self.linked: dict[LayerNode, Inode] = {}


class OverlayFile(FileInode):
    """A file that may still be that of a layer: then `data` is None and `digest` names its content."""

    def __init__(self, fs: OverlayFileSystem, node: LayerNode) -> None:
        entry = node.entry
        super().__init__(fs, entry.mode, entry.uid, entry.gid)
        self.overlay = fs
        self.data = None
        self.digest = entry.digest
        self.lower_size = entry.size
        self.nlink = node.links
        self.atime = self.mtime = self.ctime = entry.mtime_ns
        self.changed = False

    @property
    def size(self) -> int:
        """Size in bytes, without copying up."""
        return self.lower_size if self.data is None else len(self.data)

    def content(self) -> bytearray:
        """Returns the bytes for changing; copies up."""
        if self.data is None:
            self.fs.charge(self.lower_size)
            self.data = bytearray(self.read(0, self.lower_size))
            self.changed = True
        return self.data

    def read(self, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes at `offset`."""
        if self.data is not None:
            return bytes(self.data[offset : offset + count])
        count = min(count, self.lower_size - offset)
        if count <= 0:
            return b""
        assert self.overlay.contents is not None
        return self.overlay.contents.read(self.digest, offset, count)


class OverlayDirectory(DirectoryInode):
    """A directory that is the union of `lowers`, topmost first, and of what was added. `whiteouts`: names removed."""

    def __init__(self, fs: OverlayFileSystem, lowers: Sequence[LayerNode]) -> None:
        entry = lowers[0].entry
        super().__init__(fs, entry.mode, entry.uid, entry.gid)
        self.overlay = fs
        self.nlink = 2
        self.atime = self.mtime = self.ctime = entry.mtime_ns
        self.changed = False
        self.whiteouts: dict[str, None] = {}
        self._lowers: tuple[LayerNode, ...] = tuple(lowers)
        self._loaded = False

    def entries(self) -> dict[str, Inode]:
        """Returns the union; made at the first look."""
        if not self._loaded:
            self._loaded = True
            for name, stack in union(self._lowers).items():
                inode = _inode_of(self.overlay, stack)
                self._entries[name] = inode
                if isinstance(inode, DirectoryInode):
                    inode.parent, inode.name = self, name
                    self.nlink += 1
        return self._entries

    def has_lower(self, name: str) -> bool:
        """Returns whether a lower layer has the name here, so that removing it leaves a whiteout."""
        return any(name in node.children for node in self._lowers)

    def add(self, name: str, inode: Inode) -> None:
        """Enters a name; a whiteout of it stays, as the lower object of that name is hidden still."""
        super().add(name, inode)
        if self.has_lower(name):
            self.whiteouts[name] = None

    def remove(self, name: str) -> Inode:
        """Takes a name out, leaving a whiteout when a lower layer has it."""
        if self.has_lower(name):
            self.whiteouts[name] = None
        inode = super().remove(name)
        _detach(inode)
        return inode


def mount(layers: Sequence[LayerNode], contents: Contents, now: Callable[[], int], limit_bytes: int) -> DirectoryInode:
    """Returns the root of an overlay over `layers`, lowest first; `limit_bytes` bounds the upper layer."""
    fs = OverlayFileSystem("overlay", device=0x2A, now=now, limit_bytes=limit_bytes, contents=contents)
    lowers: list[LayerNode] = []
    for layer in reversed(layers):
        lowers.append(layer)
        if layer.opaque:
            break
    if not lowers:
        lowers.append(LayerNode(LayerEntry("", DIRECTORY, mode=0o755)))
    return OverlayDirectory(fs, lowers)


def union(lowers: Sequence[LayerNode]) -> dict[str, list[LayerNode]]:
    """Returns, by name, the stack of nodes that shows through: one, or several directories, topmost first.

    Names come in alphabetical order.
    """
    found: dict[str, list[LayerNode]] = {}
    closed: set[str] = set()
    for node in lowers:
        for name, child in node.children.items():
            if name in closed:
                continue
            stack = found.setdefault(name, [])
            if stack and not child.is_directory:
                closed.add(name)
                continue
            stack.append(child)
            if not child.is_directory or child.opaque:
                closed.add(name)
        closed |= node.whiteouts
    return {name: found[name] for name in sorted(found)}


def upper_entries(root: DirectoryInode) -> Iterator[tuple[LayerEntry, bytes]]:
    """Yields what the upper layer holds, as the entries of a layer with the content of each file.

    Put over the same lower layers it gives the same tree.
    """
    stack: list[tuple[str, DirectoryInode]] = [("", root)]
    if root.changed:
        yield _entry("", root), b""
    while stack:
        path, directory = stack.pop()
        for name in directory.whiteouts if isinstance(directory, OverlayDirectory) else ():
            yield LayerEntry(f"{path}{WHITEOUT_PREFIX}{name}", FILE), b""
        for name, inode in directory.entries().items():
            if inode.changed:
                yield _entry(path + name, inode), inode.read(0, inode.size) if isinstance(inode, FileInode) else b""
            if isinstance(inode, DirectoryInode):
                stack.append((f"{path}{name}/", inode))


def _entry(path: str, inode: Inode) -> LayerEntry:
    kinds = {S_IFCHR: CHARACTER, S_IFBLK: BLOCK, S_IFIFO: FIFO}
    if isinstance(inode, DirectoryInode):
        kind = DIRECTORY
    elif isinstance(inode, SymlinkInode):
        kind = SYMLINK
    else:
        kind = kinds.get(inode.kind, FILE)
    return LayerEntry(
        path,
        kind,
        mode=inode.mode & 0o7777,
        uid=inode.uid,
        gid=inode.gid,
        mtime_ns=inode.mtime,
        size=inode.size if kind == FILE else 0,
        target=inode.target if isinstance(inode, SymlinkInode) else "",
    )


def _inode_of(fs: OverlayFileSystem, stack: list[LayerNode]) -> Inode:
    node = stack[0]
    if node.is_directory:
        return OverlayDirectory(fs, stack)
    if node.links > 1 and node in fs.linked:
        return fs.linked[node]
    inode = _object_of(fs, node)
    inode.atime = inode.mtime = inode.ctime = node.entry.mtime_ns
    inode.changed = False
    if node.links > 1:
        fs.linked[node] = inode
    return inode


def _object_of(fs: OverlayFileSystem, node: LayerNode) -> Inode:
    entry = node.entry
    if entry.kind == SYMLINK:
        return SymlinkInode(fs, entry.target, entry.uid, entry.gid)
    if entry.kind == FIFO:
        return FifoInode(fs, entry.mode, entry.uid, entry.gid)
    if entry.kind in (CHARACTER, BLOCK):
        return DeviceInode(fs, entry.mode, makedev(*entry.device), S_IFCHR if entry.kind == CHARACTER else S_IFBLK)
    return OverlayFile(fs, node)


def _detach(inode: Inode) -> None:
    """Makes an inode one of the upper layer alone, with all below it: it may be entered somewhere else."""
    inode.changed = True
    if isinstance(inode, DirectoryInode):
        for child in inode.entries().values():
            _detach(child)
        if isinstance(inode, OverlayDirectory):
            inode._lowers = ()
            inode.whiteouts.clear()
