"""What the hypervisor layer tells of itself in numbers, when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable

from lamina_hypervisor.domain.inventory import Inventory
from lamina_hypervisor.domain.vm import WITHOUT_POWER, State
from lamina_kit.telemetry.metrics import Family, by_label, gauge, tally


def families(inventory: Inventory) -> Iterable[Family]:
    """Yields VMs by state, and what those with power were given."""
    vms = inventory.all()
    states = tally((vm.state.value.lower() for vm in vms), [state.value.lower() for state in State])
    yield by_label("lamina_hypervisor_vms", "Virtual machines by state.", "state", states)
    powered = [vm.definition for vm in vms if vm.state not in WITHOUT_POWER]
    yield gauge("lamina_hypervisor_vcpus", "vCPUs of VMs with power.", sum(vm.vcpu_count for vm in powered))
    text = "Memory that VMs with power are defined with."
    yield gauge("lamina_hypervisor_memory_bytes", text, sum(vm.memory_bytes for vm in powered))
