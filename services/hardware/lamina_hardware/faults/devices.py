"""What can break in devices: their DMA, and they themselves. `faults/host.py` has the rest of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lamina_hardware.devices.devices import HostDevices
from lamina_hardware.devices.kernel import refuse_fault
from lamina_hardware.domain.devices.device import Device, DeviceState
from lamina_hardware.names import DEVICE
from lamina_kit.errors import FailedPrecondition
from lamina_kit.faults.kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults.table import FaultTable

MAX_TRANSFERS = 1 << 20


class MachineWithDevices(Protocol):
    """What faults of devices need of a machine."""

    devices: HostDevices
    record: Callable[..., Any]
    """Notes what happened to an object, as `EventLog.record` does."""


class DeviceFaults:
    """Breaks the devices of one machine."""

    def __init__(self, machine: MachineWithDevices) -> None:
        self._machine = machine
        self._out: dict[str, Device] = {}

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        transfers = Parameter("transfers", "how many of them", 1, MAX_TRANSFERS, default="1")
        table.register(
            FaultKind(
                "dma-fault",
                DEVICE,
                "The next DMA transfers of a device are refused as if nothing were mapped: the queue stops, the fault "
                "is logged and told to the driver.",
                self._refuse,
                parameters=(transfers,),
            )
        )
        table.register(
            FaultKind(
                "device-failed",
                DEVICE,
                "A device does nothing any more: its driver's stream and its DMA end. It comes back as reset.",
                self._fail,
                self._recover,
            )
        )
        table.register(
            FaultKind(
                "device-removed",
                DEVICE,
                "A device is pulled out. Its driver's stream ends; afterwards another of its kind is in the place.",
                self._remove,
                self._return,
            )
        )

    def _find(self, breakage: Breakage) -> Device:
        """Returns the device to break. Raises `Unimplemented` `DEVICE_NOT_MODELLED` for one of the kernel's."""
        device = self._machine.devices.find(breakage.object)
        refuse_fault(device)
        return device

    def _refuse(self, breakage: Breakage) -> Mapping[str, object]:
        device = self._find(breakage)
        device.refusals += breakage.numbers["transfers"]
        device.cause = breakage.name
        return {"transfers": device.refusals}

    def _fail(self, breakage: Breakage) -> Mapping[str, object]:
        device = self._find(breakage)
        driver = device.driver
        self._machine.devices.fail(device)
        self._machine.record(breakage.object, "device.failed", cause=breakage.name, rule="fault injected")
        return {"driver": driver}

    def _recover(self, breakage: Breakage) -> None:
        device = self._machine.devices.find(breakage.object)
        self._machine.devices.recover(device)
        self._machine.record(breakage.object, "device.recovered", cause=breakage.name)

    def _remove(self, breakage: Breakage) -> Mapping[str, object]:
        device = self._find(breakage)
        if device.state is DeviceState.FAILED:
            raise FailedPrecondition(
                f"{breakage.object} has failed; it stays in its place until that fault is cleared.",
                reason="DEVICE_FAILED",
                next_step="Clear the other fault first.",
            )
        driver = device.driver
        self._machine.devices.unplug(device)
        self._out[device.id] = device
        self._machine.record(breakage.object, "device.removed", cause=breakage.name, rule="fault injected")
        return {"driver": driver}

    def _return(self, breakage: Breakage) -> None:
        old = self._out.pop(breakage.ids["device"])
        self._machine.devices.plug(old.id, old.kind, old.pci, old.group, old.model)
        self._machine.record(breakage.object, "device.added", cause=breakage.name)
