"""A sandbox as the runtime keeps it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from lamina_container_runtime.domain.containers.resources import DEFAULT_PIDS_LIMIT, Resources

Pairs = tuple[tuple[str, str], ...]
"""Labels or annotations, in the order of their keys."""


class SandboxState(enum.Enum):
    """States of a sandbox: ready until it is stopped or the runtime starts anew, then never again."""

    READY = "ready"
    NOT_READY = "not-ready"


@dataclass(frozen=True)
class SandboxMetadata:
    """Who a sandbox is in its creator's words."""

    name: str
    namespace: str = ""
    uid: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class SandboxSpec:
    """What a creator asks for."""

    metadata: SandboxMetadata
    hostname: str = ""
    labels: Pairs = ()
    annotations: Pairs = ()
    pids_limit: int = DEFAULT_PIDS_LIMIT
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class SandboxRecord:
    """One sandbox. Groups are resource names of the hardware and of the MMU; times are Unix time in nanoseconds."""

    sandbox_id: str
    spec: SandboxSpec
    state: SandboxState
    create_time_ns: int
    run_group: str = ""
    memory_group: str = ""
    request_id: str = ""

    @property
    def hostname(self) -> str:
        """What uname(2) reports: at most 64 bytes, as Linux has it."""
        return (self.spec.hostname or self.spec.metadata.name)[:64]
