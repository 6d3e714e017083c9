"""Configuration of the container runtime: `[container-runtime]` of the file, `LAMINA_CONTAINER_RUNTIME_…`."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import Checks


@dataclass(frozen=True)
class ContainerRuntimeConfig:
    """Bounds of one host's runtime.

    `max_sandboxes` bounds the sandboxes at one time. `upper_limit_bytes` bounds what one container may write into its
    own layer, which is kept in the runtime's memory (ENOSPC beyond).
    """

    max_sandboxes: int = 1000
    upper_limit_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        with Checks("CONFIG_OUT_OF_RANGE") as check:
            check.range("container-runtime.max_sandboxes", self.max_sandboxes, 1, 100_000)
            check.range("container-runtime.upper_limit_bytes", self.upper_limit_bytes, 1 << 20, 1 << 40)
