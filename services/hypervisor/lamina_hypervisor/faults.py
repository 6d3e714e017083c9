"""What can break in the VMs of a host: a VM crashes.

The kit serves it as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what it does.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina_hypervisor.domain.inventory import VM_NAME
from lamina_hypervisor.hypervisor import Hypervisor
from lamina_kit.faults.kinds import Breakage, FaultKind
from lamina_kit.faults.table import FaultTable


class HypervisorFaults:
    """Breaks VMs."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def register(self, table: FaultTable) -> None:
        """Adds the kind to the layer's table."""
        table.register(
            FaultKind(
                "vm-crash",
                VM_NAME,
                "A VM dies at once, as by a triple fault: its vCPUs stop, what it has below is given back, and it "
                "is CRASHED with stop_reason FAULT_INJECTED. It can be started again.",
                self._crash,
            )
        )

    async def _crash(self, breakage: Breakage) -> Mapping[str, object]:
        exits = await self._hypervisor.crash(breakage.object, breakage.name)
        return {"exits": exits}
