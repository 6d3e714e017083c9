"""Numbers and layouts of the Linux system call interface on x86-64.

Source: Linux include/uapi (asm-generic, linux, x86); System V ABI, AMD64 supplement.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

U64 = (1 << 64) - 1
MAX_RW = 0x7FFF_F000
"""Most bytes of one read or write."""

O_WRONLY, O_RDWR, O_ACCMODE = 0o1, 0o2, 0o3
O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_APPEND, O_NONBLOCK = 0o100, 0o200, 0o400, 0o1000, 0o2000, 0o4000
O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH, O_TMPFILE = 0o200000, 0o400000, 0o2000000, 0o10000000, 0o20200000
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000
S_IFMT, S_IFIFO, S_IFCHR, S_IFDIR = 0o170000, 0o010000, 0o020000, 0o040000
S_IFBLK, S_IFREG, S_IFLNK = 0o060000, 0o100000, 0o120000
DT_OF = {S_IFIFO: 1, S_IFCHR: 2, S_IFDIR: 4, S_IFBLK: 6, S_IFREG: 8, S_IFLNK: 10}
MAY_EXEC, MAY_WRITE, MAY_READ = 1, 2, 4
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE = 1, 2, 0x10, 0x20, 0x100000
MAP_GROWSDOWN = 0x100
POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL, POLLRDNORM, POLLWRNORM = 1, 2, 4, 8, 16, 32, 64, 256
CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_VFORK = 0x100, 0x200, 0x400, 0x800, 0x4000
CLONE_THREAD, CLONE_SETTLS, CLONE_PARENT_SETTID = 0x10000, 0x80000, 0x100000
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x200000, 0x1000000
PATH_MAX = 4096
TASK_SIZE = (1 << 47) - 4096
"""Address behind the last one of a program: the topmost page of the user half is never mapped."""
PIPE_BUF = 4096

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL = 1, 2, 3, 4, 5, 6, 7, 8, 9
SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP = 11, 13, 14, 15, 17, 18, 19, 20
SIGTTIN, SIGTTOU, SIGURG, SIGWINCH = 21, 22, 23, 28
SIGNAL_NAMES = (
    "SIG0", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
    "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR",
    "SIGSYS",
)  # fmt: skip

_STAT = struct.Struct("<QQQIIIIQqqqQQQQQQqqq")
_TIMESPEC = struct.Struct("<qq")


@dataclass(frozen=True)
class ErrnoName:
    """The name of an error number, for example `ENOENT`: what the span of a failed system call shows as its status."""

    name: str


class Errno(Exception):
    """A system call fails with this error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number

    def code(self) -> ErrnoName:
        """Returns its name."""
        return ErrnoName(str(self))


class Interrupted(Errno):
    """A wait ended because a signal came. `restartable` calls go on after a handler with SA_RESTART."""

    def __init__(self, restartable: bool = True) -> None:
        super().__init__(errno.EINTR)
        self.restartable = restartable


def signed(value: int, bits: int = 64) -> int:
    """Returns the low `bits` of a register as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def signal_name(signal: int) -> str:
    """Returns the name of a signal: `SIGTERM`, or `SIGRTMIN+N`."""
    return SIGNAL_NAMES[signal] if 0 < signal < len(SIGNAL_NAMES) else f"SIGRTMIN+{signal - 32}"


def signal_number(name: str) -> int:
    """Returns the number of a signal by name or number (`SIGTERM`, `TERM`, `15`); 0 when there is none."""
    if name.isdecimal():
        return int(name) if 0 < int(name) <= 64 else 0
    full = name if name.startswith("SIG") else f"SIG{name}"
    return SIGNAL_NAMES.index(full) if full in SIGNAL_NAMES[1:] else 0


def makedev(major: int, minor: int) -> int:
    """Returns the device number as stat(2) reports it."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def pack_timespec(ns: int) -> bytes:
    """Returns a struct timespec."""
    return _TIMESPEC.pack(ns // 10**9, ns % 10**9)


def unpack_timespec(data: bytes) -> int:
    """Returns the nanoseconds of a struct timespec; EINVAL when it is none."""
    seconds, ns = _TIMESPEC.unpack(data)
    if seconds < 0 or not 0 <= ns < 10**9:
        raise Errno(errno.EINVAL)
    return int(seconds * 10**9 + ns)


def pack_stat(
    dev: int, ino: int, nlink: int, mode: int, uid: int, gid: int, rdev: int, size: int, times: tuple[int, int, int]
) -> bytes:
    """Returns a struct stat of 144 bytes; `times` are atime, mtime and ctime in nanoseconds."""
    stamps = [part for ns in times for part in (ns // 10**9, ns % 10**9)]
    return _STAT.pack(dev, ino, nlink, mode, uid, gid, 0, rdev, size, 4096, (size + 511) // 512, *stamps, 0, 0, 0)
