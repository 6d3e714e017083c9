"""The container kernel: one per runtime, many containers in it.

It is an operating system's kernel without a machine of its own: programs run on the hardware layer's cores, their
memory is the MMU's, and it answers their system calls. All of it is pure: steps that yield effects, resumed by the
shell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.model.effects import ContextRef, FaultResult
from lamina_container_runtime.engines.model.kernel.abi import SIGKILL
from lamina_container_runtime.engines.model.kernel.memory.futex import Futexes
from lamina_container_runtime.engines.model.kernel.memory.objects import Objects
from lamina_container_runtime.engines.model.kernel.memory.user import Memory
from lamina_kit.clock import Clock
from lamina_kit.rng import Rng


class Victim(Protocol):
    """A process, as the kernel knows one that it may have to kill for memory."""

    pid: int
    name: str
    ended: WaitQueue

    @property
    def container(self) -> Resident:
        """Its container."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""

    def exit_group(self, status: int) -> None:
        """Makes all its threads end."""


class Resident(Protocol):
    """A running container, as the kernel keeps it."""

    container_id: str
    oom_killed: bool

    def process_of_space(self, name: str) -> Victim | None:
        """Returns the process that lives in an address space, by its resource name."""


class Recorder(Protocol):
    """Writes the layer's event log (`lamina_kit.telemetry.events.EventLog.record`)."""

    def __call__(self, object: str, event: str, *, cause: str = "", rule: str = "", **inputs: object) -> object:
        """Appends an event; with a rule, a decision."""


def _no_span(name: str, **attributes: object) -> AbstractContextManager[object]:
    return nullcontext()


class Kernel:
    """What all containers of this runtime share.

    `kick` stops a context that is on a core, without waiting; `name_of` gives the resource name of a container, for
    events; `span` times a piece of work when its trace is sampled. `total_memory` (bytes) and `cores` are what programs
    are told of the host.
    """

    def __init__(
        self,
        clock: Clock,
        rng: Rng,
        memory: Memory,
        kick: Callable[[ContextRef], None],
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
        self.containers: dict[str, Resident] = {}
        self.objects = Objects()
        self.futexes = Futexes()

    def out_of_memory(self, faulting: Victim, result: FaultResult) -> Victim:
        """Kills the process that the MMU names, or the one that faulted, and returns it."""
        victim = self._process_of_space(result.victim) or faulting
        container = victim.container
        container.oom_killed = True
        self.record(
            self.name_of(container.container_id),
            "process.oom_killed",
            rule="mmu.victim" if victim is not faulting else "faulting process",
            pid=victim.pid,
            program=victim.name,
            group=result.group,
            victim_space=result.victim,
        )
        victim.exit_group(SIGKILL)
        return victim

    def _process_of_space(self, name: str) -> Victim | None:
        if not name:
            return None
        found = (container.process_of_space(name) for _, container in sorted(self.containers.items()))
        return next((process for process in found if process is not None), None)
