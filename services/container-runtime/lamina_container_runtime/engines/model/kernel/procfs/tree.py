"""/proc: processes and the system as files. Contents are made when a file is opened.

    /proc/self → PID            /proc/PID/{cmdline,comm,environ,exe,cwd,root,fd/,maps,mounts,stat,statm,status}
    /proc/{cpuinfo,filesystems,loadavg,meminfo,mounts,stat,uptime,version}    /proc/sys/kernel/{hostname,pid_max,…}

Only the processes of the container's PID namespace are there. Source: proc(5).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from lamina_container_runtime.engines.model.kernel.abi import S_IFREG, Errno
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode, FileSystem, Inode, SymlinkInode
from lamina_container_runtime.engines.model.kernel.files.resolve import MagicLink, path_of
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process, ProcessState
from lamina_container_runtime.engines.model.kernel.procfs import process_texts, system_texts
from lamina_kit.effects import Step

Content = Callable[[], Step[bytes]]


class ProcFile(Inode):
    """A file whose bytes `content` makes."""

    def __init__(self, fs: FileSystem, content: Content, mode: int = 0o444) -> None:
        super().__init__(fs, S_IFREG | mode)
        self.content = content


class ProcDirectory(DirectoryInode):
    """A directory of procfs; nothing can be made in it."""

    def __init__(self, fs: FileSystem, mode: int = 0o555) -> None:
        super().__init__(fs, mode)

    def put(self, name: str, inode: Inode) -> None:
        """Enters a fixed name."""
        super().add(name, inode)

    def add(self, name: str, inode: Inode) -> None:
        """Refuses: ENOENT, as procfs answers."""
        raise Errno(errno.ENOENT)

    def remove(self, name: str) -> Inode:
        """Refuses: EPERM."""
        raise Errno(errno.EPERM)


class ProcRoot(ProcDirectory):
    """The root: fixed files, and one directory for each process of the namespace."""

    def __init__(self, fs: FileSystem, container: Container) -> None:
        super().__init__(fs)
        self.container = container
        self._directories: dict[Process, ProcessDirectory] = {}

    def get(self, name: str, viewer: object = None) -> Inode | None:
        """Looks up a fixed name, `self`, `thread-self` or a process number."""
        if name in ("self", "thread-self") and isinstance(viewer, Process):
            target = str(viewer.pid) if name == "self" else f"{viewer.pid}/task/{viewer.pid}"
            return SymlinkInode(self.fs, target)
        if name.isdecimal() and len(name) < 8:
            process = self.container.pids.processes.get(int(name))
            return self._directory(process) if process is not None and str(process.pid) == name else None
        return super().get(name)

    def list(self, viewer: object = None) -> Iterator[tuple[str, Inode]]:
        """Yields the processes in the order of their numbers, then the fixed names."""
        for process in self.container.pids.ordered():
            yield str(process.pid), self._directory(process)
        yield from super().list()
        if isinstance(viewer, Process):
            yield "self", SymlinkInode(self.fs, str(viewer.pid))

    def _directory(self, process: Process) -> ProcessDirectory:
        for known in [known for known in self._directories if known.state is ProcessState.GONE]:
            del self._directories[known]
        if process not in self._directories:
            directory = ProcessDirectory(self.fs, process)
            directory.parent, directory.name = self, str(process.pid)
            self._directories[process] = directory
        return self._directories[process]


class ProcessDirectory(ProcDirectory):
    """/proc/PID."""

    def __init__(self, fs: FileSystem, process: Process) -> None:
        super().__init__(fs)
        self.uid, self.gid = process.view.who.uid, process.view.who.gid
        for name, text in process_texts.PROCESS_FILES.items():
            self.put(name, ProcFile(fs, _process_content(process, text)))
        self.put("exe", LinkTo(fs, lambda: process.memory.executable, lambda: process.executable_inode))
        self.put("cwd", LinkTo(fs, lambda: path_of(process.view.cwd, process.view.root), lambda: process.view.cwd))
        self.put("root", LinkTo(fs, lambda: "/", lambda: process.view.root))
        descriptors = FdDirectory(fs, process)
        self.put("fd", descriptors)


def _process_content(process: Process, text: process_texts.ProcessText) -> Content:
    return lambda: text(process)


class LinkTo(MagicLink):
    """A link of procfs: `where` gives its text, `what` the object that it leads to."""

    def __init__(self, fs: FileSystem, where: Callable[[], str], what: Callable[[], Inode | None]) -> None:
        self._where = where
        self._what = what
        super().__init__(fs, "")

    @property
    def target(self) -> str:
        """What readlink(2) gives."""
        return self._where()

    @target.setter
    def target(self, value: str) -> None:
        if value:
            raise Errno(errno.EPERM)

    def follow(self) -> Inode | None:
        """Returns the object."""
        return self._what()


class FdDirectory(ProcDirectory):
    """/proc/PID/fd: a link for each open descriptor."""

    def __init__(self, fs: FileSystem, process: Process) -> None:
        super().__init__(fs, 0o500)
        self.process = process

    def get(self, name: str, viewer: object = None) -> Inode | None:
        """Looks up a descriptor."""
        slot = self.process.fds.slots.get(int(name)) if name.isdecimal() and len(name) < 8 else None
        if slot is None:
            return None
        file = slot.file
        return LinkTo(self.fs, lambda: file.path, lambda: file.inode)

    def list(self, viewer: object = None) -> Iterator[tuple[str, Inode]]:
        """Yields the descriptors in the order of their numbers."""
        for fd in self.process.fds:
            link = self.get(str(fd))
            if link is not None:
                yield str(fd), link


def make_proc(fs: FileSystem, container: Container) -> ProcRoot:
    """Returns the root of /proc for a container."""
    root = ProcRoot(fs, container)
    for name, text in system_texts.SYSTEM_FILES.items():
        root.put(name, ProcFile(fs, _system_content(container, text)))
    root.put("mounts", SymlinkInode(fs, "self/mounts"))
    sys, kernel = ProcDirectory(fs), ProcDirectory(fs)
    root.put("sys", sys)
    sys.put("kernel", kernel)
    for name, text in system_texts.KERNEL_FILES.items():
        kernel.put(name, ProcFile(fs, _system_content(container, text)))
    return root


def _system_content(container: Container, text: system_texts.SystemText) -> Content:
    def content() -> Step[bytes]:
        return text(container).encode()
        yield

    return content
