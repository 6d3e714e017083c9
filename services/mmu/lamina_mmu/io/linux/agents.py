"""One agent: what is said to it, and what it says."""

from __future__ import annotations

import array
import asyncio
import os
import select
import socket
import struct
from collections.abc import Callable, Hashable, Sequence

from lamina_kit.errors import Unavailable
from lamina_mmu.domain.kernel.port import AGENT_END, SCRATCH, Processes, Reply, reply_key
from lamina_mmu.io.linux import program

COMMAND, REPLY = struct.Struct("<8Q"), struct.Struct("<Qqqqq")
PATIENCE_MS = 1
"""How long a reply is waited for before other work goes on: most come within microseconds."""
MOST_KEPT = 4096
"""Replies that nobody took, because who asked has gone."""
PREPARE_MS = 10_000

RT_SIGACTION, MUNMAP, CAPSET, PRCTL, CLOSE_RANGE = 13, 11, 126, 157, 436
PR_SET_NAME = 15
NAME = b"lamina-space\0"
"""What ps and the log of the kernel's out-of-memory call the process."""
SIGBUS, SIGSEGV = 7, 11
SA_SIGINFO, SA_RESTORER, SA_NODEFER = 0x4, 0x0400_0000, 0x4000_0000
CAPABILITY_VERSION = 0x2008_0522
U64 = (1 << 64) - 1


class KernelAgent:
    """Implements `domain.kernel.port.Agent` over a socket."""

    def __init__(self, pid: int, end: socket.socket, wake: Callable[[Hashable, object], object]) -> None:
        self.pid = pid
        self._socket = end
        self._wake = wake
        self._number = 0
        self._replies: dict[int, Reply] = {}
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._dead = self._closed = False
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end, self._readable)

    def send(self, operation: int, arguments: Sequence[int], descriptor: int | None = None) -> int:
        """Tells it to do something."""
        self._number += 1
        padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
        message = COMMAND.pack(self._number, operation, *(word & U64 for word in padded))
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            self._socket.sendmsg([message], rights)
        except BlockingIOError:
            raise Unavailable(
                f"Process {self.pid} is behind with what it was told already.",
                reason="SPACE_BUSY",
                next_step="Wait for calls on this space to end, and try again.",
            ) from None
        except OSError:
            self._dead = True
        return self._number

    def take(self, number: int) -> Reply | None:
        """Returns a reply, or None; EOFError when there will be none."""
        if number not in self._replies and not self._dead:
            self._poll.poll(PATIENCE_MS)
            self._receive()
        if number in self._replies:
            return self._replies.pop(number)
        if self._dead:
            raise EOFError(f"process {self.pid} is dead")
        return None

    def count_from(self, origin: KernelAgent) -> None:
        """Numbers commands from where `origin` is: a fork answers the command that made it, to nobody."""
        self._number = origin._number

    def close(self) -> None:
        """Lets go of the socket: the agent ends. Idempotent."""
        if not self._closed:
            self._closed = self._dead = True
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._wake(reply_key(self.pid), None)

    def _readable(self) -> None:
        self._receive()
        if self._dead:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._wake(reply_key(self.pid), None)

    def _receive(self) -> None:
        while not self._dead:
            try:
                found = self._socket.recv(REPLY.size)
            except BlockingIOError:
                return
            except OSError:
                found = b""
            if not found:
                self._dead = True
                return
            number, result, raised, code, address = REPLY.unpack(found)
            self._replies[number] = Reply(result, raised, code, address & U64)
            while len(self._replies) > MOST_KEPT:
                del self._replies[next(iter(self._replies))]


def prepare(made: KernelAgent, processes: Processes) -> None:
    """Makes a new process an empty space: handlers of signals, no privileges, nothing mapped but the agent.

    Without capabilities, so that limits hold for it.
    """
    flags = SA_SIGINFO | SA_RESTORER | SA_NODEFER
    action = struct.pack("<4Q", program.CAUGHT, flags, program.CAUGHT, 0)
    rights = struct.pack("<2I6I", CAPABILITY_VERSION, 0, *bytes(6))
    given = action + rights + NAME
    # Its first answer says that its program is there: posix_spawn returns when exec has begun, maybe before.
    _do(made, CLOSE_RANGE, (3, (1 << 32) - 1, 0))
    if processes.write(made.pid, SCRATCH, given) != len(given):
        raise _unready(made, "its memory cannot be written")
    for raised in (SIGSEGV, SIGBUS):
        _do(made, RT_SIGACTION, (raised, SCRATCH, 0, 8))
    _do(made, CAPSET, (SCRATCH + len(action), SCRATCH + len(action) + 8))
    _do(made, PRCTL, (PR_SET_NAME, SCRATCH + len(action + rights)))
    text = processes.text(made.pid, "maps")
    if isinstance(text, int):
        raise _unready(made, "its mappings cannot be read")
    for line in text.splitlines():
        start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
        if start >= AGENT_END and end < 1 << 47:
            _do(made, MUNMAP, (start, end - start))


def _do(made: KernelAgent, call: int, arguments: Sequence[int]) -> None:
    """Has a system call made while the space is prepared; it takes microseconds."""
    number = made.send(call, arguments)
    for _ in range(PREPARE_MS):
        reply = made.take(number)
        if reply is not None:
            if reply.result < 0:
                raise _unready(made, f"its system call {call} failed with {os.strerror(-reply.result)}")
            return
    raise _unready(made, "it does not answer")


def _unready(made: KernelAgent, why: str) -> Unavailable:
    return not_started(f"of its process {made.pid}, {why}")


def not_started(why: str) -> Unavailable:
    """Returns the error of a space that the system does not let start."""
    return Unavailable(
        f"The space could not be started: {why}.",
        reason="SPACE_NOT_STARTED",
        next_step="Look at what the system forbids to its processes (seccomp, limits), and try again.",
    )
