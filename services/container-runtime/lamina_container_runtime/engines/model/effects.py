"""What the container kernel and the engine ask the shell to do in the middle of a step.

The shell (`io/machine/performer.py`) performs each one with calls to the hardware and the MMU; tests perform them on
fakes. An effect that fails raises a `LaminaError` at its yield.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lamina_container_runtime.domain.containers.resources import Resources
from lamina_container_runtime.domain.wait import Waiter
from lamina_kit.bus.run_page import RunPage
from lamina_kit.effects import Effect, Step


@dataclass(frozen=True)
class Handle:
    """A handle of another layer's object."""

    id: int
    generation: int


@dataclass(frozen=True)
class SpaceRef:
    """An address space of the MMU: resource name, handle, and the physical address of its root table."""

    name: str
    handle: Handle
    root: int


@dataclass(frozen=True)
class ContextRef:
    """An execution context of the hardware: resource name, handle and its run page."""

    name: str
    handle: Handle
    page: RunPage


@dataclass(frozen=True)
class ObjectRef:
    """A memory object of the MMU."""

    name: str
    handle: Handle


class Access(enum.Enum):
    """What an access to memory wants."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"

    __hash__ = object.__hash__  # it is looked up at every fault, and Enum's own is not a compiled one


class FaultOutcome(enum.Enum):
    """How a fault ended: the access is possible now, it is not allowed, or there is no memory for it."""

    RESOLVED = "resolved"
    REFUSED = "refused"
    OUT_OF_MEMORY = "out-of-memory"


@dataclass(frozen=True)
class FaultResult:
    """Outcome of a fault; for OUT_OF_MEMORY the space that should be killed, by name, and the group at its limit.

    `major`: the page was read from somewhere.
    """

    outcome: FaultOutcome
    victim: str = ""
    group: str = ""
    major: bool = False


class RunEnd(enum.Enum):
    """How a run ended: by an exit that is in the run page, by the end of its budget, or because it was stopped."""

    EXIT = "exit"
    BUDGET = "budget"
    STOPPED = "stopped"


@dataclass(slots=True)
class RunResult:  # not frozen: it is made at every exit
    """End of a run, with what it used."""

    end: RunEnd
    instructions: int = 0
    run_time_ns: int = 0


class Runnable(Protocol):
    """What a run needs of a thread: its context, whose process it is of, and a note that it is on a core."""

    context: ContextRef
    on_core: bool

    @property
    def pid(self) -> int:
        """Number of its process."""


@dataclass(slots=True)
class Run(Effect):  # not frozen: it is made at every exit
    """Runs a thread until it exits. Result: `RunResult`."""

    thread: Runnable


@dataclass(frozen=True)
class Wait(Effect):
    """Waits until the waiter fires, at most `timeout_ns` (None: for ever), firing it then. Result: None."""

    waiter: Waiter
    timeout_ns: int | None


@dataclass(frozen=True)
class Spawn(Effect):
    """Lets another step run by itself, beside this one: a new thread, a timer. Result: None.

    Should it fail by a defect, the failure is logged and the step that `cleanup` makes is run in its place.
    """

    step: Step[None]
    label: str
    cleanup: Callable[[], Step[None]] | None = None


@dataclass(slots=True)
class FaultIn(Effect):  # not frozen: it is made at every fault
    """Makes an access to a page possible. Result: `FaultResult`."""

    space: SpaceRef
    va: int
    access: Access


@dataclass(frozen=True)
class CreateSpace(Effect):
    """Makes an empty address space, charged to a memory group. Result: `SpaceRef`."""

    group: str
    label: str


@dataclass(frozen=True)
class ForkSpace(Effect):
    """Copies an address space copy-on-write. Result: `SpaceRef`."""

    space: SpaceRef
    label: str


@dataclass(frozen=True)
class DeleteSpace(Effect):
    """Deletes an address space. Result: None."""

    space: SpaceRef


@dataclass(frozen=True)
class MapRange(Effect):
    """Maps a range. `protection` are PROT_ bits. Result: the address.

    `fixed` means exactly there; `replace` puts it over what is there. Without an object the memory is anonymous.
    """

    space: SpaceRef
    address: int
    size: int
    protection: int
    fixed: bool = False
    replace: bool = False
    memory_object: ObjectRef | None = None
    offset: int = 0
    shared: bool = False
    grows_down: bool = False
    label: str = ""


@dataclass(frozen=True)
class UnmapRange(Effect):
    """Unmaps a range. Result: None."""

    space: SpaceRef
    address: int
    size: int


@dataclass(frozen=True)
class ProtectRange(Effect):
    """Changes rights. Result: None."""

    space: SpaceRef
    address: int
    size: int
    protection: int


@dataclass(frozen=True)
class ListMappings(Effect):
    """Lists the mappings of a space. Result: list of `MappingInfo`."""

    space: SpaceRef


@dataclass(frozen=True)
class MappingInfo:
    """One mapping, for /proc/PID/maps; `protection` are PROT_ bits."""

    start: int
    end: int
    protection: int
    shared: bool
    offset: int
    label: str
    resident_pages: int
    anonymous: bool


@dataclass(frozen=True)
class CreateObject(Effect):
    """Makes a memory object and fills it. Result: `ObjectRef`."""

    size: int
    data: bytes
    group: str
    label: str


@dataclass(frozen=True)
class DeleteObject(Effect):
    """Deletes a memory object; mappings keep its pages. Result: None."""

    memory_object: ObjectRef


@dataclass(frozen=True)
class CreateContext(Effect):
    """Makes an execution context for user programs at ring 3. Result: `ContextRef` with a clean run page."""

    run_group: str
    domain: str
    label: str


@dataclass(frozen=True)
class DeleteContext(Effect):
    """Deletes an execution context. Result: None."""

    context: ContextRef


@dataclass(frozen=True)
class CreateGroups(Effect):
    """Makes a run group and a memory group of one name below the given parents. Result: (run group, memory group)."""

    group_id: str
    run_parent: str
    memory_parent: str
    resources: Resources


@dataclass(frozen=True)
class DeleteGroups(Effect):
    """Deletes a run group and a memory group; those that are gone are passed over. Result: None."""

    run_group: str
    memory_group: str
