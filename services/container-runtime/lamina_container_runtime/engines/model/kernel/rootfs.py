"""The file tree of a container: its overlay, with /proc, /dev and /sys mounted, and the files that name its host.

/            overlay: the image's layers, and this container's upper layer
/proc        procfs of its PID namespace
/dev         tmpfs with null, zero, full, random, urandom, fd, stdin, stdout, stderr, shm, pts
/sys         tmpfs, empty, read-only
/etc         hostname, hosts, resolv.conf written by the runtime
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_container_runtime.domain.images.layer import LayerNode
from lamina_container_runtime.engines.model.kernel.files import devices, overlay
from lamina_container_runtime.engines.model.kernel.files.inode import (
    DeviceInode,
    DirectoryInode,
    FileInode,
    FileSystem,
    Inode,
    SymlinkInode,
)
from lamina_container_runtime.engines.model.kernel.files.resolve import mount_on
from lamina_container_runtime.engines.model.kernel.processes.process import Container
from lamina_container_runtime.engines.model.kernel.procfs.tree import make_proc

DEV_BYTES = 64 << 20
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def make_root(
    layers: Sequence[LayerNode], contents: overlay.Contents, now: Callable[[], int], upper_bytes: int
) -> DirectoryInode:
    """Returns the overlay of an image's layers, lowest first, with an empty upper layer of at most `upper_bytes`."""
    return overlay.mount(layers, contents, now, upper_bytes)


def furnish(container: Container) -> None:
    """Mounts what every container has and writes the files that name its host."""
    root, now = container.root, container.kernel.clock.wall_ns
    mount_on(_directory(root, "proc", 0o555), make_proc(FileSystem("proc", 0x2B, now, read_only=True), container))
    mount_on(_directory(root, "dev"), _make_dev(FileSystem("tmpfs", 0x2C, now, DEV_BYTES)))
    system = FileSystem("tmpfs", 0x2D, now, read_only=True)
    mount_on(_directory(root, "sys", 0o555), DirectoryInode(system, 0o555))
    etc = _directory(root, "etc")
    name = container.hostname
    _write(etc, "hostname", f"{name}\n")
    _write(etc, "hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n")
    _write(etc, "resolv.conf", "")


def _make_dev(fs: FileSystem) -> DirectoryInode:
    dev = DirectoryInode(fs, 0o755)
    for name, number in devices.NODES:
        dev.add(name, DeviceInode(fs, 0o666, number))
    for name, target in _LINKS:
        dev.add(name, SymlinkInode(fs, target))
    dev.add("shm", DirectoryInode(fs, 0o1777))
    dev.add("pts", DirectoryInode(fs, 0o755))
    return dev


def _directory(parent: DirectoryInode, name: str, mode: int = 0o755) -> DirectoryInode:
    """Returns a directory of the root, making it when the image has none; what is no directory gives way."""
    inode: Inode | None = parent.get(name)
    if isinstance(inode, DirectoryInode):
        return inode
    if inode is not None:
        parent.remove(name)
    directory = DirectoryInode(parent.fs, mode)
    parent.add(name, directory)
    return directory


def _write(parent: DirectoryInode, name: str, text: str) -> None:
    if parent.get(name) is not None:
        parent.remove(name)
    parent.add(name, FileInode(parent.fs, 0o644, data=text.encode()))
