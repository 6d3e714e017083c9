"""PID namespaces and the limit on the number of tasks.

A container has a namespace of its own: its first process is 1 in it, and when that ends all others are killed.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.kernel.abi import Errno

PID_MAX = 32768


class Numbered(Protocol):
    """What is in a namespace: something with a number."""

    pid: int


P = TypeVar("P", bound=Numbered)


@dataclass
class PidsLimit:
    """The pids cgroup of a sandbox: at most `limit` tasks at a time. `refused` counts forks that it refused."""

    limit: int
    tasks: int = 0
    refused: int = 0

    def charge(self) -> None:
        """Counts one more task; EAGAIN at the limit."""
        if self.tasks >= self.limit:
            self.refused += 1
            raise Errno(errno.EAGAIN)
        self.tasks += 1

    def release(self) -> None:
        """Counts one task less."""
        self.tasks -= 1


@dataclass
class PidNamespace(Generic[P]):
    """Processes by number. `dying` is set when process 1 ended: no new ones are made then."""

    limit: PidsLimit
    last: int = 0
    dying: bool = False
    processes: dict[int, P] = field(default_factory=dict)
    threads: dict[int, None] = field(default_factory=dict)
    emptied: WaitQueue = field(default_factory=WaitQueue)

    def allocate(self) -> int:
        """Returns a free number, counting up and around, and charges the limit; EAGAIN, ENOMEM when dying."""
        if self.dying:
            raise Errno(errno.ENOMEM)
        self.limit.charge()
        for _ in range(PID_MAX):
            self.last = self.last % (PID_MAX - 1) + 1
            if self.last not in self.threads:
                self.threads[self.last] = None
                return self.last
        self.limit.release()
        raise Errno(errno.EAGAIN)

    def free(self, number: int) -> None:
        """Gives a number back."""
        if self.threads.pop(number, 0) is None:
            self.limit.release()

    def add(self, process: P) -> None:
        """Enters a process."""
        self.processes[process.pid] = process

    def remove(self, process: P) -> None:
        """Takes a process out that was waited for."""
        self.processes.pop(process.pid, None)
        self.emptied.wake()

    def ordered(self) -> list[P]:
        """Returns the processes in the order of their numbers."""
        return [self.processes[pid] for pid in sorted(self.processes)]
