"""What the steps of a pod ask a node's container runtime to do.

Each effect names the node; its result is the value that the runtime reports. A failing call raises its error at the
yield.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.effects import Effect
from lamina_orchestrator.domain.pods.containers import ContainerSpec, SandboxSpec


@dataclass(frozen=True, slots=True)
class ResolveImage(Effect):
    """Resolve an image reference. Result: `Image`. Raises NotFound when the node has no such image."""

    node: str
    reference: str


@dataclass(frozen=True, slots=True)
class RunSandboxCall(Effect):
    """Create a sandbox and make it ready. Result: `SandboxState`. Idempotent by pod uid and attempt."""

    node: str
    spec: SandboxSpec


@dataclass(frozen=True, slots=True)
class StopSandboxCall(Effect):
    """Stop a sandbox and what runs in it. Result: None."""

    node: str
    name: str


@dataclass(frozen=True, slots=True)
class RemoveSandboxCall(Effect):
    """Remove a sandbox with its containers; one that is gone is not an error. Result: None."""

    node: str
    name: str


@dataclass(frozen=True, slots=True)
class CreateContainerCall(Effect):
    """Create a container. Result: `ContainerState`. Idempotent by pod uid, container name and attempt."""

    node: str
    sandbox: str
    pod_uid: str
    spec: ContainerSpec


@dataclass(frozen=True, slots=True)
class StartContainerCall(Effect):
    """Start a created container. Result: `ContainerState`."""

    node: str
    name: str


@dataclass(frozen=True, slots=True)
class StopContainersCall(Effect):
    """Stop containers at the same time. Result: a tuple of `ContainerState`, without those that were gone."""

    node: str
    names: tuple[str, ...]
    grace_ns: int


@dataclass(frozen=True, slots=True)
class RemoveContainerCall(Effect):
    """Remove a container; one that is gone is not an error. Result: None."""

    node: str
    name: str
