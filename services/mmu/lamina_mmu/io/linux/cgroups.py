"""The kernel's cgroups: finds the hierarchy with the memory controller, and keeps one subtree of it.

The subtree is called after the host and after the process that made it, `lamina-HOST.PIDNS.PID.START`, so that one
whose process is dead is known for what a killed service left, and is removed at the next start. Nothing else of the
hierarchy is touched, but for one thing: with version 2 the memory controller is switched on for the groups below the
mount, if it was not.

Version 1 tells of an out-of-memory through an eventfd, version 2 of all events by changes of `memory.events`, which
inotify sees. Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst (10. OOM Control).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lamina_mmu.domain.kernel.cgroups import Hierarchy, hierarchies, processes

PREFIX = "lamina-"
INNER = "_own"
"""What groups of processes are called with version 2 (`engines/linux/cgroup_files.py`)."""
_IN_MODIFY = 0x2
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_CONTROLLERS, _SUBTREE = "cgroup.controllers", "cgroup.subtree_control"


class NoCgroups:
    """Implements `domain.kernel.cgroups.Cgroups` where there is none, or none that may be used: `why` says which."""

    version = 0

    def __init__(self, why: str) -> None:
        self.why = why

    def make(self, path: str) -> int:
        """Refuses."""
        return -errno.ENOSYS

    def remove(self, path: str) -> int:
        """Refuses."""
        return -errno.ENOSYS

    def read(self, path: str, file: str) -> str | int:
        """Refuses."""
        return -errno.ENOSYS

    def put(self, path: str, file: str, text: str) -> int:
        """Refuses."""
        return -errno.ENOSYS

    def watch(self, path: str, changed: Callable[[], None]) -> int:
        """Refuses."""
        return -errno.ENOSYS

    def unwatch(self, path: str) -> None:
        """Has nothing to end."""

    def close(self) -> int:
        """Has nothing to remove."""
        return 0


class CgroupSubtree:
    """Implements `domain.kernel.cgroups.Cgroups` below `top`, a directory that it made."""

    why = ""

    def __init__(self, version: int, top: Path) -> None:
        self.version = version
        self.top = top
        self._watches: dict[str, int] = {}

    def make(self, path: str) -> int:
        """Makes a group; with version 2 it may have groups with limits below it, unless it is one for processes."""
        where = self.top / path
        try:
            where.mkdir()
        except OSError as error:
            return -(error.errno or errno.EIO)
        if self.version == 2 and where.name != INNER:
            return _write(where / _SUBTREE, "+memory")
        return 0

    def remove(self, path: str) -> int:
        """Removes a group."""
        try:
            (self.top / path).rmdir()
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def read(self, path: str, file: str) -> str | int:
        """Returns the content of a group's file."""
        try:
            return (self.top / path / file).read_text(errors="replace")
        except OSError as error:
            return -(error.errno or errno.EIO)

    def put(self, path: str, file: str, text: str) -> int:
        """Writes a group's file."""
        return _write(self.top / path / file, text)

    def watch(self, path: str, changed: Callable[[], None]) -> int:
        """Calls `changed` when the kernel tells something of a group."""
        self.unwatch(path)
        where = self.top / path
        told = _out_of_memory(where) if self.version == 1 else _changes(where / "memory.events")
        if told < 0:
            return told
        self._watches[path] = told

        def read() -> None:
            with suppress(BlockingIOError):
                os.read(told, 4096)
            changed()

        asyncio.get_running_loop().add_reader(told, read)
        return 0

    def unwatch(self, path: str) -> None:
        """Ends a watch."""
        told = self._watches.pop(path, None)
        if told is not None:
            asyncio.get_running_loop().remove_reader(told)
            os.close(told)

    def close(self) -> int:
        """Removes the subtree; what cannot be removed is found by a start after the end of this process."""
        for path in list(self._watches):
            self.unwatch(path)
        try:
            if self.top.exists():
                remove_tree(self.top)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0


def _write(file: Path, text: str) -> int:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return -(error.errno or errno.EIO)
    try:
        os.write(handle, text.encode())
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        os.close(handle)
    return 0


