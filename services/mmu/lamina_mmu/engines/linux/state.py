"""What the `linux` engine knows beside the kernel: which process is which space, which memory file which object."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from lamina_kit.effects import Step, WaitFor
from lamina_mmu.domain.effects import request_key
from lamina_mmu.domain.fault_feed import FaultFeed
from lamina_mmu.domain.handles import Handle, HandleTable
from lamina_mmu.domain.kernel.port import Agent, Kernel
from lamina_mmu.domain.names import Names
from lamina_mmu.domain.ports import Ports
from lamina_mmu.domain.requests import RequestLog
from lamina_mmu.domain.session import NOBODY, Session
from lamina_mmu.domain.spaces.labels import Labels
from lamina_mmu.domain.spaces.settings import SpaceSettings

T = TypeVar("T")
ROOT_GROUP = "root"


@dataclass(slots=True)
class KernelSpace:
    """A space: process `pid` of the kernel. `agent` None: it was there before, and is only attached to.

    `group` is the last name part of its memory group. `labels` are those of its mappings, which the kernel does not
    keep. `settings` are as they were set last; the kernel has them too. `own_faults` are minor faults that the agent
    had for itself, `cow_faults` and `refused_faults` are those of `Fault` calls. The heap begins at `heap_start` (0: it
    was not set); only the kernel knows where it ends. `closing` spaces take no new work. Those that
    are `out_of_memory` the kernel has ended for that.
    """

    pid: int
    agent: Agent | None
    group: str
    label: str
    session: Session = NOBODY
    id: int = 0
    generation: int = 0
    number: int = 0
    closing: bool = False
    labels: Labels = field(default_factory=Labels)
    settings: SpaceSettings = field(default_factory=SpaceSettings)
    own_faults: int = 0
    cow_faults: int = 0
    refused_faults: int = 0
    out_of_memory: bool = False
    heap_start: int = 0

    @property
    def handle(self) -> Handle:
        """Returns the handle of this life of the space."""
        return Handle(self.id, self.generation)


@dataclass(slots=True)
class KernelObject:
    """An object: a memory file of the kernel, by its descriptor and its inode."""

    content: int
    inode: int
    size: int
    group: str
    label: str
    session: Session = NOBODY
    id: int = 0
    generation: int = 0
    number: int = 0
    closing: bool = False

    @property
    def handle(self) -> Handle:
        """Returns the handle of this life of the object."""
        return Handle(self.id, self.generation)


class State:
    """All of it. `inodes`: the numbers of objects by inode, deleted ones too as long as they may be mapped."""

    def __init__(self, ports: Ports) -> None:
        assert ports.kernel is not None, "the linux engine was given no kernel"
        self.ports = ports
        self.kernel: Kernel = ports.kernel
        self.names = Names(ports.host)
        self.spaces: HandleTable[KernelSpace] = HandleTable("space", "s", "SPACE_UNKNOWN")
        self.objects: HandleTable[KernelObject] = HandleTable("object", "o", "OBJECT_UNKNOWN")
        self.inodes: dict[int, int] = {}
        self.requests = RequestLog()
        self.feed = FaultFeed(ports.wake)
        self.on_ended: Callable[[KernelSpace], bool] = lambda space: False

    def space(self, key: Handle | str) -> KernelSpace:
        """Returns the space of a handle or a name."""
        return self.spaces.named(key) if isinstance(key, str) else self.spaces.get(key)

    def object(self, key: Handle | str) -> KernelObject:
        """Returns the object of a handle or a name."""
        return self.objects.named(key) if isinstance(key, str) else self.objects.get(key)

    def drop_object(self, entity: KernelObject) -> None:
        """Deletes an object; mappings keep its memory file, and its number by the inode."""
        self.objects.remove(entity)
        self.kernel.contents.close(entity.content)
        self.ports.record(self.names.object(entity.number), "object.deleted")

    def once(self, request: str, meaning: Hashable, make: Callable[[], Step[T]]) -> Step[T]:
        """Returns what `make` makes, or made for the same request id before; a second call at the same time waits."""
        if not request:
            return (yield from make())
        while self.requests.working(request, meaning):
            yield WaitFor(request_key(request))
        made: T | None = self.requests.find(request, meaning)
        if made is not None:
            return made
        self.requests.begin(request, meaning)
        try:
            made = yield from make()
            return made
        finally:
            self.requests.end(request, made)
            self.ports.wake(request_key(request), None)
