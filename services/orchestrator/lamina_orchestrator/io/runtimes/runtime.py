"""The port to a node's container runtime.

`client.py` implements it over the contract lamina.container_runtime.v1. Implementations raise errors of
`lamina_kit.errors`; `Unavailable` when the runtime cannot be reached.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from lamina_orchestrator.domain.pods.containers import ContainerSpec, ContainerState, Image, SandboxSpec, SandboxState

STDOUT, STDERR = "stdout", "stderr"


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of output; `time_ns` is Unix time, 0 if it is not known."""

    data: bytes
    stream: str
    time_ns: int


class Runtime(Protocol):
    """One node's runtime."""

    async def hello(self) -> None:
        """Introduces itself; raises FailedPrecondition `REVISION_MISMATCH` when the other side is of another kind."""

    async def resolve_image(self, reference: str) -> Image:
        """The image of a reference. Raises NotFound, or InvalidArgument for a malformed one."""

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState:
        """Creates a sandbox and makes it ready. Idempotent by pod uid and attempt."""

    async def stop_sandbox(self, name: str) -> None:
        """Kills what runs in a sandbox. Idempotent; raises NotFound."""

    async def remove_sandbox(self, name: str) -> None:
        """Removes a sandbox and its containers. One that is gone is not an error."""

    async def list_sandboxes(self) -> list[SandboxState]:
        """All sandboxes that were made for pods, in the order of their names."""

    async def create_container(self, sandbox: str, pod_uid: str, spec: ContainerSpec) -> ContainerState:
        """Creates a container. Idempotent by pod uid, container name and attempt."""

    async def start_container(self, name: str) -> ContainerState:
        """Starts a created container."""

    async def stop_container(self, name: str, grace_ns: int) -> ContainerState:
        """Stops a container politely, then by force; returns when it has ended. Raises NotFound."""

    async def remove_container(self, name: str) -> None:
        """Removes a container and its log. One that is gone is not an error."""

    async def list_containers(self) -> tuple[list[ContainerState], int]:
        """All containers of pods, in the order of their names, and the revision to watch from."""

    def watch_containers(self, revision: int) -> AsyncIterator[ContainerState]:
        """Changes of containers of pods after a revision, until the runtime goes away."""

    def read_logs(self, name: str, follow: bool, tail_lines: int | None) -> AsyncIterator[LogChunk]:
        """The output of a container, oldest first."""

    async def close(self) -> None:
        """Lets go of the connection. Idempotent."""