def _out_of_memory(where: Path) -> int:
    """Returns an eventfd that the kernel raises when a group of version 1 runs out of memory, or the error."""
    told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        control = os.open(where / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        os.close(told)
        return -(error.errno or errno.EIO)
    error_number = _write(where / "cgroup.event_control", f"{told} {control}")
    os.close(control)
    if error_number < 0:
        os.close(told)
        return error_number
    return told


def _changes(file: Path) -> int:
    """Returns an inotify descriptor that is readable when a file changed, or the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    told: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if told < 0:
        return -ctypes.get_errno()
    if libc.inotify_add_watch(told, os.fsencode(file), _IN_MODIFY) < 0:
        error_number = ctypes.get_errno()
        os.close(told)
        return -error_number
    return told


# ── the subtree ──────────────────────────────────────────────────────────────────────────────────────────────────────


def remove_tree(top: Path) -> None:
    """Removes a group with all below it; their processes go to the group above `top`. OSError when one stays."""
    _remove_below(top, top.parent / "cgroup.procs")


def _remove_below(folder: Path, refuge: Path) -> None:
    for below in sorted(folder.iterdir()):
        if below.is_dir():
            _remove_below(below, refuge)
    for pid in processes(_text(folder / "cgroup.procs")):
        _write(refuge, str(pid))
    folder.rmdir()


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def find(proc: Path = Path("/proc")) -> Hierarchy | None:
    """Returns the hierarchy that has the memory controller; None without one."""
    for found in hierarchies(_text(proc / "self" / "mountinfo")):
        if found.version == 1 or "memory" in _text(Path(found.mount) / _CONTROLLERS).split():
            return found
    return None


def open_cgroups(host: str, proc: Path = Path("/proc")) -> CgroupSubtree | NoCgroups:
    """Makes the subtree of a host's MMU, after removing those that dead ones of the same host left."""
    found = find(proc)
    if found is None:
        return NoCgroups("no cgroup hierarchy that is mounted here has the memory controller")
    mount = Path(found.mount)
    if found.version == 2 and "memory" not in _text(mount / _SUBTREE).split():
        error = _write(mount / _SUBTREE, "+memory")
        if error < 0:
            return NoCgroups(f"the memory controller cannot be used below {mount}: {os.strerror(-error)}")
    remove_leftovers(mount, host, proc)
    top = _free_name(mount, f"{PREFIX}{host}.{_identity(proc)}")
    try:
        top.mkdir()
        if found.version == 2:
            error = _write(top / _SUBTREE, "+memory")
            if error < 0:
                top.rmdir()
                return NoCgroups(f"the memory controller cannot be used below {top}: {os.strerror(-error)}")
    except OSError as error:
        return NoCgroups(f"no group can be made in {mount}: {error.strerror}")
    return CgroupSubtree(found.version, top)


def remove_leftovers(mount: Path, host: str, proc: Path = Path("/proc")) -> list[str]:
    """Removes the subtrees of a host whose process is dead; returns their names."""
    here = os.readlink(proc / "self" / "ns" / "pid").strip("pid:[]")
    removed = []
    for top in sorted(mount.glob(f"{PREFIX}{host}.*")):
        parts = top.name.removeprefix(f"{PREFIX}{host}.").split(".")
        if len(parts) < 3 or parts[0] != here or _start(proc, parts[1]) == parts[2]:
            continue
        with suppress(OSError):
            remove_tree(top)
            removed.append(top.name)
    return removed


def _identity(proc: Path) -> str:
    """Returns what only this process is called: its PID namespace, its number there, and when it started."""
    namespace = os.readlink(proc / "self" / "ns" / "pid").strip("pid:[]")
    return f"{namespace}.{os.getpid()}.{_start(proc, str(os.getpid()))}"


def _start(proc: Path, pid: str) -> str:
    """Returns when a process started, in clock ticks since the boot; empty when there is none. Source: proc(5)."""
    _, _, fields = _text(proc / pid / "stat").rpartition(")")
    words = fields.split()
    return words[19] if len(words) > 19 else ""


def _free_name(mount: Path, name: str) -> Path:
    top, count = mount / name, 1
    while top.exists():
        top, count = mount / f"{name}.{count}", count + 1
    return top
