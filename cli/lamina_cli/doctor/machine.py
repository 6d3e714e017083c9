"""What `lamina doctor` looks at, behind one object: files below a root, commands with a limit, sockets and rights.

A test gives a root with the /proc, /sys and /dev of another machine, and answers for the rest.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

KVM_GET_API_VERSION = 0xAE00
"""Source: linux/kvm.h, _IO(KVMIO, 0x00)."""
MAX_FILE = 4 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `state` is `ok`, `limited` or `missing`.

    `purpose` says what Lamina needs it for, `next_step` what to do about it; only what is `required` makes the machine
    unfit.
    """

    check: str
    state: str
    found: str
    purpose: str
    next_step: str = ""
    required: bool = False


class Machine:
    """This machine. Every answer comes within a limit; what cannot be read is empty."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        """Returns the path of an absolute name below the root."""
        return self._root / name.lstrip("/")

    def text(self, name: str) -> str:
        """Returns what a file says, at most 4 MiB; empty when there is none or it may not be read."""
        try:
            with self.path(name).open("rb") as file:
                return file.read(MAX_FILE).decode(errors="replace")
        except OSError:
            return ""

    def exists(self, name: str) -> bool:
        """Says whether something is there, as far as this user may see."""
        return os.path.exists(self.path(name))

    def names(self, name: str) -> list[str]:
        """Returns what is in a folder, in alphabetical order; nothing when there is none."""
        try:
            return sorted(os.listdir(self.path(name)))
        except OSError:
            return []

    def link(self, name: str) -> str:
        """Returns where a link leads; empty when there is none."""
        try:
            return str(self.path(name).readlink())
        except OSError:
            return ""

    def opening(self, name: str) -> str:
        """Returns why a device cannot be opened to read and write; empty when it can."""
        try:
            os.close(os.open(self.path(name), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def writable(self, name: str) -> bool:
        """Says whether this user may write to a file or make files in a folder."""
        return os.access(self.path(name), os.W_OK)

    def kvm_api(self) -> int:
        """Returns the version of the kernel's KVM interface, 12 on every kernel since 2.6.22; -1 without an answer."""
        try:
            device = os.open(self.path("/dev/kvm"), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return -1
        try:
            return fcntl.ioctl(device, KVM_GET_API_VERSION)
        except OSError:
            return -1
        finally:
            os.close(device)

    def room(self, name: str) -> tuple[int, int]:
        """Returns (free, all) bytes of the file system of a path; zeros when there is none."""
        try:
            state = os.statvfs(self.path(name))
        except OSError:
            return 0, 0
        return state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize

    def files_limit(self) -> tuple[int, int]:
        """Returns how many files this process may open, and how many it may ask for; -1 is without end."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def tool(self, name: str) -> str:
        """Returns where a program is, beside our Python or in the path; empty when it is not installed."""
        return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or ""

    def output(self, words: list[str], limit_s: float = 4.0) -> tuple[int, str]:
        """Returns the exit status of a command and what it said; -1 when it could not run or took too long."""
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, text=True, errors="replace"
            )
        except subprocess.TimeoutExpired:
            return -1, f"no answer within {limit_s:g} s"
        except OSError as error:
            return -1, error.strerror or str(error)
        return done.returncode, (done.stdout.strip() or done.stderr.strip())

    def port_taken(self, port: int) -> bool:
        """Says whether somebody listens on a port of 127.0.0.1."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
        return False
