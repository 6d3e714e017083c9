"""A container as the runtime keeps it, and the states it goes through.

CREATED ──start──▶ RUNNING ──exit──▶ EXITED
   └───────────────stop, start fails────▲
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_container_runtime.domain.containers.resources import Resources
from lamina_container_runtime.domain.containers.sandbox import Pairs
from lamina_kit.errors import FailedPrecondition


class ContainerState(enum.Enum):
    """States of a container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


TRANSITIONS: dict[ContainerState, tuple[ContainerState, ...]] = {
    ContainerState.CREATED: (ContainerState.RUNNING, ContainerState.EXITED),
    ContainerState.RUNNING: (ContainerState.EXITED,),
    ContainerState.EXITED: (),
}

COMPLETED, ERROR, OOM_KILLED, START_ERROR, RUNTIME_RESTARTED, KERNEL_DEFECT = (
    "Completed", "Error", "OOMKilled", "StartError", "RUNTIME_RESTARTED", "KERNEL_DEFECT",
)  # fmt: skip
"""Why a container exited."""


class EventType(enum.Enum):
    """What happened to a container."""

    CREATED = "created"
    STARTED = "started"
    STOPPED = "stopped"
    DELETED = "deleted"


@dataclass(frozen=True)
class ContainerSpec:
    """What a creator asks for."""

    sandbox_id: str
    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Pairs = ()
    annotations: Pairs = ()
    resources: Resources = field(default_factory=Resources)
    killable: bool = False


@dataclass(frozen=True)
class Exit:
    """How a container ended. `code` is what its first process gave to exit, or 128 + the signal that killed it."""

    code: int
    reason: str
    message: str = ""
    signaled: bool = False


@dataclass(frozen=True)
class ContainerRecord:
    """One container; times are Unix time in nanoseconds, 0 before they happen."""

    container_id: str
    spec: ContainerSpec
    image_id: str
    state: ContainerState
    create_time_ns: int
    start_time_ns: int = 0
    exit_time_ns: int = 0
    exit: Exit | None = None
    run_group: str = ""
    memory_group: str = ""
    revision: int = 0
    request_id: str = ""


@dataclass(frozen=True)
class ContainerEvent:
    """One change of a container, with the container after it."""

    revision: int
    type: EventType
    container: ContainerRecord
    time_ns: int


def check_transition(container: ContainerRecord, to: ContainerState) -> None:
    """Raises `FailedPrecondition` `CONTAINER_NOT_CREATED` or `CONTAINER_NOT_RUNNING` for an edge that is not there."""
    if to in TRANSITIONS[container.state]:
        return
    wanted = "created" if to is ContainerState.RUNNING else "running"
    raise FailedPrecondition(
        f"The container {container.container_id} is {container.state.value}, not {wanted}.",
        reason=f"CONTAINER_NOT_{wanted.upper()}",
        next_step="Create a new container." if wanted == "created" else "Start it first.",
    )
