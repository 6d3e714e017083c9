"""A process: what its threads share, and its place among the others."""

from __future__ import annotations

import enum
from typing import Any, Protocol, TypeAlias

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.effects import ContextRef
from lamina_container_runtime.engines.model.kernel.abi import SIGCHLD, SIGCONT, SIGKILL, SIGSTOP
from lamina_container_runtime.engines.model.kernel.files.fd_table import FdTable
from lamina_container_runtime.engines.model.kernel.files.inode import Inode
from lamina_container_runtime.engines.model.kernel.files.resolve import View
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.processes.container import KernelContainer, Loss
from lamina_container_runtime.engines.model.kernel.signals import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NOCLDSTOP,
    SI_KERNEL,
    SIG_DFL,
    STOPS,
    Disposition,
    Handlers,
    Pending,
    SignalInfo,
)


class Member(Protocol):
    """A thread, as its process knows it."""

    tid: int
    context: ContextRef
    blocked: int
    pending: Pending
    wait_channel: str

    @property
    def waiting(self) -> bool:
        """Whether it waits for something."""

    def notify(self) -> None:
        """Makes it look at its signals."""

    def die(self) -> None:
        """Makes it end as soon as it can."""


class ProcessState(enum.Enum):
    """Alive until its last thread has ended; then a zombie until its parent waits for it."""

    ALIVE = "alive"
    ZOMBIE = "zombie"
    GONE = "gone"


