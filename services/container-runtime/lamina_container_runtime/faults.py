"""What can break in a host's containers: one is killed.

The kit serves it as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what it does.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina_container_runtime.domain.names import CONTAINER
from lamina_container_runtime.runtime import Runtime
from lamina_kit.faults.kinds import Breakage, FaultKind
from lamina_kit.faults.table import FaultTable

SIGKILL = 9


class RuntimeFaults:
    """Breaks containers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def register(self, table: FaultTable) -> None:
        """Adds the kind to the layer's table."""
        table.register(
            FaultKind(
                "container-kill",
                CONTAINER,
                "The first process of a container gets SIGKILL from outside, and all others of it die with it.",
                self._kill,
            )
        )

    def _kill(self, breakage: Breakage) -> Mapping[str, object]:
        engine = self._runtime.engine
        container = self._runtime.names.container_id(breakage.object)
        processes = len(engine.processes([container]))
        engine.kill_container(container, SIGKILL, 0)
        return {"processes": processes}
