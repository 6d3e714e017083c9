"""The port through which the `linux` engine reaches the kernel; `io/linux` fills it. Pure.

What may be refused comes back as a negative error number, as the kernel says it, and never as an exception: what it
means is the engine's to decide. Addresses and sizes are in bytes, times in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lamina_mmu.domain.kernel.cgroups import Cgroups
from lamina_mmu.domain.kernel.swap import KernelSwap


@dataclass(frozen=True, slots=True)
class Reply:
    """How a system call, or an access, of an agent ended.

    `result` is what the call returned, a negative error number among it. An access that was refused has the `signal`
    that a process gets for it, with its `code` (si_code) and `address` (si_addr).
    """

    result: int
    signal: int = 0
    code: int = 0
    address: int = 0


class Agent(Protocol):
    """A process that exists to be an address space: it does what it is told, one thing after another."""

    pid: int

    def send(self, operation: int, arguments: Sequence[int], descriptor: int | None = None, /) -> int:
        """Tells it to make a system call, or an access; returns the number of the reply."""

    def take(self, number: int, /) -> Reply | None:
        """Returns a reply; None when it is not there yet. `reply_key` is woken for it. EOFError: the agent is dead."""


class Processes(Protocol):
    """Processes of the kernel. One that is watched and has ended is ESRCH, whoever has its number now."""

    def start(self) -> Agent:
        """Starts an agent, whose space holds nothing but the agent itself. SPACE_NOT_STARTED."""

    def pair(self) -> tuple[object, int]:
        """Returns two ends of a new connection: one to speak to a fork over, and the descriptor that it is to get,
        which the caller closes (`Contents.close`).
        """

    def adopt(self, pid: int, end: object, origin: Agent) -> Agent:
        """Returns the agent that the fork of `origin` made: process `pid`, spoken to over `end`."""

    def close(self) -> None:
        """Ends all agents and all watches."""

    def watch(self, pid: int, ended: Callable[[], None]) -> int:
        """Calls `ended` once when a process is gone; returns 0, or why it cannot be watched."""

    def unwatch(self, pid: int) -> None:
        """Ends a watch. Idempotent."""

    def end(self, pid: int) -> None:
        """Ends an agent's process, and takes its exit status: nothing of it is left. Idempotent.

        One whose memory is large takes its time; it `is_ending` meanwhile.
        """

    def is_ending(self, pid: int) -> bool:
        """Returns whether a process that was ended is still there; `exit_key` is woken when it is not."""

    def read(self, pid: int, address: int, size: int) -> bytes | int:
        """Returns bytes of a process, as many as there are up to the first that cannot be read; or the error."""

    def write(self, pid: int, address: int, data: bytes) -> int:
        """Stores bytes in a process; returns how many, up to the first that cannot be written; or the error."""

    def force(self, pid: int, address: int, data: bytes) -> int:
        """The same whatever the rights of private mappings are, as a debugger does."""

    def text(self, pid: int, name: str) -> str | int:
        """Returns a file of /proc/PID, or the error. `name`: `smaps`, `stat` …"""

    def put(self, pid: int, name: str, text: str) -> int:
        """Writes a file of /proc/PID; returns 0, or the error."""

    def pages(self, pid: int, first: int, count: int) -> Sequence[int] | int:
        """Returns the words of /proc/PID/pagemap of `count` pages from page number `first`, or the error."""

    def advising(self, pid: int, ranges: Sequence[tuple[int, int]], advice: int) -> Callable[[], int]:
        """Returns what gives advice (MADV_…) on ranges (start, size) of a watched process, and returns the bytes
        advised, or the error. It may take long, and may be called in another thread.
        """

    def limit(self, pid: int, resource: int, value: int | None) -> int:
        """Sets a resource limit (RLIMIT_…) of a process, None for none; returns 0, or the error."""


class Contents(Protocol):
    """Memory files (memfd), which are what objects consist of. Named by their descriptor."""

    def create(self, name: str, size: int) -> int:
        """Makes one of `size` zeros; returns its descriptor, or the error."""

    def close(self, content: int) -> None:
        """Lets go of one; mappings keep what they have."""

    def inode(self, content: int) -> int:
        """Returns the number by which mappings name it."""

    def read(self, content: int, offset: int, size: int) -> bytes:
        """Returns bytes of it."""

    def write(self, content: int, offset: int, data: bytes) -> int:
        """Stores bytes in it; returns how many, or the error."""

    def resize(self, content: int, size: int) -> int:
        """Changes its size; returns 0, or the error."""

    def blocks(self, content: int) -> int:
        """Returns how many pages it has, in RAM or in swap."""

    def resident(self, content: int, size: int) -> int:
        """Returns how many of its pages are in RAM."""

    def written(self, content: int, offset: int, end: int) -> list[tuple[int, int]]:
        """Returns the pieces (start, end) of a range that were ever written, ascending."""


class KernelMemory(Protocol):
    """The memory of the machine, as /proc and /sys tell it."""

    def text(self, name: str) -> str:
        """Returns a file of /proc: `meminfo`, `vmstat`, `zoneinfo`, `buddyinfo`, `swaps`. Empty when there is none."""

    def words(self, name: str, first: int, count: int) -> Sequence[int] | int:
        """Returns `count` words of `kpageflags` or `kpagecount` from number `first`, or the error."""

    def compact(self) -> int:
        """Has the kernel compact all zones; returns 0, or the error."""


@dataclass(frozen=True)
class Kernel:
    """All of it."""

    processes: Processes
    contents: Contents
    memory: KernelMemory
    cgroups: Cgroups
    swap: KernelSwap


def reply_key(pid: int) -> tuple[str, int]:
    """Returns the key that is woken when an agent has replied, or died."""
    return ("reply", pid)


def exit_key(pid: int) -> tuple[str, int]:
    """Returns the key that is woken when the process of an ended space is gone."""
    return ("exit", pid)


AGENT_START, AGENT_END = 0x1_0000, 0x1_6000
"""Where an agent itself lies in its space, up to AGENT_END - 1."""
SCRATCH = 0x1_1200
"""Bytes of an agent that may be used for what its system calls point to, 3 KiB."""
TOUCH_READ, TOUCH_WRITE, JUMP = 0x1000, 0x1001, 0x1002
"""Operations of an agent that are accesses; those below are numbers of system calls."""
