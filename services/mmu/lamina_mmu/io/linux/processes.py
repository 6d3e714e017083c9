"""Processes of the kernel: implements `domain.kernel.Processes`.

Agents are started from a file in memory by posix_spawn, which copies nothing of this process; their forks are made
children of this process (CLONE_PARENT), so that none is left behind. What is asked of them goes over a socket each.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from lamina_mmu.domain.kernel import Agent
from lamina_mmu.io.linux import agent as program
from lamina_mmu.io.linux.agents import KernelAgent, prepare
from lamina_mmu.io.linux.calls import LIBC, IoVec, error_of, pieces_of

MOST_PIECES = 1024
"""Pieces of one call. Source: UIO_MAXIOV."""
PROCESS_MADVISE = 440
END_MS = 5000
"""How long ending a process is waited for; its memory may be large."""
Wake = Callable[[Hashable, object], object]


class KernelProcesses:
    """Processes that are agents, and those that are only looked at. Lives on one event loop."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._image = -1
        self._agents: dict[int, KernelAgent] = {}
        self._watched: dict[int, int] = {}

    # ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> KernelAgent:
        """Starts an agent."""
        if self._image < 0:
            self._image = os.memfd_create("lamina-space", os.MFD_CLOEXEC)
            os.write(self._image, program.program())
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            null = (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 1, 2)
            pid = os.posix_spawn(
                f"/proc/self/fd/{self._image}",
                ["lamina-space"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), 0), *null],
                setsigmask=[],
                setsigdef=signal.valid_signals(),
                setpgroup=0,
            )
        made = self._add(pid, mine)
        try:
            prepare(made, self)
        except BaseException:
            self.end(pid)
            raise
        return made

    def pair(self) -> tuple[socket.socket, int]:
        """Returns two ends of a connection; the second is handed over, and closed by `adopt`."""
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
        self.unwatch(pid)
        found = self._agents.pop(pid, None)
        if found is None:
            return
        found.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it is our child and was not waited for: the number is still its own
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Ends all agents."""
        for pid in list(self._agents):
            self.end(pid)
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
        try:
            return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
        except OSError as error:
            return -(error.errno or errno.EIO)

    def put(self, pid: int, name: str, text: str) -> int:
        """Writes a file of /proc/PID."""
        try:
            Path(f"/proc/{pid}/{name}").write_text(text)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def pages(self, pid: int, first: int, count: int) -> Sequence[int] | int:
        """Returns the words of the page map."""
        try:
            with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
                found = os.pread(file.fileno(), count * 8, first * 8)
        except OSError as error:
            return -(error.errno or errno.EIO)
        words: list[int] = np.frombuffer(found, "<u8").tolist()
        return words

    def advise(self, pid: int, ranges: Sequence[tuple[int, int]], advice: int) -> int:
        """Gives advice on ranges of a process."""
        done = 0
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            return -(error.errno or errno.EIO)
        try:
            for start, size in ranges:
                piece = IoVec(start, size)
                got = LIBC.syscall(PROCESS_MADVISE, descriptor, ctypes.byref(piece), 1, advice, 0)
                if got < 0:
                    return done or -error_of()
                done += got
        finally:
            os.close(descriptor)
        return done

    def limit(self, pid: int, limited: int, value: int | None) -> int:
        """Sets the soft limit, and the hard one when it is lower."""
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
