"""What a container engine is.

Vocabulary:

- *sandbox*: the surroundings of one pod: host name, limits, life. *Container*: processes started from an image in it.
- *layer*: changes of a file tree; *lowerdir* and *upperdir* as overlayfs has them; *whiteout*: a removed name.
- *namespace*: what a group of processes sees as its own: process numbers, mounts, host name.
- *group*: a node in the hardware's tree of CPU shares and one in the MMU's tree of memory limits (cgroups).

An engine's calls are steps (`lamina_kit.effects`): generators of effects that the shell performs. They raise the errors
that the contract documents. Preconditions: `recover` was driven to its end before any other call.

Capabilities that an engine may declare:

- `exec.static-elf`: runs static x86-64 Linux programs
- `images.oci`, `images.docker-archive`: imports these archives
- `cgroups`: CPU and memory limits hold
- `namespaces.pid`, `namespaces.mnt`, `namespaces.uts`: containers have these of their own
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lamina_container_runtime.domain.containers.container import ContainerEvent, ContainerRecord, ContainerSpec
from lamina_container_runtime.domain.containers.process_info import ProcessInfo
from lamina_container_runtime.domain.containers.sandbox import SandboxRecord, SandboxSpec
from lamina_container_runtime.domain.images.image import ImageRecord
from lamina_container_runtime.domain.images.layer import LayerNode
from lamina_container_runtime.domain.wait import WaitQueue
from lamina_kit.clock import Clock
from lamina_kit.effects import Step
from lamina_kit.rng import Rng


class Repository(Protocol):
    """Keeps records durably. Each call is one transaction; lists are in the order of ids."""

    def put_sandbox(self, record: SandboxRecord) -> None:
        """Stores a sandbox."""

    def delete_sandbox(self, sandbox_id: str) -> None:
        """Forgets a sandbox."""

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Returns all sandboxes."""

    def put_container(self, event: ContainerEvent) -> None:
        """Stores a container as an event left it, with the event; a DELETED one is forgotten."""

    def containers(self) -> Sequence[ContainerRecord]:
        """Returns all containers."""

    def events(self) -> Sequence[ContainerEvent]:
        """Returns the events kept, oldest first."""

    def revision(self) -> int:
        """Returns the revision of the newest event ever; 0 when there was none."""


class Images(Protocol):
    """The images that containers are made from."""

    def resolve(self, reference: str) -> ImageRecord:
        """Returns an image by reference, digest or id; `NotFound` `IMAGE_UNKNOWN`."""

    def layers(self, image: ImageRecord) -> Sequence[LayerNode]:
        """Returns its layers, lowest first; `DataLoss` `STORE_CORRUPT`."""

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns bytes of a file of a layer."""


class Logs(Protocol):
    """Keeps the output of containers."""

    def open(self, container_id: str) -> None:
        """Begins the log of a container."""

    def write(self, container_id: str, stream: str, data: bytes) -> None:
        """Takes what a container wrote to `stdout` or `stderr`."""

    def close(self, container_id: str) -> None:
        """Ends the log: what was not ended by a newline is kept as it is."""

    def delete(self, container_id: str) -> None:
        """Removes a log."""


@dataclass(frozen=True)
class Ports:
    """What an engine has from outside. `memory` is user memory by root table, `kick` stops a context on a core."""

    host: str
    clock: Clock
    rng: Rng
    memory: Any
    kick: Callable[[Any], None]
    record: Callable[..., object]
    span: Callable[..., AbstractContextManager[object]]
    repository: Repository
    images: Images
    logs: Logs
    upper_limit_bytes: int
    max_sandboxes: int


class Engine(Protocol):
    """Runs containers. See the contract for what each call returns and raises."""

    name: ClassVar[str]
    capabilities: ClassVar[tuple[str, ...]]

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run here, one sentence a reason; empty when it can."""

    def describe_host(self, memory_bytes: int, cores: int) -> None:
        """Tells what programs see of the host."""

    def recover(self) -> Step[None]:
        """Reconciles what is recorded with what is there: containers that were running died with the old runtime."""

    def holds(self) -> tuple[bool, bool]:
        """Returns whether there must be something of this runtime's in the hardware, and in the MMU."""

    def host_rebooted(self, memory_lost: bool) -> None:
        """Notes that what was made in the hardware is gone, and with `memory_lost` what was made in the MMU."""

    def run_sandbox(self, spec: SandboxSpec, request_id: str) -> Step[SandboxRecord]:
        """Creates a sandbox and makes it ready."""

    def stop_sandbox(self, sandbox_id: str) -> Step[SandboxRecord]:
        """Kills what runs in a sandbox and makes it not ready."""

    def remove_sandbox(self, sandbox_id: str) -> Step[None]:
        """Removes a sandbox with its containers."""

    def sandbox(self, sandbox_id: str) -> SandboxRecord:
        """Returns a sandbox; `NotFound` `SANDBOX_UNKNOWN`."""

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Returns all sandboxes in the order of their ids."""

    def create_container(self, spec: ContainerSpec, request_id: str) -> Step[ContainerRecord]:
        """Creates a container; nothing runs yet."""

    def start_container(self, container_id: str) -> Step[ContainerRecord]:
        """Loads the program of a container and lets it run."""

    def stop_container(self, container_id: str, grace_ns: int) -> Step[ContainerRecord]:
        """Stops a container: SIGTERM, and SIGKILL after the grace period."""

    def kill_container(self, container_id: str, signal: int, pid: int) -> None:
        """Sends a signal to a process of a container, the first one for pid 0."""

    def remove_container(self, container_id: str) -> Step[None]:
        """Removes a container, killing it first."""

    def container(self, container_id: str) -> ContainerRecord:
        """Returns a container; `NotFound` `CONTAINER_UNKNOWN`."""

    def containers(self) -> Sequence[ContainerRecord]:
        """Returns all containers in the order of their ids."""

    def wait_container(self, container_id: str) -> Step[ContainerRecord]:
        """Returns a container once it has exited."""

    def processes(self, container_ids: Iterable[str]) -> Sequence[ProcessInfo]:
        """Returns the processes of containers, ordered by container and process id."""

    def revision(self) -> int:
        """Returns the revision of the newest event."""

    def events_after(self, revision: int) -> Sequence[ContainerEvent]:
        """Returns the events after a revision, oldest first; `OutOfRange` `REVISION_COMPACTED`, `REVISION_FUTURE`."""

    def changed(self) -> WaitQueue:
        """Returns the queue that is woken at each event."""
