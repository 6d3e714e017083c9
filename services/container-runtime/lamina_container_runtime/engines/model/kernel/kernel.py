"""The container kernel: one per runtime, many containers in it.

It is an operating system's kernel without a machine of its own: programs run on the hardware layer's cores, their
memory is the MMU's, and it answers their system calls. All of it is pure: steps that yield effects, resumed by the
shell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from lamina_container_runtime.engines.model.effects import FaultResult, Spawn
from lamina_container_runtime.engines.model.kernel.abi import SIGKILL
from lamina_container_runtime.engines.model.kernel.main_loop import lose_thread, run_thread
from lamina_container_runtime.engines.model.kernel.memory.futex import Futexes
from lamina_container_runtime.engines.model.kernel.memory.objects import Objects
from lamina_container_runtime.engines.model.kernel.memory.user import Memory
from lamina_kit.clock import Clock
from lamina_kit.rng import Rng

if TYPE_CHECKING:
    from lamina_container_runtime.engines.model.kernel.processes.container import KernelContainer
    from lamina_container_runtime.engines.model.kernel.processes.process import Process
    from lamina_container_runtime.engines.model.kernel.processes.thread import Thread


class Recorder(Protocol):
    """Writes the layer's event log (`lamina_kit.telemetry.events.EventLog.record`)."""

    def __call__(self, object: str, event: str, *, cause: str = "", rule: str = "", **inputs: object) -> object:
        """Appends an event; with a rule, a decision."""


def _no_span(name: str, **attributes: object) -> AbstractContextManager[object]:
    return nullcontext()


class Kernel:
    """What all containers of this runtime share.

    `kick` stops a thread that is on a core, without waiting; `name_of` gives the resource name of a container, for
    events; `span` times a piece of work when its trace is sampled. `total_memory` (bytes) and `cores` are what programs
    are told of the host.
    """

    def __init__(
        self,
        clock: Clock,
        rng: Rng,
        memory: Memory,
        kick: Callable[[Thread], None],
        record: Recorder,
        name_of: Callable[[str], str],
        span: Callable[..., AbstractContextManager[object]] = _no_span,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.memory = memory
        self.kick = kick
        self.record = record
        self.name_of = name_of
        self.span = span
        self.total_memory = 8 << 30
        self.cores = 1
        self.containers: dict[str, KernelContainer] = {}
        self.objects = Objects()
        self.futexes = Futexes()

    def spawn(self, thread: Thread) -> Spawn:
        """Returns the effect that lets a new thread run."""
        label = f"{thread.process.container.container_id} tid {thread.tid}"
        return Spawn(run_thread(thread), label, lambda: lose_thread(thread))

    def note(self, process: Process, event: str, **inputs: Any) -> None:
        """Records what happened to a process, at its container."""
        name = self.name_of(process.container.container_id)
        self.record(name, f"process.{event}", pid=process.pid, program=process.name, **inputs)

    def out_of_memory(self, thread: Thread, result: FaultResult) -> Process:
        """Kills the process that the MMU names, or the one that faulted, and returns it."""
        victim = self.process_of_space(result.victim) or thread.process
        container = victim.container
        container.oom_killed = True
        self.record(
            self.name_of(container.container_id),
            "process.oom_killed",
            rule="mmu.victim" if victim is not thread.process else "faulting process",
            pid=victim.pid,
            program=victim.name,
            group=result.group,
            victim_space=result.victim,
        )
        victim.exit_group(SIGKILL)
        return victim

    def process_of_space(self, name: str) -> Process | None:
        """Returns the process that lives in an address space, by its resource name."""
        if not name:
            return None
        for _, container in sorted(self.containers.items()):
            for process in container.pids.ordered():
                if process.threads and process.memory.space.name == name:
                    return process
        return None
