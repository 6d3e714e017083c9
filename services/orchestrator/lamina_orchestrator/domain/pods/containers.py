"""What a container runtime tells and is told: sandboxes, containers, images as plain values."""

from __future__ import annotations

from dataclasses import dataclass

CREATED = "created"
RUNNING = "running"
EXITED = "exited"
REMOVED = "removed"

HOST_LOST = "RUNTIME_RESTARTED"
"""Reason of a run that ended because its host or its runtime died."""

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
RESTART_COUNT = "io.kubernetes.container.restartCount"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A resolved image: the runtime's name of it and the digest of its manifest (`sha256:…`)."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to run. `attempt` counts the sandboxes of the same pod from 0; labels are ordered by key."""

    pod_name: str
    pod_namespace: str
    pod_uid: str
    attempt: int
    hostname: str
    labels: Labels
    annotations: Labels = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a container: CPU in thousandths of a core, memory in bytes; 0 means none. `cpu_request_millis` weighs
    the container against its siblings."""

    cpu_request_millis: int = 0
    cpu_limit_millis: int = 0
    memory_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create. `attempt` counts the containers of the same name from 0; `env` holds KEY=VALUE texts."""

    name: str
    attempt: int
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    limits: Limits
    labels: Labels
    annotations: Labels = ()


@dataclass(frozen=True, slots=True)
class SandboxState:
    """A sandbox as the runtime reports it."""

    name: str
    pod_uid: str
    attempt: int
    ready: bool
    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as the runtime reports it. Times are Unix nanoseconds, 0 for what has not happened.

    `state` is one of CREATED, RUNNING, EXITED, REMOVED. `reason` is the runtime's: `Completed`, `Error`, `OOMKilled`.
    """

    name: str
    sandbox: str
    pod_uid: str
    container: str
    attempt: int
    state: str
    image: str = ""
    image_name: str = ""
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