class Process:
    """One process of a container. Process 1 has no parent."""

    def __init__(
        self,
        container: KernelContainer[Process],
        pid: int,
        parent: Process | None,
        memory: AddressSpace,
        fds: FdTable,
        view: View,
    ) -> None:
        self.container = container
        self.pid = pid
        self.parent = parent
        self.memory = memory
        self.fds = fds
        self.view = view
        self.children: dict[int, Process] = {}
        self.threads: dict[int, Member] = {}
        self.group: int = parent.group if parent else pid
        self.session: int = parent.session if parent else pid
        self.umask: int = parent.umask if parent else 0o022
        self.nice: int = parent.nice if parent else 0
        self.handlers = Handlers()
        self.pending = Pending()
        self.state = ProcessState.ALIVE
        self.stopped = False
        self.stop_signal = 0
        self.report: str = ""
        """What a parent that waits has not been told of yet: `stopped` or `continued`."""
        self.group_exit: int | None = None
        """Exit status once the whole process ends: code << 8, or the signal."""
        self.exit_status = 0
        self.changed = WaitQueue()
        """Woken when a child ends, stops or goes on."""
        self.ended = WaitQueue()
        self.resumed = WaitQueue()
        self.threads_changed = WaitQueue()
        self.exec_done = False
        self.cmdline: tuple[str, ...] = ()
        self.environment: tuple[bytes, ...] = ()
        self.executable_inode: Inode | None = None
        self.name: str = ""
        self.start_time_ns = container.kernel.clock.wall_ns()
        self.alarm_deadline = 0
        self.alarm_interval = 0
        self.alarm_turn = 0
        self.syscalls = 0
        self.minor_faults = 0
        self.major_faults = 0
        self.instructions = 0
        self.run_time_ns = 0
        self.syscall_counts: dict[int, int] = {}
        self.unsupported: dict[int, int] = {}

    @property
    def faults(self) -> int:
        """Page faults that made an access possible. Source: Linux, mm/memory.c, mm_account_fault."""
        return self.minor_faults + self.major_faults

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.container.kernel

    @property
    def alive(self) -> bool:
        """Whether its last thread has not ended yet."""
        return self.state is ProcessState.ALIVE

    @property
    def is_init(self) -> bool:
        """Whether it is process 1 of its namespace."""
        return self.container.init is self

    @property
    def is_protected(self) -> bool:
        """Whether only signals that it has a handler for reach it. Source: pid_namespaces(7)."""
        return self.is_init and not self.container.killable

    @property
    def uid(self) -> int:
        """Its user id."""
        return self.view.who.uid

    def lives_in(self, space: str) -> bool:
        """Returns whether it runs in the address space of that resource name."""
        return bool(self.threads) and self.memory.space.name == space

    def note(self, event: str, **inputs: Any) -> None:
        """Records what happened to it, at its container."""
        name = self.kernel.name_of(self.container.container_id)
        self.kernel.record(name, f"process.{event}", pid=self.pid, program=self.name, **inputs)

    def send_signal(self, signal: int, info: SignalInfo | None = None, *, outside: bool = False) -> None:
        """Sends a signal to the process; `outside` means from outside its PID namespace."""
        if self.state is not ProcessState.ALIVE or self.group_exit is not None:
            return
        if self.is_protected and not self._init_takes(signal, outside):
            return
        if signal == SIGKILL:
            self.exit_group(SIGKILL)
            return
        if not self._prepare(signal):
            return
        self.pending.add(info or SignalInfo(signal, SI_KERNEL))
        self._notify_one(signal)

    def send_to_thread(self, thread: Member, info: SignalInfo) -> None:
        """Sends a signal to one thread, as tgkill(2) does."""
        if info.signal in (SIGKILL, SIGSTOP):
            self.send_signal(info.signal, info)
            return
        if (self.is_protected and not self._init_takes(info.signal, False)) or not self._prepare(info.signal):
            return
        thread.pending.add(info)
        if not thread.blocked >> (info.signal - 1) & 1:
            thread.notify()

    def force_signal(self, thread: Member, info: SignalInfo) -> None:
        """Sends a signal for a fault of the thread itself: blocked, ignored or meant for process 1, it kills."""
        blocked = thread.blocked >> (info.signal - 1) & 1
        if blocked or self.handlers.get(info.signal).handler <= 1:
            self.handlers.table[info.signal] = Disposition()
            self.exit_group(info.signal)
            return
        thread.pending.add(info)

    def exit_group(self, status: int) -> None:
        """Makes all threads end; the first status that is given counts."""
        if self.group_exit is None:
            self.group_exit = status
        self.stopped = False
        self.resumed.wake()
        for tid in sorted(self.threads):
            self.threads[tid].die()

    def run_from(self, inode: Inode | None) -> None:
        """Notes the file that the process runs, whose content stays for /proc/PID/exe; None when it has ended."""
        if inode is not None:
            inode.hold()
        if self.executable_inode is not None:
            self.executable_inode.let_go()
        self.executable_inode = inode

    def lose(self, loss: Loss) -> None:
        """Ends the process because its threads cannot go on. Only process 1 takes the container with it.

        A process that is on its way out already keeps the status that it gave.
        """
        if self.is_init and self.group_exit is None:
            self.container.lost = loss
        self.exit_group(SIGKILL)

    def stop(self, signal: int) -> None:
        """Stops all threads, and tells the parent."""
        if not self.stopped:
            self.stopped, self.stop_signal, self.report = True, signal, "stopped"
            self._tell_parent(CLD_STOPPED, signal)
            for tid in sorted(self.threads):
                self.threads[tid].notify()

    def resume(self) -> None:
        """Lets stopped threads go on, and tells the parent."""
        if self.stopped:
            self.stopped, self.report = False, "continued"
            self._tell_parent(CLD_CONTINUED, SIGCONT)
            self.resumed.wake()

    def _init_takes(self, signal: int, outside: bool) -> bool:
        if outside and signal in (SIGKILL, SIGSTOP, SIGCONT):
            return True
        return self.handlers.get(signal).handler != SIG_DFL

    def _prepare(self, signal: int) -> bool:
        """Does what a signal does when it is sent; returns whether it goes on to be pending."""
        if signal == SIGCONT:
            self.pending.discard(STOPS)
            self.resume()
        elif signal in STOPS:
            self.pending.discard((SIGCONT,))
        bit = 1 << (signal - 1)
        blocked = all(thread.blocked & bit for thread in self.threads.values())
        return blocked or not self.handlers.ignores(signal)

    def _notify_one(self, signal: int) -> None:
        ready = [tid for tid in sorted(self.threads) if not self.threads[tid].blocked >> (signal - 1) & 1]
        if ready:
            self.threads[ready[0]].notify()

    def _tell_parent(self, code: int, status: int) -> None:
        parent = self.parent
        if parent is None:
            return
        if not parent.handlers.get(SIGCHLD).flags & SA_NOCLDSTOP:
            parent.send_signal(SIGCHLD, SignalInfo(SIGCHLD, code, self.pid, self.uid, status))
        parent.changed.wake()


Container: TypeAlias = KernelContainer[Process]
"""A container of such processes: what all above this module mean by one."""
