"""Processes of the kernel: implements `domain.kernel.port.Processes`.

Agents are started from a file in memory by posix_spawn, which copies nothing of this process; their forks are made
children of this process (CLONE_PARENT), so that none is left behind. What is asked of them goes over a socket each.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import io
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from lamina_kit.errors import ResourceExhausted
from lamina_mmu.domain.kernel.port import Agent, exit_key
from lamina_mmu.io.linux import program
from lamina_mmu.io.linux.agents import KernelAgent, not_started, prepare
from lamina_mmu.io.linux.calls import LIBC, IoVec, error_of, pieces_of

MOST_PIECES = 1024
"""Pieces of one call. Source: UIO_MAXIOV."""
PROCESS_MADVISE = 440
END_MS = 5
"""How long the end of a process is waited for at once; one with much memory ends while others go on."""
SPARE_DESCRIPTORS = 64
"""Descriptors that spaces leave to connections and files."""
Wake = Callable[[Hashable, object], object]


class KernelProcesses:
    """Processes that are agents, and those that are only looked at. Lives on one event loop."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._image = -1
        self._agents: dict[int, KernelAgent] = {}
        self._watched: dict[int, int] = {}
        self._ending: dict[int, int] = {}

    # ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> KernelAgent:
        """Starts an agent."""
        self._check_room()
        if self._image < 0:
            self._image = os.memfd_create("lamina-space", os.MFD_CLOEXEC)
            os.write(self._image, program.program())
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                pid = self._spawn(its.fileno())
            except OSError as error:
                mine.close()
                raise not_started(error.strerror or str(error)) from error
        made = self._add(pid, mine)
        try:
            prepare(made, self)
        except BaseException:
            self.end(pid)
            raise
        return made

    def _spawn(self, end: int) -> int:
        null = (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 1, 2)
        return os.posix_spawn(
            f"/proc/self/fd/{self._image}",
            ["lamina-space"],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, end, 0), *null],
            setsigmask=[],
            setsigdef=signal.valid_signals(),
            setpgroup=0,
        )

    def _check_room(self) -> None:
        """Refuses one more process when descriptors are short: without them nobody could even connect."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = 2 * len(self._agents) + len(self._watched.keys() - self._agents.keys())
        if limit != resource.RLIM_INFINITY and used + 2 + SPARE_DESCRIPTORS > limit:
            raise ResourceExhausted(
                f"The service may have {limit} descriptors open, and its spaces have {used} of them.",
                reason="TOO_MANY_SPACES",
                next_step="Delete spaces, or raise the limit of open files (ulimit -n) and start the service anew.",
            )

    def pair(self) -> tuple[socket.socket, int]:
        """Returns two ends of a connection; the second is handed over, and closed by `adopt`."""
        self._check_room()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return mine, its.detach()

    def adopt(self, pid: int, end: object, origin: Agent) -> KernelAgent:
        """Returns the agent that a fork made. It answers the fork too: its own commands are counted from there."""
        assert isinstance(end, socket.socket) and isinstance(origin, KernelAgent) and pid > 1
        made = self._add(pid, end)
        made.count_from(origin)
        return made

    def _add(self, pid: int, end: socket.socket) -> KernelAgent:
        made = self._agents[pid] = KernelAgent(pid, end, self._wake)
        return made

    def end(self, pid: int) -> None:
        """Ends an agent and takes its exit status."""
        found, descriptor = self._agents.pop(pid, None), self._watched.pop(pid, -1)
        if descriptor >= 0:
            asyncio.get_running_loop().remove_reader(descriptor)
        if found is None:
            if descriptor >= 0:
                os.close(descriptor)
            return
        found.close()
        if descriptor < 0:
            descriptor = os.pidfd_open(pid)  # it is our child and was not waited for: the number is still its own
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        self._ending[pid] = descriptor
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(END_MS):
            self._take_status(pid)
        else:
            asyncio.get_running_loop().add_reader(descriptor, self._take_status, pid)

    def is_ending(self, pid: int) -> bool:
        """Returns whether a process that was ended is still there."""
        return pid in self._ending

    def _take_status(self, pid: int) -> None:
        """Waits for a process that was killed; nothing of it is left afterwards."""
        descriptor = self._ending.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        self._wake(exit_key(pid), None)

    def close(self) -> None:
        """Ends all agents."""
        for pid in list(self._agents):
            self.end(pid)
        for pid in list(self._ending):
            self._take_status(pid)
        for pid in list(self._watched):
            self.unwatch(pid)
        if self._image >= 0:
            os.close(self._image)
            self._image = -1

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, pid: int, ended: Callable[[], None]) -> int:
        """Calls `ended` once when a process is gone."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            return -(error.errno or errno.EIO)
        self._watched[pid] = descriptor
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(descriptor)
            if self._watched.get(pid) == descriptor:
                self._watched.pop(pid)
                os.close(descriptor)
                ended()

        loop.add_reader(descriptor, gone)
        return 0

    def unwatch(self, pid: int) -> None:
        """Ends a watch."""
        descriptor = self._watched.pop(pid, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _has_ended(self, pid: int) -> bool:
        """Returns whether a watched process has ended, so that its number may be another's."""
        descriptor = self._watched.get(pid)
        if descriptor is None:
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, pid: int, address: int, size: int) -> bytes | int:
        """Returns bytes of a process up to the first that cannot be read."""
        buffer = ctypes.create_string_buffer(size)
        done = self._transfer(LIBC.process_vm_readv, pid, buffer, address, size)
        return done if done < 0 else buffer.raw[:done]

    def write(self, pid: int, address: int, data: bytes) -> int:
        """Stores bytes in a process up to the first that cannot be written."""
        buffer = ctypes.create_string_buffer(data, len(data))
        return self._transfer(LIBC.process_vm_writev, pid, buffer, address, len(data))

    def _transfer(self, call: object, pid: int, buffer: ctypes.Array[ctypes.c_char], address: int, size: int) -> int:
        assert callable(call)
        if self._has_ended(pid):
            return -errno.ESRCH
        pieces, done = pieces_of(address, size), 0
        for first in range(0, len(pieces), MOST_PIECES):
            count = min(MOST_PIECES, len(pieces) - first)
            wanted = sum(pieces[first + index].length for index in range(count))
            local = IoVec(ctypes.addressof(buffer) + done, wanted)
            got = call(pid, ctypes.addressof(local), 1, ctypes.addressof(pieces[first]), count, 0)
            if got < 0:
                return done or -error_of()
            done += got
            if got < wanted:
                break
        return done

    def force(self, pid: int, address: int, data: bytes) -> int:
        """Stores bytes whatever the rights of private mappings are."""
        if self._has_ended(pid):
            return -errno.ESRCH
        done = 0
        try:
            with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as file:
                while done < len(data):
                    end = min(len(data), done + 4096 - (address + done) % 4096)
                    done += os.pwrite(file.fileno(), data[done:end], address + done)
        except OSError as error:
            return done or -(error.errno or errno.EIO)
        return done

    # ── what the kernel tells ────────────────────────────────────────────────────────────────────────────────────

    def text(self, pid: int, name: str) -> str | int:
        """Returns a file of /proc/PID."""
        if self._has_ended(pid):
            return -errno.ESRCH
        try:
            return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
        except OSError as error:
            return -(error.errno or errno.EIO)

    def put(self, pid: int, name: str, text: str) -> int:
        """Writes a file of /proc/PID."""
        if self._has_ended(pid):
            return -errno.ESRCH
        try:
            Path(f"/proc/{pid}/{name}").write_text(text)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def pages(self, pid: int, first: int, count: int) -> Sequence[int] | int:
        """Returns the words of the page map."""
        if self._has_ended(pid):
            return -errno.ESRCH
        try:
            with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
                found = os.pread(file.fileno(), count * 8, first * 8)
        except OSError as error:
            return -(error.errno or errno.EIO)
        words: list[int] = np.frombuffer(found, "<u8").tolist()
        return words

    def advising(self, pid: int, ranges: Sequence[tuple[int, int]], advice: int) -> Callable[[], int]:
        """Returns what gives advice on ranges of a watched process; it may run in a thread of its own."""
        watched = self._watched.get(pid)
        if watched is None:
            return lambda: -errno.ESRCH
        process = io.FileIO(os.dup(watched))  # the watch may end meanwhile

        def give() -> int:
            done = 0
            with process:
                for start, size in ranges:
                    piece = IoVec(start, size)
                    got = LIBC.syscall(PROCESS_MADVISE, process.fileno(), ctypes.byref(piece), 1, advice, 0)
                    if got < 0:
                        return done or -error_of()
                    done += got
            return done

        return give

    def limit(self, pid: int, limited: int, value: int | None) -> int:
        """Sets the soft limit, and the hard one when it is lower."""
        if self._has_ended(pid):
            return -errno.ESRCH
        wanted = resource.RLIM_INFINITY if value is None else value
        try:
            _, hard = resource.prlimit(pid, limited)
            if hard != resource.RLIM_INFINITY and (value is None or hard < value):
                hard = wanted
            resource.prlimit(pid, limited, (wanted, hard))
        except ValueError:
            return -errno.EPERM
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0
