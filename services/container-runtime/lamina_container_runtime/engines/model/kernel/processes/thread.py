"""A thread: one execution context, its signal mask, and what it waits for."""

from __future__ import annotations

from typing import Protocol

from lamina_container_runtime.domain.wait import Waiter, WaitQueue, Woken
from lamina_container_runtime.engines.model.effects import ContextRef, FaultResult, Spawn
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.memory.user import Memory
from lamina_container_runtime.engines.model.kernel.processes.process import Process
from lamina_container_runtime.engines.model.kernel.signals import Pending
from lamina_kit.bus.run_page import RunPage
from lamina_kit.effects import Step


class Loop(Protocol):
    """The main loop that a thread lives in, and those that it clones."""

    def run(self, thread: Thread) -> Step[None]:
        """Runs a thread to its end."""

    def lose(self, thread: Thread) -> Step[None]:
        """Ends a thread whose step failed by a defect of the kernel."""


class Thread:
    """One thread of a process. `tid` equals the process id for the first one."""

    def __init__(self, process: Process, tid: int, context: ContextRef, loop: Loop) -> None:
        self.process = process
        self.loop = loop
        self.tid = tid
        self.context = context
        self.blocked = 0
        self.saved_blocked: int | None = None
        """Mask to put back when a handler returns, after sigsuspend or ppoll changed it for a wait."""
        self.pending = Pending()
        self.must_die = False
        self.on_core = False
        self.wait_channel = ""
        self.clear_child_tid = 0
        self.alternate_stack = (0, 0, 2)
        """Address, size and flags of sigaltstack(2); 2 is SS_DISABLE."""
        self.interrupted: tuple[int, bool] | None = None
        """System call that a signal interrupted, and whether SA_RESTART may restart it."""
        self.restart_deadline: int | None = None
        self.vfork_released = WaitQueue()
        self._waiter: Waiter | None = None
        self._killable_only = False

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.process.kernel

    @property
    def memory(self) -> AddressSpace:
        """The address space of its process."""
        return self.process.memory

    @property
    def user_memory(self) -> Memory:
        """The memory that all address spaces are in."""
        return self.process.kernel.memory

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self.process.pid

    @property
    def page(self) -> RunPage:
        """Its registers."""
        return self.context.page

    @property
    def waiting(self) -> bool:
        """Whether it waits for something."""
        return self._waiter is not None

    def signal_pending(self) -> bool:
        """Returns whether something must be done before it goes on in user mode."""
        pending = self.pending.infos or self.process.pending.infos
        if pending and (self.pending.mask | self.process.pending.mask) & ~self.blocked:
            return True
        return self.must_die or self.process.stopped

    @property
    def undisturbed(self) -> bool:
        """Whether nothing at all is to be done before it goes on in user mode: what is so at almost every exit."""
        process = self.process
        return not (
            self.pending.infos
            or process.pending.infos
            or self.must_die
            or process.stopped
            or self.interrupted is not None
            or self.saved_blocked is not None
        )

    def begin_wait(self, waiter: Waiter, channel: str, killable_only: bool) -> None:
        """Notes what it waits for."""
        self._waiter = waiter
        self._killable_only = killable_only
        self.wait_channel = channel

    def end_wait(self) -> None:
        """Notes that it goes on."""
        self._waiter = None
        self.wait_channel = ""

    def notify(self) -> None:
        """Makes it look at its signals: ends its wait, or its run on a core."""
        if self._waiter is not None:
            if self.must_die or not self._killable_only:
                self._waiter.fire(Woken.SIGNAL)
        elif self.on_core:
            self.kernel.kick(self.context)

    def die(self) -> None:
        """Makes it end as soon as it can."""
        self.must_die = True
        self.notify()

    def spawn(self) -> Spawn:
        """Returns the effect that lets it run, once it has been made."""
        label = f"{self.process.container.container_id} tid {self.tid}"
        return Spawn(self.loop.run(self), label, lambda: self.loop.lose(self))

    def signal_process(self, signal: int) -> None:
        """Sends a signal to its process."""
        self.process.send_signal(signal)

    def count_fault(self, major: bool) -> None:
        """Counts a fault that made an access possible."""
        self.process.major_faults += major
        self.process.minor_faults += not major

    def out_of_memory(self, result: FaultResult) -> WaitQueue | None:
        """Has a process killed; returns what is woken when that has ended, None when it has."""
        victim = self.kernel.out_of_memory(self.process, result)
        return victim.ended if victim.alive else None
