"""A container as the kernel sees it: its namespaces, its limits and its console."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from lamina_container_runtime.engines.model.kernel.files.console import Console
from lamina_container_runtime.engines.model.kernel.files.inode import DirectoryInode
from lamina_container_runtime.engines.model.kernel.kernel import Kernel, Victim
from lamina_container_runtime.engines.model.kernel.processes.pid_namespace import PidNamespace
from lamina_kit.effects import Step


class Inhabitant(Victim, Protocol):
    """A process, as its container knows it."""

    def lives_in(self, space: str) -> bool:
        """Returns whether it runs in the address space of that resource name."""


P = TypeVar("P", bound=Inhabitant)


class Loss(enum.Enum):
    """Why process 1 of a container could not go on, through no act of its own."""

    LAYER_FAILED = "a layer below failed under process 1"
    KERNEL_DEFECT = "a defect of the container kernel ended process 1; the log of the runtime has the particulars"


@dataclass
class KernelContainer(Generic[P]):
    """One running container.

    `hostname` is the UTS namespace, `pids` the PID namespace, `root` the mount namespace. `memory_group` and
    `run_group` name its groups in the layers below; `memory_limit` is what /proc/meminfo shows (0: the host's).
    """

    kernel: Kernel
    container_id: str
    hostname: str
    pids: PidNamespace[P]
    root: DirectoryInode
    console: Console
    memory_group: str
    run_group: str
    memory_limit: int = 0
    killable: bool = False
    """Whether process 1 gets signals that it has no handler for."""
    init: P | None = None
    oom_killed: bool = False
    lost: Loss | None = None
    """What took process 1 away, when it was neither its own exit nor a signal."""
    on_exit: Callable[[int], Step[None]] | None = None
    """The step that runs once, with the exit status of process 1, when all processes are gone."""
    domains: int = 0
    enosys_seen: dict[int, None] = field(default_factory=dict)

    def next_domain(self) -> str:
        """Returns a fresh coherence domain."""
        self.domains += 1
        return f"{self.container_id}-{self.domains}"

    def process_of_space(self, name: str) -> P | None:
        """Returns the process that lives in an address space, by its resource name."""
        return next((process for process in self.pids.ordered() if process.lives_in(name)), None)
