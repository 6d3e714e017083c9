"""What the container runtime tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable

from lamina_container_runtime.domain.containers.container import ContainerState
from lamina_container_runtime.domain.containers.sandbox import SandboxState
from lamina_container_runtime.runtime import Runtime
from lamina_kit.telemetry.metrics import Family, by_label, gauge, tally


def families(runtime: Runtime) -> Iterable[Family]:
    """Yields containers and sandboxes by state, and images; nothing while the layer has not started."""
    if not runtime.is_running:
        return
    containers = tally((found.state.value for found in runtime.engine.containers()), [s.value for s in ContainerState])
    yield by_label("lamina_runtime_containers", "Containers by state.", "state", containers)
    sandboxes = tally((found.state.value for found in runtime.engine.sandboxes()), [s.value for s in SandboxState])
    yield by_label("lamina_runtime_sandboxes", "Sandboxes by state.", "state", sandboxes)
    yield gauge("lamina_runtime_images", "Images.", len(runtime.images.all()))
